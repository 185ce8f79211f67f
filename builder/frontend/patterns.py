"""Shell patterns of ``${name#p}``, ``${name%p}`` and ``${name/p/r}`` (EXP-08, EXP-09).

A pattern is run as a small automaton whose states are the bits of one integer, so no pattern is slow.
"""

from __future__ import annotations

from builder.frontend.errors import ExpansionProblem

Token = str
"""One literal character, or ``ANY_RUN`` / ``ANY_ONE``."""
ANY_RUN = "*run"
ANY_ONE = "?one"


def compile_pattern(pattern: str) -> list[Token]:
    """Tokens of a pattern; raises ExpansionProblem for an escape that means nothing.

    ``\\}`` and ``\\/`` are the characters that would otherwise end the pattern.
    """
    tokens: list[Token] = []
    chars = iter(pattern)
    for char in chars:
        if char == "\\":
            char = next(chars, "")
            if char not in ("*", "?", "\\", "}", "/"):
                raise ExpansionProblem(f"invalid escape '\\{char}'")
            tokens.append(char)
        elif char == "*":
            if not tokens or tokens[-1] != ANY_RUN:
                tokens.append(ANY_RUN)
        else:
            tokens.append(ANY_ONE if char == "?" else char)
    return tokens


class _Automaton:
    def __init__(self, tokens: list[Token]) -> None:
        self.accept = 1 << len(tokens)
        self.runs = 0
        self.any = 0
        self.literal: dict[str, int] = {}
        for index, token in enumerate(tokens):
            bit = 1 << index
            if token == ANY_RUN:
                self.runs |= bit
            elif token == ANY_ONE:
                self.any |= bit
            else:
                self.literal[token] = self.literal.get(token, 0) | bit

    def lengths(self, text: str, start: int, *, longest: bool) -> int:
        """How much of ``text`` from ``start`` matches: the shortest or longest length, -1 for none."""
        states = self._closed(1)
        best = -1
        for position in range(start, len(text) + 1):
            if states & self.accept:
                best = position - start
                if not longest:
                    return best
            if position == len(text) or not states:
                break
            moved = states & (self.any | self.literal.get(text[position], 0))
            states = self._closed((moved << 1) | (states & self.runs))
        return best

    def _closed(self, states: int) -> int:
        """Also the states after every ``*`` that may match nothing (no two stand side by side)."""
        return states | ((states & self.runs) << 1)


def remove_prefix(text: str, pattern: str, *, longest: bool) -> str:
    """``${text#pattern}`` or, longest, ``##``."""
    length = _Automaton(compile_pattern(pattern)).lengths(text, 0, longest=longest)
    return text[length:] if length > 0 else text


def remove_suffix(text: str, pattern: str, *, longest: bool) -> str:
    """``${text%pattern}`` or, longest, ``%%``."""
    tokens = compile_pattern(pattern)[::-1]
    length = _Automaton(tokens).lengths(text[::-1], 0, longest=longest)
    return text[: len(text) - length] if length > 0 else text


def replace_pattern(text: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """``${text/pattern/replacement}`` or, everywhere, ``//``; the replacement goes in literally."""
    tokens = compile_pattern(pattern)
    if not tokens:
        return text
    automaton = _Automaton(tokens)
    if not text:
        return replacement if automaton.lengths(text, 0, longest=True) == 0 else text
    out: list[str] = []
    position = 0
    while position < len(text):
        length = automaton.lengths(text, position, longest=True)
        if length <= 0:
            out.append(text[position])
            position += 1
            continue
        out.append(replacement)
        position += length
        if not everywhere:
            break
    out.append(text[position:])
    return "".join(out)
