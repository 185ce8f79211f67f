"""Regular expressions from outside, held to bounded time.

The library's matcher backtracks: some patterns take exponential time. Those are refused by their form: a
repetition of what is itself of variable length, or of alternatives that may begin alike; references back and
look-around too. What is left takes at most the length of the text to the power of its repetitions.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from typing import Any

from builder.errors import InvalidValue

MAX_PATTERN = 4096
MAX_WORK = 10**9
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


def check_bounded(pattern: str, length: int) -> None:
    """Raise InvalidValue unless matching ``pattern`` against ``length`` characters takes bounded time."""
    if max(length, 1) ** max(_repeats(pattern), 1) > MAX_WORK:
        raise InvalidValue(
            f"regular expression {pattern[:100]!r} has too many repetitions for {length} characters of text",
            hint="use fewer of * and +",
        )


@lru_cache(maxsize=256)
def _repeats(pattern: str) -> int:
    """How many repetitions a pattern has; raises InvalidValue for one that is not taken."""
    if len(pattern) > MAX_PATTERN:
        raise InvalidValue(f"regular expression of {len(pattern)} characters is too long")
    try:
        re.compile(pattern)
        tree = import_module("re._parser").parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidValue(f"regular expression {pattern[:100]!r}: {error}") from error
    return _count(tree, pattern, inside=False)


def _count(tree: Any, pattern: str, *, inside: bool) -> int:
    total = 0
    for code, value in tree:
        name = str(code)
        if name in _REPEATS:
            least, most, body = value
            if inside and least != most:
                raise _refused(pattern, "a repetition within a repetition")
            many = int(most) > 1
            total += many + _count(body, pattern, inside=inside or many)
        elif name == "SUBPATTERN":
            total += _count(value[-1], pattern, inside=inside)
        elif name == "ATOMIC_GROUP":
            total += _count(value, pattern, inside=inside)
        elif name == "BRANCH":
            if inside and not _begin_apart(value[1]):
                raise _refused(pattern, "alternatives within a repetition that may begin alike")
            total += sum(_count(item, pattern, inside=inside) for item in value[1])
        elif name not in ("LITERAL", "NOT_LITERAL", "IN", "ANY", "AT", "RANGE"):
            raise _refused(pattern, "a reference back or a look-around")
    return total


def _begin_apart(alternatives: Any) -> bool:
    """Whether every alternative begins with a character of its own."""
    firsts = [tuple(item[0]) if len(item) else None for item in alternatives]
    return all(first is not None and str(first[0]) == "LITERAL" for first in firsts) and len(
        set(map(str, firsts))
    ) == len(firsts)


def _refused(pattern: str, what: str) -> InvalidValue:
    return InvalidValue(
        f"regular expression {pattern[:100]!r} may take without end: {what}",
        hint="write it without, or use several rules",
    )
