"""Small forms shared by all output: sizes, times, and text that cannot drive the terminal."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160))}


def printable(text: str, *, keep: str = "\n\t") -> str:
    """``text`` without control characters, so that a hostile name cannot move the cursor or hide a line."""
    if text.isprintable():
        return text
    table = {code: shown for code, shown in _CONTROL.items() if chr(code) not in keep}
    return text.translate(table)


def human_size(size: float, digits: int = 4) -> str:
    """A size in decimal units with ``digits`` significant digits: ``1.24kB``, ``72.8MB``."""
    unit = 0
    while unit < len(_UNITS) - 1 and float(f"{abs(size):.{digits}g}") >= 1000:
        size /= 1000
        unit += 1
    return f"{size:.{digits}g}{_UNITS[unit]}"


def progress_size(size: int) -> str:
    """A size as progress lines show it: ``99B``, ``1.05MB`` (PRG-03)."""
    if size < 1000:
        return f"{size}B"
    value, unit = float(size), 0
    while unit < len(_UNITS) - 1 and value >= 999.995:
        value /= 1000
        unit += 1
    return f"{value:.2f}{_UNITS[unit]}"


def human_duration(seconds: float) -> str:
    """A length of time in the words of ``docker ps``: ``3 minutes``, ``About an hour``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return f"{whole} second{'s' if whole != 1 else ''}"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def ago(then_ns: int, now_ns: int) -> str:
    """``3 minutes ago``; ``N/A`` for a time that was never set."""
    if then_ns <= 0:
        return "N/A"
    return f"{human_duration(max(0, now_ns - then_ns) / 1e9)} ago"


def rfc3339(ns: int) -> str:
    """A wall-clock time as RFC 3339 text in UTC with nanoseconds, trailing zeros dropped."""
    import time

    seconds, rest = divmod(ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


def ellipsis(text: str, width: int) -> str:
    """``text`` cut to ``width`` characters; the last one says that there was more."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(text: str) -> str:
    """The first 12 hex digits of an id or digest (CLI-09)."""
    return text.rpartition(":")[2][:12]


def local_time(ns: int) -> str:
    """A wall-clock time here, as docker lists it: ``2024-05-01 10:00:00 +0200 CEST``."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(ns // 1_000_000_000)) if ns > 0 else "N/A"
