"""Steps of a build that are no vertices: loading the Dockerfile, resolving bases, exporting."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from builder.errors import Cancelled, PybuildError
from builder.solver.progress import LogEvent, OnEvent, StatusEvent, VertexEvent


class Phase:
    """Progress of one such step."""

    def __init__(self, name: str, emit: OnEvent, key: str = "") -> None:
        self.name = name
        told = f"phase {name}{key}".encode("utf-8", "surrogateescape")
        self.digest = f"sha256:{hashlib.sha256(told).hexdigest()}"
        self._emit = emit
        self._started_ns = time.time_ns()
        self._begun: dict[str, int] = {}
        self._send()

    def status(
        self, name: str, current: int = 0, total: int = 0, *, done: bool = False, note: str = ""
    ) -> None:
        """Progress of a part, in bytes; ``note`` stands after its name."""
        now = time.time_ns()
        self._emit(
            StatusEvent(
                vertex=self.digest,
                id=name,
                name=note,
                current=current,
                total=total,
                timestamp_ns=now,
                started_ns=self._begun.setdefault(name, now),
                completed_ns=now if done else None,
            )
        )

    def log(self, stream: int, data: bytes) -> None:
        """Output of a command."""
        self._emit(
            LogEvent(
                vertex=self.digest, data=data, stream=2 if stream == 2 else 1, timestamp_ns=time.time_ns()
            )
        )

    def forward(self, event: object) -> None:
        """Pass on another room's status or log as part of this step."""
        if isinstance(event, StatusEvent):
            done = event.completed_ns is not None
            self.status(event.id, event.current, event.total, done=done, note=event.name)
        elif isinstance(event, LogEvent):
            self._emit(
                LogEvent(
                    vertex=self.digest, data=event.data, stream=event.stream, timestamp_ns=time.time_ns()
                )
            )

    def end(self, *, error: str = "", cancelled: bool = False, cached: bool = False) -> None:
        """The step ended."""
        self._send(completed=True, error=error, cancelled=cancelled, cached=cached)

    def _send(
        self, *, completed: bool = False, error: str = "", cancelled: bool = False, cached: bool = False
    ) -> None:
        self._emit(
            VertexEvent(
                digest=self.digest,
                name=self.name,
                started_ns=self._started_ns,
                completed_ns=time.time_ns() if completed else None,
                error=error,
                cancelled=cancelled,
                cached=cached,
            )
        )


@contextmanager
def phase(name: str, emit: OnEvent, *, key: str = "") -> Iterator[Phase]:
    """Show ``name`` while the body runs; its failure is the step's failure. ``key`` tells steps of one name
    apart.
    """
    step = Phase(name, emit, key)
    try:
        yield step
    except Cancelled:
        step.end(error="context canceled", cancelled=True)
        raise
    except PybuildError as error:
        step.end(error=error.message)
        raise
    except BaseException as error:
        step.end(error=type(error).__name__)
        raise
    step.end()
