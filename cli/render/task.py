"""One thing that takes a while and is no build step: shown like a step (pull, push, load)."""

from __future__ import annotations

import sys
import time

from builder.errors import Cancelled
from builder.solver.progress import VertexEvent
from cli.render.plain import TASK
from cli.render.progress import Progress, make_progress
from cli.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Task:
    """Progress with a single step; use with ``with``. ``vertex`` is what its statuses belong to."""

    def __init__(self, settings: Settings, name: str, *, quiet: bool = False) -> None:
        self.vertex = f"{TASK}{name}"
        self._name = name
        self.on_event: Progress = make_progress(
            "quiet" if quiet else "auto", settings, sys.stderr, title="Working"
        )
        self._started_ns = time.time_ns()

    def __enter__(self) -> Task:
        self.on_event.__enter__()
        self.on_event(VertexEvent(digest=self.vertex, name=self._name, started_ns=self._started_ns))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.on_event(
            VertexEvent(
                digest=self.vertex,
                name=self._name,
                started_ns=self._started_ns,
                completed_ns=time.time_ns(),
                error=str(error) if error is not None else "",
                cancelled=isinstance(error, (Cancelled, KeyboardInterrupt)),
            )
        )
        self.on_event.close()
