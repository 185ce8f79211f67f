"""Ignore files: patterns over context-relative paths (section 12 of the rows; also ``COPY --exclude``).

Patterns of one sign that stand together become one regular expression, so asking about a path costs one match
for a file without exceptions, and a few otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from builder.frontend.errors import InvalidInstruction
from builder.frontend.ignorepatterns import (
    Automaton,
    Token,
    expression,
    is_costly,
    prefix_expression,
    tokens_of,
)
from builder.frontend.paths import clean


class IgnoreMatcher:
    """Which paths are left out. Paths are relative, with ``/``, without a leading slash."""

    __slots__ = ("_groups", "_prefix", "has_exceptions", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Patterns in order, ``!`` marks exceptions; raises InvalidInstruction for a malformed one."""
        self.patterns = tuple(_clean(pattern) for pattern in patterns)
        groups: list[tuple[bool, list[list[Token]]]] = []
        for pattern in self.patterns:
            excludes = not pattern.startswith("!")
            tokens = tokens_of(pattern.removeprefix("!"))
            if groups and groups[-1][0] is excludes:
                groups[-1][1].append(tokens)
            else:
                groups.append((excludes, [tokens]))
        self.has_exceptions = any(not excludes for excludes, _ in groups)
        # The last pattern that matches decides (IGN-05), so ask from the end.
        self._groups = tuple((excludes, _matcher(items)) for excludes, items in reversed(groups))
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
            items = [prefix_expression(tokens_of(p[1:])) for p in self.patterns if p.startswith("!")]
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


def _matcher(patterns: list[list[Token]]) -> Callable[[str], object]:
    """One test for several patterns; a path below a match matches too (IGN-05)."""
    plain = [expression(tokens) for tokens in patterns if not is_costly(tokens)]
    costly = [Automaton(tokens).matches for tokens in patterns if is_costly(tokens)]
    matches: Callable[[str], object] = re.compile(
        f"(?:{'|'.join(plain) or '(?!)'})(?:/.*)?", re.DOTALL
    ).fullmatch
    if not costly:
        return matches
    return lambda path: matches(path) or any(test(path) for test in costly)
