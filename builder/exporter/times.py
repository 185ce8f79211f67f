"""Times as images write them: RFC 3339 in UTC, nanoseconds without trailing zeros."""

from __future__ import annotations

import re

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):?(\d\d))\Z", re.ASCII
)


def rfc3339(time_ns: int) -> str:
    """Text for a Unix time in nanoseconds."""
    import time

    seconds, nanos = divmod(time_ns, 1_000_000_000)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def parse_rfc3339(text: str | None) -> int | None:
    """Unix time in nanoseconds, or None for anything else than a time (including Go's zero time)."""
    found = _RFC3339.match(text or "")
    if found is None:
        return None
    import calendar

    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if (
        not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60)
        or year < 1902
    ):
        return None
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    if found[9]:
        offset = int(found[10]) * 3600 + int(found[11]) * 60
        seconds -= offset if found[9] == "+" else -offset
    return seconds * 1_000_000_000 + int((found[7] or "0")[:9].ljust(9, "0"))
