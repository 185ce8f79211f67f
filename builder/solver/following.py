"""One build runs a step, the others wait for it and pass on what it says (SLV-04).

Who holds the lock of a step writes into the lock's file which build it is; that build's log in the history
has the output of the step, and is read while it grows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from builder.cancelling import check
from builder.llb.definition import Vertex
from builder.solver.env import SolveEnv
from builder.solver.progress import Event, LogEvent, StatusEvent
from builder.solver.protowire import WireError
from builder.solver.reporter import Reporter
from builder.solver.statuswire import Frames

_WAITING = "waiting for another build that runs this step"
_PIECE = 1 << 20
_POLL_S = 0.1


@contextmanager
def alone(name: str, vertex: Vertex, env: SolveEnv, reporter: Reporter) -> Iterator[None]:
    """Run the body under the lock ``name``. Who waits for it gives its place back meanwhile."""
    followed: _Followed | None = None

    def waiting() -> None:
        nonlocal followed
        env.place.leave()
        reporter.start()
        reporter.status(_WAITING)
        followed = _Followed(env, reporter)

    def look() -> None:
        if followed is not None:
            followed.look(lock.note())

    note = f"{vertex.digest} {env.build_id}" if env.build_id else ""
    lock = env.store.lock(name, note=note, on_wait=waiting, check=look)
    try:
        with lock:
            if followed is not None:
                followed.finish()
                reporter.status(_WAITING, done=True)
            yield
    finally:
        if followed is not None:
            followed.close()


class _Followed:
    """The output of a step in the logs of those who run it, one after the other."""

    def __init__(self, env: SolveEnv, reporter: Reporter) -> None:
        self._env = env
        self._reporter = reporter
        self._note = ""
        self._vertex = ""
        self._log: BinaryIO | None = None
        self._frames = Frames()
        self._passed_on = False
        """Whether what the log says comes from somebody whom that build has waited for."""
        self._next = 0.0

    def look(self, note: str) -> None:
        """Tell what is new; often called, and never for long. ``note`` is that of the lock's holder."""
        if time.monotonic() < self._next:
            return
        if note and note != self._note:
            self.finish()
            self._open(note)
        if not self._tell():
            self._next = time.monotonic() + _POLL_S

    def finish(self) -> None:
        """Tell the rest."""
        while self._tell():
            check()
        self.close()

    def close(self) -> None:
        """Tell no more."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _open(self, note: str) -> None:
        self._note = note
        self._vertex, _, build = note.partition(" ")
        self._frames = Frames()
        try:
            self._log = open(f"{self._env.store.builds.directory(build)}/log", "rb")  # noqa: SIM115 - by close
        except OSError:
            pass  # nothing is told, then

    def _tell(self) -> bool:
        """Pass on a piece of the log; False when there was none."""
        if self._log is None:
            return False
        try:
            piece = self._log.read(_PIECE)
            for event in self._frames.feed(piece):
                self._take(event)
        except (OSError, WireError):
            return False
        return bool(piece)

    def _take(self, event: Event) -> None:
        if isinstance(event, StatusEvent) and event.vertex == self._vertex and event.id == _WAITING:
            self._passed_on = event.completed_ns is None
        if isinstance(event, LogEvent) and event.vertex == self._vertex and not self._passed_on:
            self._reporter.log(event.stream, event.data)
