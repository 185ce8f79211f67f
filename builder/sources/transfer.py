"""How much of a local source was read, told as it grows: ``transferring context: 2.05kB`` (SLO-04)."""

from __future__ import annotations

import time

from builder.sources.steps import Step

_EVERY_NS = 100_000_000


class Transfer:
    """The running total of one source. What is known from an earlier build is not read again, nor counted."""

    def __init__(self, name: str, step: Step) -> None:
        self._status = f"transferring {name}:"
        self._step = step
        self._total = 0
        self._told_ns = time.monotonic_ns()

    def add(self, size: int) -> None:
        """So many more bytes were read."""
        self._total += size
        now = time.monotonic_ns()
        if now - self._told_ns >= _EVERY_NS:
            self._told_ns = now
            self._step.status(self._status, self._total)

    def done(self) -> None:
        """Everything that is needed was looked at."""
        self._step.status(self._status, self._total, done=True)
