"""Ignore files: patterns over context-relative paths (section 12 of the rows; also ``COPY --exclude``).

Patterns of one sign that stand together become one regular expression, so asking about a path costs one match
for a file without exceptions, and a few otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from builder.frontend.errors import InvalidInstruction
from builder.frontend.paths import clean


class IgnoreMatcher:
    """Which paths are left out. Paths are relative, with ``/``, without a leading slash."""

    __slots__ = ("_groups", "_prefix", "has_exceptions", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Patterns in order, ``!`` marks exceptions; raises InvalidInstruction for a malformed one."""
        self.patterns = tuple(_clean(pattern) for pattern in patterns)
        groups: list[tuple[bool, list[str]]] = []
        for pattern in self.patterns:
            excludes = not pattern.startswith("!")
            translated = _translate(pattern.removeprefix("!"))
            if groups and groups[-1][0] is excludes:
                groups[-1][1].append(translated)
            else:
                groups.append((excludes, [translated]))
        self.has_exceptions = any(not excludes for excludes, _ in groups)
        # The last pattern that matches decides (IGN-05), so ask from the end.
        self._groups = tuple((excludes, _compile(items)) for excludes, items in reversed(groups))
        self._prefix: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, data: bytes | str) -> IgnoreMatcher:
        """Read an ignore file (IGN-03)."""
        return cls(read_patterns(data))

    def excludes(self, path: str) -> bool:
        """Whether ``path``, or a directory above it, is left out and not excepted again."""
        for excludes, matches in self._groups:
            if matches(path):
                return excludes
        return False

    def may_hold_exception(self, directory: str) -> bool:
        """Whether something below an excluded ``directory`` may be excepted, so a walk must enter it."""
        if not self.has_exceptions:
            return False
        if self._prefix is None:
            items = [_translate_prefix(p[1:]) for p in self.patterns if p.startswith("!")]
            self._prefix = re.compile("|".join(items), re.DOTALL)
        return self._prefix.fullmatch(directory) is not None

    def __bool__(self) -> bool:
        return bool(self.patterns)


def read_patterns(data: bytes | str) -> tuple[str, ...]:
    """The patterns of an ignore file, comments and blank lines left out (IGN-03)."""
    text = (
        data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        if isinstance(data, bytes)
        else data
    )
    found: list[str] = []
    for line in text.split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if pattern:
            found.append(pattern)
    return tuple(found)


def _clean(pattern: str) -> str:
    """IGN-03, IGN-07."""
    pattern = pattern.strip()
    mark = "!" if pattern.startswith("!") else ""
    rest = pattern[len(mark) :].strip()
    if not rest:
        raise InvalidInstruction(f'illegal exclusion pattern: "{pattern}"', code="bad-ignore-pattern")
    rest = clean(rest)
    if len(rest) > 1:
        rest = rest.lstrip("/")
    return mark + rest


def _compile(items: list[str]) -> Callable[[str], re.Match[str] | None]:
    """One expression for several; a path below a match matches too (IGN-05)."""
    return re.compile(f"(?:{'|'.join(items)})(?:/.*)?", re.DOTALL).fullmatch


def _translate(pattern: str) -> str:
    """A pattern as a regular expression for whole paths (IGN-04)."""
    out: list[str] = []
    for kind, text in _tokens(pattern):
        out.append(text if kind == "set" else _SIMPLE.get(kind) or re.escape(text))
    return "".join(out)


_SIMPLE = {"star": "[^/]*", "one": "[^/]", "deep": "(?:.*/)?", "rest": ".*"}


def _translate_prefix(pattern: str) -> str:
    """An expression for the directories that may hold a match of ``pattern``."""
    nested = ""
    parts: list[str] = []
    current = ""
    for kind, text in _tokens(pattern):
        if kind in ("deep", "rest"):
            nested = ".*"
            break
        if kind == "char" and text == "/":
            parts.append(current)
            current = ""
        else:
            current += text if kind == "set" else _SIMPLE.get(kind) or re.escape(text)
    if nested:
        # Everything from here on is possible, and so is every directory on the way here.
        expression = f"{current}.*"
    elif parts:
        expression, parts = parts[-1], parts[:-1]
    else:
        return r"(?!)"
    for part in reversed(parts):
        expression = f"{part}(?:/{expression})?"
    return f"(?:{expression})"


def _tokens(pattern: str) -> list[tuple[str, str]]:
    """(kind, text): char, star, one, set, deep (``**`` before something), rest (``**`` at the end)."""
    found: list[tuple[str, str]] = []
    position, end = 0, len(pattern)
    while position < end:
        char = pattern[position]
        position += 1
        if char == "*" and pattern.startswith("*", position):
            while pattern.startswith("*", position):
                position += 1
            if pattern.startswith("/", position):
                position += 1
            found.append(("rest" if position >= end else "deep", ""))
        elif char == "*":
            found.append(("star", ""))
        elif char == "?":
            found.append(("one", ""))
        elif char == "[":
            text, position = _set(pattern, position)
            found.append(("set", text))
        elif char == "\\":
            if position >= end:
                raise _malformed(pattern)
            found.append(("char", pattern[position]))
            position += 1
        else:
            found.append(("char", char))
    return found


def _set(pattern: str, position: int) -> tuple[str, int]:
    """A ``[…]`` class, from after its bracket."""
    negated = pattern.startswith("^", position)
    position += negated
    items: list[str] = []
    while True:
        if position >= len(pattern):
            raise _malformed(pattern)
        if pattern[position] == "]" and items:
            break
        low, position = _set_char(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _set_char(pattern, position + 1)
        if high < low:
            raise _malformed(pattern)
        items.append(f"{re.escape(low)}-{re.escape(high)}" if high != low else re.escape(low))
    return f"(?!/)[{'^' if negated else ''}{''.join(items)}]", position + 1


def _set_char(pattern: str, position: int) -> tuple[str, int]:
    if position < len(pattern) and pattern[position] == "\\":
        position += 1
    elif position < len(pattern) and pattern[position] in "-]":
        raise _malformed(pattern)
    if position >= len(pattern):
        raise _malformed(pattern)
    return pattern[position], position + 1


def _malformed(pattern: str) -> InvalidInstruction:
    return InvalidInstruction(f"syntax error in pattern: {pattern[:200]!r}", code="bad-ignore-pattern")
