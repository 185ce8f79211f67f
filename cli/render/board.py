"""What the progress displays know about a build: one entry per step, fed by events (rows PRG-01, PRG-08,
PRG-09).

Steps of one progress group are one entry. A step may run several times; its time is the sum of its runs.
"""

from __future__ import annotations

from builder.solver.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent

TAIL_LINES = 200


class Entry:
    """One step as it is shown. Times are wall-clock nanoseconds."""

    __slots__ = (
        "_members",
        "_partial",
        "_runs",
        "cached",
        "cancelled",
        "completed_ns",
        "error",
        "key",
        "lines",
        "log",
        "name",
        "started_ns",
        "statuses",
        "warnings",
    )

    def __init__(self, key: str, name: str) -> None:
        self.key = key
        self.name = name
        self.started_ns: int | None = None
        self.completed_ns: int | None = None
        self.cached = False
        self.cancelled = False
        self.error = ""
        self.statuses: dict[str, StatusEvent] = {}
        self.warnings: list[WarningEvent] = []
        self.log: list[str] = []
        """The last lines of output, each with its time in front."""
        self.lines = 0
        self._partial: dict[int, list[bytes]] = {}
        self._runs: dict[tuple[str, int], int | None] = {}
        """The runs of all members: who and when it began, and when it ended."""
        self._members: dict[str, VertexEvent] = {}

    @property
    def running(self) -> bool:
        """Started and not ended."""
        return self.started_ns is not None and self.completed_ns is None

    @property
    def ended(self) -> bool:
        """Ended, for now."""
        return self.completed_ns is not None

    def seconds(self, now_ns: int) -> float:
        """How long the step has run: the time in which any of its members did (PRG-08)."""
        total, until = 0, 0
        for (_, begun), ended in sorted(self._runs.items(), key=_begun):
            end = now_ns if ended is None else ended
            total += max(0, end - max(begun, until))
            until = max(until, end)
        return total / 1e9

    def take(self, event: VertexEvent) -> bool:
        """Note a state; True when it changed what is shown. Weak members of a group show nothing by
        themselves, unless they fail.
        """
        before = (self.started_ns, self.completed_ns, self.cached, self.error)
        self._members[event.digest] = event
        if event.started_ns is not None:
            self._runs[event.digest, event.started_ns] = event.completed_ns
        members = [member for member in self._members.values() if member.started_ns is not None]
        if all(member.progress_weak and not member.error for member in members):
            return False
        open_runs = [begun for (_, begun), ended in self._runs.items() if ended is None]
        self.error = next((member.error for member in members if member.error), "")
        self.cancelled = any(member.cancelled for member in members)
        self.cached = all(member.cached for member in members)
        if open_runs:
            if self.started_ns is None or self.ended:
                self.started_ns = min(open_runs)
            self.completed_ns = None
        else:
            self.started_ns = self.started_ns or min(begun for _, begun in self._runs)
            self.completed_ns = max(ended or 0 for ended in self._runs.values())
        return before != (self.started_ns, self.completed_ns, self.cached, self.error)

    def add_log(self, event: LogEvent) -> list[str]:
        """Note output; the lines that are now whole, each with its time."""
        *whole, rest = event.data.split(b"\n")
        if whole and event.stream in self._partial:
            whole[0] = b"".join((*self._partial.pop(event.stream), whole[0]))
        if rest:
            self._partial.setdefault(event.stream, []).append(rest)
        return self._stamp(whole, event.timestamp_ns)

    def flush_log(self) -> list[str]:
        """The lines that never got their newline, when the step has ended."""
        rest = [b"".join(pieces) for pieces in self._partial.values()]
        self._partial.clear()
        return self._stamp(rest, self.completed_ns or 0)

    def _stamp(self, whole: list[bytes], now_ns: int) -> list[str]:
        if not whole:
            return []
        since = max(0, now_ns - (self.started_ns or now_ns)) / 1e9
        stamp = log_time(since)
        lines = [f"{stamp} {line.decode('utf-8', 'surrogateescape')}".rstrip("\r") for line in whole]
        self.log += lines
        self.lines += len(lines)
        if len(self.log) > 2 * TAIL_LINES:
            del self.log[:-TAIL_LINES]
        return lines


class Board:
    """All entries, in the order in which they first appeared."""

    __slots__ = ("_by_digest", "entries")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._by_digest: dict[str, Entry] = {}

    def entry(self, event: Event) -> Entry:
        """The entry that an event belongs to; made when it is the first of its step."""
        digest = event.digest if isinstance(event, VertexEvent) else event.vertex
        found = self._by_digest.get(digest)
        if found is None:
            name, key = "", digest
            if isinstance(event, VertexEvent):
                name, key = event.name, event.progress_group or digest
            found = self.entries.setdefault(key, Entry(key, name))
            self._by_digest[digest] = found
        if isinstance(event, VertexEvent) and not found.name:
            found.name = event.name
        return found


def _begun(run: tuple[tuple[str, int], int | None]) -> int:
    return run[0][1]


def log_time(seconds: float) -> str:
    """Seconds in front of a log line: five characters wide as long as that makes sense (PRG-03)."""
    if seconds < 10:
        return f"{seconds:.3f}"
    return f"{seconds:.2f}" if seconds < 100 else f"{seconds:.1f}"
