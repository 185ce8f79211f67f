"""Stopping: a build's stop signal, and the one that is in force in this thread.

What takes long (a download, a git command, waiting for a lock or between two tries) looks at the signal of
its thread, so that the rooms between need not hand it on. Who starts threads for such work carries it over
with ``carried``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from builder.errors import Cancelled

T = TypeVar("T")


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

    def pause(self, seconds: float) -> None:
        """Sleep; raises Cancelled as soon as the build is told to stop."""
        self._event.wait(seconds)
        self.check()

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


class _InForce(threading.local):
    cancel: Cancel | None = None


_in_force = _InForce()


@contextmanager
def within(cancel: Cancel | None) -> Iterator[None]:
    """What this thread does inside stops with ``cancel``; None: nothing stops it."""
    before, _in_force.cancel = _in_force.cancel, cancel
    try:
        yield
    finally:
        _in_force.cancel = before


def current() -> Cancel | None:
    """The signal in force in this thread."""
    return _in_force.cancel


def check() -> None:
    """Raise Cancelled when the signal in force was set."""
    cancel = _in_force.cancel
    if cancel is not None:
        cancel.check()


def pause(seconds: float) -> None:
    """Sleep; raises Cancelled as soon as the signal in force is set."""
    cancel = _in_force.cancel
    if cancel is None:
        time.sleep(seconds)
    else:
        cancel.pause(seconds)


def carried(call: Callable[..., T]) -> Callable[..., T]:
    """``call`` for another thread, under the signal of this one."""
    cancel = _in_force.cancel

    def carry(*args: object) -> T:
        with within(cancel):
            return call(*args)

    return carry


def interruptible(call: Callable[[], T], late: Callable[[T], object]) -> T:
    """``call()``, which nothing can wake, such as looking up a name or connecting.

    When the signal in force is set, Cancelled is raised at once; the call is left to itself in its thread,
    and what it gives after all goes to ``late``.
    """
    cancel = _in_force.cancel
    if cancel is None:
        return call()
    over = threading.Event()
    lock = threading.Lock()
    left = False
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            value = carry()
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            failure.append(error)
        else:
            with lock:
                outcome.append(value)
                unwanted = left
            if unwanted:
                late(value)
        over.set()

    carry = carried(call)
    threading.Thread(target=run, name="interruptible", daemon=True).start()
    forget = cancel.on_set(over.set)
    try:
        over.wait()
    finally:
        forget()
    with lock:
        left = not outcome
    if failure:
        cancel.check()
        raise failure[0]
    if outcome:
        return outcome[0]
    raise Cancelled("build cancelled")
