"""A step's place among those that run at once: given back while the step only waits (SLV-03)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from builder.cancelling import Cancel


class Place:
    """The place of a step that nobody counts."""

    def leave(self) -> None:
        """The step waits for somebody else from now on."""

    def take(self) -> None:
        """The step wants to go on; returns when it may. Raises Cancelled. Nothing to do if it never left."""


class CountedPlace(Place):
    """A place that a scheduler hands out; for one thread, but for ``grant``."""

    def __init__(self, parked: Callable[[], None], resumed: Callable[[], None], cancel: Cancel) -> None:
        self._parked = parked
        self._resumed = resumed
        self._cancel = cancel
        self._granted = threading.Event()
        self._left = False

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._granted.clear()
            self._parked()

    def take(self) -> None:
        if not self._left:
            return
        self._cancel.check()
        self._left = False
        self._resumed()
        forget = self._cancel.on_set(self._granted.set)
        try:
            self._granted.wait()
        finally:
            forget()
        self._cancel.check()

    def grant(self) -> None:
        """The scheduler has a place for it."""
        self._granted.set()
