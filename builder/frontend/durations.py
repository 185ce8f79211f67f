"""Durations in Go's notation (``1m30s``), which is what HEALTHCHECK speaks and what history shows."""

from __future__ import annotations

import re

from builder.frontend.errors import SyntaxProblem
from builder.frontend.parts import Part

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LIMIT = 1 << 63


def parse_duration(text: str, part: Part | None = None) -> int:
    """Nanoseconds; raises SyntaxProblem about ``part``."""
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return 0
    parts = re.findall(r"([0-9]*)(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h)", rest)
    whole = "".join("".join(part) for part in parts)
    total = 0
    bad = not parts or whole != rest
    for number, fraction, unit in parts:
        bad = bad or len(number) > 19 or not (number or len(fraction) > 1)
        if not bad:
            scale = _UNITS[unit]
            digits = fraction[1:19]
            total += int(number or "0") * scale + (int(digits) * scale // 10 ** len(digits) if digits else 0)
    if bad or total >= _LIMIT:
        message = f'time: invalid duration "{text[:80]}"'
        raise SyntaxProblem(message, hint="write it like 30s or 1m30s", part=part)
    return -total if text.startswith("-") else total


def format_duration(value_ns: int) -> str:
    """As Go prints a duration: ``30s``, ``1m30s``, ``1.5s``, ``100ms``, ``0s``."""
    sign, value = ("-", -value_ns) if value_ns < 0 else ("", value_ns)
    if value < 1_000_000_000:
        for name, scale in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if value >= scale:
                return f"{sign}{_decimal(value, scale)}{name}"
        return "0s"
    minutes, seconds = divmod(value, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, 1_000_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    width = len(str(scale)) - 1
    return f"{whole}.{rest:0{width}d}".rstrip("0")
