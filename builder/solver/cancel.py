"""A build's stop signal."""

from __future__ import annotations

import threading
from collections.abc import Callable

from builder.errors import Cancelled


class Cancel:
    """A build's stop signal: set once, seen by every step, with call-backs for what is running."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._actions: dict[int, Callable[[], None]] = {}
        self._next = 0

    def set(self) -> None:
        """Stop: runs every registered action once."""
        with self._lock:
            self._event.set()
            actions = list(self._actions.values())
            self._actions.clear()
        for action in actions:
            action()

    @property
    def is_set(self) -> bool:
        """Whether the build was told to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise Cancelled when the build was told to stop."""
        if self._event.is_set():
            raise Cancelled("build cancelled")

    def on_set(self, action: Callable[[], None]) -> Callable[[], None]:
        """Call ``action`` on set (at once when already set); returns what takes it back."""
        with self._lock:
            if not self._event.is_set():
                token = self._next
                self._next += 1
                self._actions[token] = action
                return lambda: self._forget(token)
        action()
        return lambda: None

    def _forget(self, token: int) -> None:
        with self._lock:
            self._actions.pop(token, None)
