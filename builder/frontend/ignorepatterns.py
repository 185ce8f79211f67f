"""The pattern language of ignore files (IGN-04): tokens, expressions, and a matcher that is never slow.

A backtracking expression with many wildcards can take for ever on a path made for it, so a pattern with more
than a few is run as an automaton whose states are the bits of one integer.
"""

from __future__ import annotations

import re

from builder.frontend.errors import InvalidInstruction

Token = tuple[str, str]
"""(kind, text): char, star, one, set, deep (whole directories: ``**`` before something) or rest (anything:
``**`` at the end, or at the start of a plain ending)."""

_EXPRESSIONS = {"star": "[^/]*", "one": "[^/]", "deep": "(?:.*/)?", "rest": ".*"}
_FEW = 3
_SPECIAL = frozenset("*?[]\\")


def is_costly(tokens: list[Token]) -> bool:
    """Whether a backtracking expression for ``tokens`` could be slow."""
    return sum(kind in ("star", "deep") for kind, _ in tokens) > _FEW


def expression(tokens: list[Token]) -> str:
    """A regular expression for whole paths."""
    return "".join(
        text if kind == "set" else _EXPRESSIONS.get(kind) or re.escape(text) for kind, text in tokens
    )


def prefix_expression(tokens: list[Token]) -> str:
    """An expression for the directories that may hold a match."""
    if is_costly(tokens):
        return ".*"
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token[0] in ("deep", "rest"):
            # From here on everything is possible, and so is every directory on the way here.
            found = expression(parts[-1]) + ".*"
            return _nest([expression(part) for part in parts[:-1]], found)
        if token == ("char", "/"):
            parts.append([])
        else:
            parts[-1].append(token)
    above = [expression(part) for part in parts[:-1]]
    return _nest(above[:-1], above[-1]) if above else "(?!)"


def _nest(parts: list[str], found: str) -> str:
    for part in reversed(parts):
        found = f"{part}(?:/{found})?"
    return f"(?:{found})"


class Automaton:
    """Matches a path, or a directory above it, in one pass."""

    def __init__(self, tokens: list[Token]) -> None:
        self._chars: dict[str, int] = {}
        self._sets: list[tuple[re.Pattern[str], int]] = []
        self._stay = 0  # on anything but "/"
        self._stay_all = 0  # on anything
        self._any = 0  # moves on, on anything but "/"
        self._skip = 0  # moves on, on nothing
        self._enter = 0  # moves to the next state on anything, and past it on "/"
        bit = 1
        for kind, text in tokens:
            match kind:
                case "char":
                    self._chars[text] = self._chars.get(text, 0) | bit
                case "set":
                    self._sets.append((re.compile(text, re.DOTALL), bit))
                case "one":
                    self._any |= bit
                case "star":
                    self._stay |= bit
                    self._skip |= bit
                case "rest":
                    self._stay_all |= bit
                    self._skip |= bit
                case _:  # deep: an outer state, which may be passed, and an inner one, left by "/" only
                    self._enter |= bit
                    bit <<= 1
                    self._stay_all |= bit
            bit <<= 1
        self._accept = bit

    def matches(self, path: str) -> bool:
        """Whether ``path`` or a directory above it matches."""
        states = self._closed(1)
        for char in path:
            slash = char == "/"
            if slash and states & self._accept:
                return True
            moved = states & self._chars.get(char, 0)
            for pattern, bit in self._sets:
                if states & bit and pattern.match(char):
                    moved |= bit
            stay = states & self._stay_all
            if slash:
                moved |= stay | ((states & self._enter) << 1)
            else:
                stay |= states & self._stay
                moved |= states & self._any
            states = self._closed((moved << 1) | stay | ((states & self._enter) << 1))
            if not states:
                return False
        return bool(states & self._accept)

    def _closed(self, states: int) -> int:
        while True:
            more = states | ((states & self._skip) << 1) | ((states & self._enter) << 2)
            if more == states:
                return states
            states = more


def tokens_of(pattern: str) -> list[Token]:
    """Cut a pattern; raises InvalidInstruction for a malformed one."""
    found: list[Token] = []
    position, end = 0, len(pattern)
    while position < end:
        char = pattern[position]
        position += 1
        if char == "*" and pattern.startswith("*", position):
            position += 1
            if pattern.startswith("/", position):
                position += 1
            elif position == 2 and _SPECIAL.isdisjoint(pattern[2:]):
                position = end  # "**.log": any name that ends so, in any directory
                found.append(("rest", ""))
                found += [("char", char) for char in pattern[2:]]
                continue
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
