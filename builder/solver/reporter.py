"""A step's voice: turns what happens into progress events with the step's name and times."""

from __future__ import annotations

import threading
import time

from builder.llb.definition import Vertex
from builder.solver.progress import LogEvent, OnEvent, StatusEvent, VertexEvent, WarningEvent

TAIL_BYTES = 64 * 1024


class Reporter:
    """Progress of one vertex. Safe to use from several threads."""

    def __init__(self, vertex: Vertex, emit: OnEvent) -> None:
        self.vertex = vertex
        self._emit = emit
        self._digest = str(vertex.digest)
        self._inputs = tuple(str(edge.digest) for edge in vertex.inputs)
        self._lock = threading.Lock()
        self._started_ns: int | None = None
        self._statuses: dict[str, int] = {}
        self._tail = bytearray()
        self.is_open = False
        """Whether something was shown of the step, and not its end."""

    def start(self) -> None:
        """The step began; one that waited for somebody since it was shown goes on."""
        if not self.is_open or self._started_ns is None:
            self._started_ns = time.time_ns()
        self._send()

    def done(self) -> None:
        """The step ended well."""
        self._send(completed=True)

    def cached(self) -> None:
        """The step's result was there already."""
        now = time.time_ns()
        self._started_ns = self._started_ns or now
        self._send(completed=True, cached=True)

    def fail(self, message: str) -> None:
        """The step failed, perhaps before it could begin."""
        self._started_ns = self._started_ns or time.time_ns()
        self._send(completed=True, error=message)

    def cancelled(self) -> None:
        """The step was stopped because the build was."""
        self._started_ns = self._started_ns or time.time_ns()
        self._send(completed=True, error="context canceled", cancelled=True)

    def log(self, stream: int, data: bytes) -> None:
        """Output of the step's command."""
        with self._lock:
            self._tail += data
            if len(self._tail) > 2 * TAIL_BYTES:
                del self._tail[:-TAIL_BYTES]
        self._emit(
            LogEvent(
                vertex=self._digest, data=data, stream=2 if stream == 2 else 1, timestamp_ns=time.time_ns()
            )
        )

    def say(self, text: str) -> None:
        """A remark of ours among the output of the step."""
        self.log(2, text.encode("utf-8", "replace"))

    def status(
        self, name: str, current: int = 0, total: int = 0, *, done: bool = False, note: str = ""
    ) -> None:
        """Progress of a part of the step, in bytes; ``note`` stands after its name."""
        now = time.time_ns()
        self.is_open = True
        with self._lock:
            started = self._statuses.setdefault(name, now)
        self._emit(
            StatusEvent(
                vertex=self._digest,
                id=name,
                name=note,
                current=current,
                total=total,
                timestamp_ns=now,
                started_ns=started,
                completed_ns=now if done else None,
            )
        )

    def warn(self, short: str, *detail: str) -> None:
        """A remark that does not stop the build."""
        self._emit(WarningEvent(vertex=self._digest, short=short, detail=detail))

    def tail(self, lines: int = 10) -> tuple[str, ...]:
        """The last lines of the step's output."""
        with self._lock:
            text = bytes(self._tail).decode("utf-8", "replace")
        return tuple(text.splitlines()[-lines:])

    def _send(
        self, *, completed: bool = False, cached: bool = False, error: str = "", cancelled: bool = False
    ) -> None:
        self.is_open = not completed
        self._emit(
            VertexEvent(
                digest=self._digest,
                name=self.vertex.name,
                inputs=self._inputs,
                started_ns=self._started_ns,
                completed_ns=time.time_ns() if completed else None,
                cached=cached,
                error=error,
                cancelled=cancelled,
                progress_group=self.vertex.meta.progress_group,
                progress_weak=self.vertex.meta.progress_weak,
            )
        )
