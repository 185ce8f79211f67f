"""Patterns over paths: wildcards of COPY sources, and lists of include or exclude patterns.

A wildcard follows Go's ``filepath.Match``: ``*``, ``?``, ``[a-z]``, ``[^a]`` and ``\\`` never match a slash.
A list follows ignore files: ``**`` matches any number of directories, ``!`` makes an exception, the last
pattern that matches a path, or a directory above it, decides.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from builder.errors import InvalidValue

_WILD = frozenset("*?[")


def has_wildcard(path: str) -> bool:
    """Whether a path holds a wildcard that is not escaped."""
    escaped = False
    for char in path:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in _WILD:
            return True
    return False


def unescape(path: str) -> str:
    """A path without wildcards as it is meant: ``\\x`` is ``x``."""
    return re.sub(r"\\(.)", r"\1", path, flags=re.DOTALL) if "\\" in path else path


@functools.lru_cache(maxsize=512)
def wildcard(pattern: str) -> re.Pattern[str]:
    """One path element's pattern as an expression for ``fullmatch``; InvalidValue when malformed."""
    return re.compile(_translate(pattern, deep=False), re.DOTALL)


class PatternList:
    """Ignore-file patterns over relative paths; ``bool`` says whether there are any."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(_clean(pattern) for pattern in patterns)
        self._rules = tuple(
            (not text.startswith("!"), re.compile(_translate(text.removeprefix("!")) + "(?:/.*)?", re.DOTALL))
            for text in reversed(self.patterns)
        )
        self.has_exceptions = any(not positive for positive, _ in self._rules)
        self._elements = tuple(p.split("/") for p in self.patterns if not p.startswith("!"))

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, path: str) -> bool:
        """Whether the list decides for ``path``."""
        for positive, expression in self._rules:
            if expression.fullmatch(path) is not None:
                return positive
        return False

    def may_match_below(self, directory: str) -> bool:
        """Whether something below a directory could match; True when in doubt."""
        parts = directory.split("/")
        return any(_leads_into(elements, parts) for elements in self._elements)


def _leads_into(elements: list[str], parts: list[str]) -> bool:
    for element, part in zip(elements, parts, strict=False):
        if "**" in element:
            return True
        if wildcard(element).fullmatch(part) is None:
            return False
    return True


def _clean(pattern: str) -> str:
    """Spaces, slashes around, and ``.`` and ``..`` elements taken out, as far as that is possible."""
    mark = "!" if pattern.strip().startswith("!") else ""
    rest = pattern.strip().removeprefix("!").strip()
    parts: list[str] = []
    for part in rest.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part and part != ".":
            parts.append(part)
    if not rest:
        raise InvalidValue(f"not a pattern: {pattern!r}")
    return mark + ("/".join(parts) or "**")


def _translate(pattern: str, *, deep: bool = True) -> str:
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            stars = 1
            while pattern.startswith("*", at):
                at += 1
                stars += 1
            if not deep or stars == 1:
                out.append("[^/]*")
            elif pattern.startswith("/", at):
                at += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            text, at = _character_class(pattern, at)
            out.append(text)
        elif char == "\\":
            if at >= len(pattern):
                raise _malformed(pattern)
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    """A ``[…]`` from after its bracket: (expression, position behind it)."""
    negated = pattern.startswith("^", at)
    at += negated
    items: list[str] = []
    while not (items and pattern.startswith("]", at)):
        low, at = _class_character(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_character(pattern, at + 1)
        if low <= high:  # an empty range matches nothing
            items.append(f"{re.escape(low)}-{re.escape(high)}")
        elif not items:
            items.append("")
    body = "".join(items)
    if not body:
        return ("[^/]" if negated else "(?!)"), at + 1
    return f"(?!/)[{'^' if negated else ''}{body}]", at + 1


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("\\", at):
        at += 1
    elif at < len(pattern) and pattern[at] in "-]":
        raise _malformed(pattern)
    if at + 1 >= len(pattern):  # the closing bracket must follow
        raise _malformed(pattern)
    return pattern[at], at + 1


def _malformed(pattern: str) -> InvalidValue:
    return InvalidValue(f"syntax error in pattern {pattern[:200]!r}", code="bad-pattern")
