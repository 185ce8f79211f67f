"""Signal names that STOPSIGNAL knows (MET-10)."""

from __future__ import annotations

from builder.frontend.errors import suggestion

# fmt: off
_NAMES = frozenset({
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT",
    "IO", "IOT", "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT",
    "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2",
    "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
})
# fmt: on


def similar_signal(text: str) -> str:
    """What may have been meant by a name that is no signal, in a hint."""
    if text.lstrip("+-").isdigit():
        return "want a number from 1 to 64, or a name like SIGTERM"
    prefix = "SIG" if text.upper().startswith("SIG") else ""
    meant = suggestion(text, (prefix + name for name in _NAMES)).strip(" ()")
    return meant or "want a name like SIGTERM or a number"


def is_signal(text: str) -> bool:
    """A name with or without SIG, ``RTMIN+n``, ``RTMAX-n``, or a number."""
    if text.isascii() and text.isdigit():
        return len(text) <= 3 and 0 < int(text) <= 64
    name = text.upper().removeprefix("SIG")
    return name in _NAMES or _real_time(name)


def _real_time(name: str) -> bool:
    for base, sign, limit in (("RTMIN", "+", 15), ("RTMAX", "-", 14)):
        rest = name.removeprefix(base)
        if rest != name and rest[:1] == sign and rest[1:].isascii() and rest[1:].isdigit():
            return len(rest) <= 3 and 1 <= int(rest[1:]) <= limit
    return False
