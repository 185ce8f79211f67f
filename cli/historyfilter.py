"""``history ls --filter``: flags are alternatives, the parts of one flag must all hold (HSY-03)."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable

from builder.build.history import BuildRecord
from builder.errors import UsageError
from cli.units import csv_fields, duration_seconds, point_in_time_ns

Predicate = Callable[[BuildRecord], bool]
_STATUSES = ("running", "completed", "error", "canceled")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_TIMES: dict[str, Callable[[BuildRecord], int | None]] = {
    "startedat": lambda record: record.created_ns,
    "completedat": lambda record: record.completed_ns,
    "duration": lambda record: record.duration_ns,
}
_TEXTS: dict[str, Callable[[BuildRecord], str]] = {
    "ref": lambda record: record.ref,
    "status": lambda record: record.status,
    "repository": lambda record: str((record.data.get("attrs") or {}).get("context", "")).partition("#")[0],
}
_HINT = "ref=, status=, repository=, or startedAt, completedAt, duration with >, <, >= or <="


def parse_filters(values: Iterable[str]) -> Predicate:
    """What ``--filter`` values choose; without any, everything. Raises UsageError."""
    alternatives = [
        [_term(part.strip()) for part in csv_fields(value, "filter") if part.strip()] for value in values
    ]
    if not alternatives:
        return lambda _record: True
    return lambda record: any(all(term(record) for term in terms) for terms in alternatives)


def _term(text: str) -> Predicate:
    at = next((place for place, char in enumerate(text) if char in "=<>!~"), len(text))
    key = text[:at].strip()
    sign = text[at:][: len(text[at:]) - len(text[at:].lstrip("=<>!~"))]
    value = text[at + len(sign) :].strip()
    lowered = key.lower()
    if lowered in _TEXTS and sign in ("=", "==", "!=", "~="):
        return _text(lowered, sign, value)
    if lowered in _TIMES and sign in _COMPARE:
        return _time(lowered, sign, value)
    raise UsageError(f"invalid filter {text!r}", hint=_HINT)


def _text(key: str, sign: str, value: str) -> Predicate:
    if key == "status" and value not in _STATUSES:
        raise UsageError(f"invalid filter: unknown status {value!r}", hint=", ".join(_STATUSES))
    get = _TEXTS[key]
    if sign == "!=":
        return lambda record: get(record) != value
    if sign == "~=":
        import re

        try:
            pattern = re.compile(value)
        except re.error as error:
            raise UsageError(f"invalid filter: {value!r} is no regular expression: {error}") from error
        return lambda record: pattern.search(get(record)) is not None
    return lambda record: get(record) == value


def _time(key: str, sign: str, value: str) -> Predicate:
    """A duration back from now or a time; for ``duration`` a length. A missing time never matches."""
    get, compare = _TIMES[key], _COMPARE[sign]
    if key == "duration":
        limit = int(duration_seconds(value, "filter duration") * 1e9)
    else:
        limit = point_in_time_ns(value, time.time_ns(), f"filter {key}")

    def matches(record: BuildRecord) -> bool:
        found = get(record)
        return found is not None and compare(found, limit)

    return matches
