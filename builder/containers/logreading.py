"""``logs``: what a container wrote (IO-LOGS-1, IO-LOGS-2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from builder.cache.store import Store
from builder.containers.inspection import log_path
from builder.containers.lookup import find
from builder.containers.types import BadOption, Container
from runtime import state
from runtime.errors import PybuildError
from runtime.jsonlog import LogEntry, parse_time, read_log

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def logs(
    store: Store,
    ref: str,
    *,
    follow: bool = False,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> Iterator[LogEntry]:
    """Entries of the container's log, oldest first; ``follow`` goes on until it has ended."""
    container = find(store, ref)
    path = log_path(container)
    if not path:
        driver = container.data["HostConfig"]["LogConfig"]["Type"]
        raise BadOption(f'"logs" command is supported only for "json-file" logging driver (got {driver})')
    return read_log(
        Path(path),
        tail=tail,
        since_ns=since_ns,
        until_ns=until_ns,
        follow=(lambda: _goes_on(container)) if follow else None,
    )


def _goes_on(container: Container) -> bool:
    try:
        return state.observe(container.directory).running
    except PybuildError:
        return False  # removed


def moment(text: str, *, now_ns: int | None = None) -> int:
    """``--since`` and ``--until``: unix time, RFC 3339, a date, or a span back from now such as ``10m``."""
    found = parse_time(text)
    if found is None:
        span = _span(text)
        if span is None:
            raise BadOption(
                f"invalid time {text!r}", hint="for example 10m, 1700000000 or 2024-01-31T10:00:00Z"
            )
        found = (time.time_ns() if now_ns is None else now_ns) - span
    return found


def _span(text: str) -> int | None:
    import re

    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(int(float(number) * _UNITS[unit]) for number, unit in parts)


def tail_count(text: str) -> int | None:
    """``--tail``: a number of lines; ``all``, and anything that is no number, means everything."""
    return int(text) if text.isdigit() else None
