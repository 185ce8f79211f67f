"""Sizes, durations, points in time and pairs as people type them."""

from __future__ import annotations

from builder.errors import UsageError

_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def size_bytes(text: str, what: str = "size") -> int:
    """``512m``, ``1.5g``, ``64kb``, ``1GiB``, ``4096``: units of 1024. Raises UsageError."""
    lowered = text.strip().lower()
    number = lowered.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = lowered[len(number) :].strip()
    short = (
        unit.removesuffix("ib") if unit.endswith("ib") else unit.removesuffix("b") if len(unit) > 1 else unit
    )
    try:
        value = float(number)
        factor = _FACTORS[short]
    except (ValueError, KeyError):
        raise UsageError(f"invalid {what}: {text!r}", hint="a number with b, k, m or g, like 512m") from None
    if not 0 <= value < 1 << 63:
        raise UsageError(f"invalid {what}: {text!r}", hint="it must not be negative or beyond 8 EiB")
    return int(value * factor)


def duration_seconds(text: str, what: str = "duration") -> float:
    """``1h30m``, ``90s``, ``2d`` or plain seconds. Raises UsageError."""
    rest, total = text.strip().lower(), 0.0
    try:
        if rest.replace(".", "", 1).isdigit():
            return float(rest)
        if not rest:
            raise ValueError
        while rest:
            digits = len(rest) - len(rest.lstrip("0123456789."))
            value, rest = float(rest[:digits]), rest[digits:]
            letters = len(rest) - len(rest.lstrip("nuµmshd"))
            unit = next(u for u in (rest[:2], rest[:1]) if u in _TIME_UNITS and len(u) <= letters)
            total += value * _TIME_UNITS[unit]
            rest = rest[len(unit) :]
    except (ValueError, StopIteration):
        raise UsageError(f"invalid {what}: {text!r}", hint="like 90s, 10m or 1h30m") from None
    return total


def point_in_time_ns(text: str, now_ns: int, what: str = "time") -> int:
    """A Unix time (``1700000000.5``), RFC 3339 (a date alone is midnight here), or how long ago (``10m``)."""
    plain = text.strip()
    if plain.replace(".", "", 1).isdigit():
        seconds, _, fraction = plain.partition(".")
        return int(seconds or "0") * 1_000_000_000 + int(f"{fraction[:9]:0<9}" if fraction else "0")
    if "-" in plain[1:]:
        from datetime import datetime

        try:
            found = datetime.fromisoformat(plain)
        except ValueError:
            raise UsageError(f"invalid {what}: {text!r}", hint="like 2024-05-01T10:00:00Z or 10m") from None
        return int(found.astimezone().timestamp() * 1_000_000) * 1000
    return now_ns - int(duration_seconds(plain, what) * 1e9)


def pair(text: str, what: str) -> tuple[str, str]:
    """``KEY=VALUE``; raises UsageError without ``=`` or without a key."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"invalid {what} {text!r}", hint="want NAME=VALUE")
    return key, value


def csv_fields(text: str, what: str) -> list[str]:
    """The fields of one comma-separated line; a field may stand in double quotes to hold commas."""
    if '"' not in text:
        return text.split(",")
    from builder import csvline

    return csvline.csv_fields(text, what)


def csv_pairs(text: str, what: str) -> list[tuple[str, str]]:
    """``a=b,c=d`` as pairs; a field without ``=`` has an empty value."""
    out: list[tuple[str, str]] = []
    for field in csv_fields(text, what):
        key, _, value = field.partition("=")
        out.append((key.strip(), value))
    return out
