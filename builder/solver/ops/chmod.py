"""Modes of copied entries: an octal override, or a symbolic one worked out from each source mode (FIL-11)."""

from __future__ import annotations

import functools
import stat

from builder.errors import InvalidValue

_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}


@functools.lru_cache(maxsize=256)
def symbolic(text: str, mode: int) -> int:
    """``chmod text`` applied to a mode (its type included) with umask 0; gives permission and set-id bits."""
    bits = stat.S_IMODE(mode)
    is_dir = stat.S_ISDIR(mode)
    for clause in text.split(","):
        bits = _clause(clause, bits, is_dir)
    return bits


def _clause(clause: str, bits: int, is_dir: bool) -> int:
    rest = clause.lstrip("ugoa")
    who = clause[: len(clause) - len(rest)] or "a"
    everyone = "a" in who
    mask = 0
    for letter in "ugo":
        if everyone or letter in who:
            mask |= _WHO[letter]
    if not rest:
        raise InvalidValue(f"invalid mode {clause!r}")
    while rest:
        operator, rest = rest[0], rest[1:]
        if operator not in "+-=":
            raise InvalidValue(f"invalid mode {clause!r}")
        end = next((i for i, char in enumerate(rest) if char in "+-="), len(rest))
        wanted = _permissions(rest[:end], bits, is_dir, clause) & mask
        rest = rest[end:]
        if operator == "+":
            bits |= wanted
        elif operator == "-":
            bits &= ~wanted
        else:
            kept = 0o6000 if is_dir else 0  # like chmod, a directory keeps its set-id bits
            bits = (bits & ~(mask & ~kept)) | wanted
    return bits


def _permissions(text: str, bits: int, is_dir: bool, clause: str) -> int:
    if len(text) == 1 and text in "ugo":
        three = bits >> {"u": 6, "g": 3, "o": 0}[text] & 7
        return three << 6 | three << 3 | three
    wanted = 0
    for char in text:
        if char in _BITS:
            wanted |= _BITS[char]
        elif char == "X":
            wanted |= 0o111 if is_dir or bits & 0o111 else 0
        elif char == "s":
            wanted |= 0o6000
        elif char == "t":
            wanted |= 0o1000
        else:
            raise InvalidValue(f"invalid mode {clause!r}")
    return wanted
