"""How transfers tell how far they are; callers turn this into their own events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

MIN_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """State of one transfer: ``id`` is what is shown; ``done`` when it ended well."""

    id: str
    current: int = 0
    total: int = 0
    started_ns: int = 0
    done: bool = False
    note: str = ""


OnTransfer = Callable[[Transfer], None]


class Meter:
    """Reports one transfer, at most ten times a second."""

    def __init__(self, name: str, total: int, emit: OnTransfer | None) -> None:
        self._name = name
        self._total = total
        self._emit = emit
        self._started_ns = time.time_ns()
        self._last = 0.0
        self.at(0, force=True)

    def at(self, current: int, *, force: bool = False) -> None:
        """``current`` bytes have moved."""
        if self._emit is None:
            return
        now = time.monotonic()
        if not force and now - self._last < MIN_INTERVAL_S:
            return
        self._last = now
        self._emit(Transfer(id=self._name, current=current, total=self._total, started_ns=self._started_ns))

    def finish(self, note: str = "") -> None:
        """The transfer is complete; ``note`` says why if nothing had to be moved."""
        if self._emit is not None:
            self._emit(
                Transfer(
                    id=self._name,
                    current=self._total,
                    total=self._total,
                    started_ns=self._started_ns,
                    done=True,
                    note=note,
                )
            )


class Stop:
    """Lets the transfers of one set end early after the first failure."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask all to end."""
        self._event.set()

    def check(self) -> None:
        """Raise Stopped when somebody asked."""
        if self._event.is_set():
            raise Stopped


class Stopped(Exception):
    """Another transfer failed first; never leaves this package."""
