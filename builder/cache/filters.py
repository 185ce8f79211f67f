"""Filters over what is kept (GC-03): several are alternatives, the parts of one, between commas, all hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from builder.errors import InvalidValue

if TYPE_CHECKING:
    from builder.cache.usage import UsageRow

Predicate = Callable[["UsageRow"], bool]
_PART = re.compile(r"\s*([a-zA-Z]+)\s*(?:(==|!=|~=|=)\s*(.*?)\s*)?\Z", re.DOTALL)
_FLAGS: dict[str, Predicate] = {
    "inuse": lambda row: row.in_use,
    "mutable": lambda row: row.mutable,
    "immutable": lambda row: not row.mutable,
    "shared": lambda row: row.shared,
    "private": lambda row: not row.shared,
}
_TEXTS: dict[str, Callable[[UsageRow], tuple[str, ...]]] = {
    "id": lambda row: (row.id,),
    "parent": lambda row: row.parents,
    "parents": lambda row: row.parents,
    "description": lambda row: (row.description,),
    "type": lambda row: (row.record_type,),
}


def parse_filters(texts: Sequence[str]) -> Predicate:
    """One predicate for all filters; everything matches when there is none. Raises InvalidValue."""
    alternatives = [_alternative(text) for text in texts if text.strip()]
    if not alternatives:
        return lambda _: True
    return lambda row: any(matches(row) for matches in alternatives)


def _alternative(text: str) -> Predicate:
    parts = [_part(part) for part in text.split(",")]
    return lambda row: all(matches(row) for matches in parts)


def _part(text: str) -> Predicate:
    match = _PART.match(text)
    if match is None:
        raise InvalidValue(
            f"invalid filter {text!r}", hint="want field, field==text, field!=text or field~=pattern"
        )
    field, operator, wanted = match[1].lower(), match[2] or "", (match[3] or "").strip("\"'")
    flag = _FLAGS.get(field)
    if flag is not None:
        return _flag(flag, operator, wanted)
    get = _TEXTS.get(field)
    if get is None:
        raise InvalidValue(
            f"unknown filter field {field!r}", hint="known: " + ", ".join(sorted((*_FLAGS, *_TEXTS)))
        )
    if operator in ("==", "="):
        return lambda row: wanted in get(row)
    if operator == "!=":
        return lambda row: wanted not in get(row)
    if operator == "~=":
        return _pattern(get, wanted)
    return lambda row: any(get(row))


def _flag(flag: Predicate, operator: str, wanted: str) -> Predicate:
    if not operator:
        return flag
    expected = wanted.lower() not in ("false", "0", "no", "")
    if operator == "!=":
        expected = not expected
    return lambda row: flag(row) == expected


def _pattern(get: Callable[[UsageRow], tuple[str, ...]], text: str) -> Predicate:
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise InvalidValue(f"invalid pattern {text!r} in a filter: {error}") from error
    return lambda row: any(compiled.search(value) for value in get(row))
