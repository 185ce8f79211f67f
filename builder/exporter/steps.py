"""The statuses inside an export (EXP-02)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builder.solver.progress import Event, OnEvent, StatusEvent


def ignore(_event: Event) -> None:
    """Nobody watches."""


class Steps:
    """Reports named parts of one export."""

    def __init__(self, emit: OnEvent | None, vertex: str = "") -> None:
        self._emit = emit or ignore
        self._vertex = vertex

    @contextmanager
    def step(self, name: str, total: int = 0) -> Iterator[Callable[[int], None]]:
        """A part that runs while the body does; call what is given with the bytes done so far."""
        started = time.time_ns()
        last = 0.0

        def send(current: int, completed: int | None) -> None:
            self._emit(
                StatusEvent(
                    vertex=self._vertex,
                    id=name,
                    current=current,
                    total=total,
                    timestamp_ns=time.time_ns(),
                    started_ns=started,
                    completed_ns=completed,
                )
            )

        def moved(current: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= 0.1:
                last = now
                send(current, None)

        send(0, None)
        yield moved
        send(total, time.time_ns())

    def done(self, name: str) -> None:
        """A part that took no time worth showing."""
        with self.step(name):
            pass

    def transfer(
        self, name: str, current: int, total: int, started_ns: int, *, done: bool, note: str = ""
    ) -> None:
        """Progress of a blob on its way; ``note`` says what is special about it."""
        now = time.time_ns()
        self._emit(
            StatusEvent(
                vertex=self._vertex,
                id=name,
                name=note,
                current=current,
                total=total,
                timestamp_ns=now,
                started_ns=started_ns or now,
                completed_ns=now if done else None,
            )
        )
