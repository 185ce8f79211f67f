"""The ``json-file`` log: one JSON object with ``log``, ``stream`` and ``time`` per line of output
(IO-LOGS-2).

A line longer than 16 KiB is stored in pieces; only the last piece ends in a newline. Bytes that are not
UTF-8 travel as lone surrogates in ``\\u`` form, so that reading gives back exactly what was written. The
writer is used by the monitor only; readers may read and follow at any time, and tolerate an unfinished last
line.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One piece of output: bytes, ``stdout`` or ``stderr``, and its RFC 3339 time as written."""

    data: bytes
    stream: str
    time: str

    @property
    def time_ns(self) -> int:
        """The time as nanoseconds since the epoch; 0 when it cannot be read."""
        return parse_time(self.time) or 0


def parse_entry(line: bytes) -> LogEntry | None:
    """One line of the file; None when it is not a whole, valid entry."""
    try:
        value = json.loads(line)
        return LogEntry(value["log"].encode("utf-8", "surrogateescape"), value["stream"], value["time"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parse_time(text: str) -> int | None:
    """Nanoseconds since the epoch from unix seconds (with a fraction) or RFC 3339, a date alone allowed."""
    text = text.strip()
    try:
        if text and text.replace(".", "", 1).isdigit():
            whole, _, part = text.partition(".")
            return int(whole) * 1_000_000_000 + int((part + "000000000")[:9] if part else 0)
        return _parse_rfc3339(text)
    except (ValueError, OverflowError):
        return None


def _parse_rfc3339(text: str) -> int:
    from datetime import datetime

    stem, dot, rest = text.partition(".")
    digits = ""
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        stem += rest[len(digits) :]
    found = datetime.fromisoformat(stem)
    if found.tzinfo is None:
        found = found.astimezone()
    return int(found.timestamp()) * 1_000_000_000 + int((digits + "000000000")[:9])


def read_log(
    path: Path,
    *,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    follow: Callable[[], bool] | None = None,
    poll_s: float = 0.1,
) -> Iterator[LogEntry]:
    """Entries in order; ``tail`` counts whole lines of what ``since_ns`` selects.

    With ``follow`` the iterator goes on until that function says False and the file has no more.
    """
    entries, offset, inode = _read_existing(path)
    selected = (entry for entry in entries if since_ns is None or entry.time_ns >= since_ns)
    yield from (
        entry for entry in _last_lines(selected, tail) if until_ns is None or entry.time_ns <= until_ns
    )
    if follow is not None:
        for entry in _follow(path, offset, inode, follow, poll_s):
            if until_ns is not None and entry.time_ns > until_ns:
                return
            if since_ns is None or entry.time_ns >= since_ns:
                yield entry


def _read_existing(path: Path) -> tuple[Iterable[LogEntry], int, int]:
    rotated = sorted(
        (p for p in path.parent.glob(path.name + ".*") if p.suffix[1:].isdigit()),
        key=lambda p: -int(p.suffix[1:]),
    )
    try:
        with path.open("rb") as file:
            data = file.read()
            inode = os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return (), 0, 0
    end = data.rfind(b"\n") + 1
    older = b"".join(p.read_bytes() for p in rotated)
    lines = (older + data[:end]).splitlines()
    return (entry for entry in map(parse_entry, lines) if entry is not None), end, inode


def _last_lines(entries: Iterable[LogEntry], count: int | None) -> Iterable[LogEntry]:
    """The entries of the last ``count`` lines; the pieces of a long line count as one."""
    if count is None or count < 0:
        return entries
    lines: deque[list[LogEntry]] = deque(maxlen=count)
    open_line: dict[str, list[LogEntry]] = {}
    for entry in entries:
        line = open_line.get(entry.stream)
        if line is None:
            line = open_line[entry.stream] = []
            lines.append(line)
        line.append(entry)
        if entry.data.endswith(b"\n"):
            del open_line[entry.stream]
    return (entry for line in lines for entry in line)


def _follow(
    path: Path, offset: int, inode: int, alive: Callable[[], bool], poll_s: float
) -> Iterator[LogEntry]:
    rest = b""
    while True:
        going = alive()  # asked before reading, so that what was written last is still read
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != inode or status.st_size < offset:
                    offset, inode, rest = 0, status.st_ino, b""
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            data = b""
            if not going:
                return
        offset += len(data)
        rest += data
        end = rest.rfind(b"\n") + 1
        for line in rest[:end].splitlines():
            entry = parse_entry(line)
            if entry is not None:
                yield entry
        rest = rest[end:]
        if not going:
            return
        if not data:
            time.sleep(poll_s)
