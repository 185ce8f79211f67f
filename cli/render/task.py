"""One thing that takes a while and is no build step: shown like a step (pull, push, load)."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from builder.errors import Cancelled
from builder.solver.progress import Event, StatusEvent, VertexEvent
from cli.render.plain import TASK
from cli.render.progress import make_progress
from cli.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Task:
    """Progress with a single step; use with ``with``. ``vertex`` is what its statuses belong to."""

    def __init__(self, settings: Settings, name: str, *, quiet: bool = False) -> None:
        self.vertex = f"{TASK}{name}"
        self._name = name
        self._progress = make_progress("quiet" if quiet else "auto", settings, sys.stderr, title="Working")
        self._started_ns = time.time_ns()

    def on_event(self, event: Event) -> None:
        """Show an event; one that belongs to no step is about this task."""
        if isinstance(event, StatusEvent) and not event.vertex:
            event = replace(event, vertex=self.vertex)
        self._progress(event)

    def __enter__(self) -> Task:
        self._progress.__enter__()
        self._progress(VertexEvent(digest=self.vertex, name=self._name, started_ns=self._started_ns))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress(
            VertexEvent(
                digest=self.vertex,
                name=self._name,
                started_ns=self._started_ns,
                completed_ns=time.time_ns(),
                error=str(error) if error is not None else "",
                cancelled=isinstance(error, (Cancelled, KeyboardInterrupt)),
            )
        )
        self._progress.close()
