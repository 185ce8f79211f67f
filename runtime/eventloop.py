"""A small poll loop for one thread: descriptors, timers, and sockets with bounded buffers.

The monitor lives in it. It uses nothing but ``select`` and ``os``, because a monitor has to start quickly.
"""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.POLLIN | select.POLLHUP | select.POLLERR
WRITE = select.POLLOUT | select.POLLERR

HIGH_WATER = 1 << 20
"""A buffer above this stops whoever fills it, until it has run empty again."""


class Timer:
    """A call that is due at a time; ``cancel`` forgets it."""

    __slots__ = ("action", "due")

    def __init__(self, due: float, action: Callable[[], None]) -> None:
        self.due = due
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Never call it."""
        self.action = None


class Loop:
    """Calls a handler when its descriptor is ready, and timers when they are due, until ``stop``."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._stopped = False
        self.after_events: Callable[[], None] = lambda: None

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(events)`` whenever ``fd`` is ready; replaces an older watch."""
        self._handlers[fd] = handler
        self.change(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events on a watched descriptor; 0 = for nothing, not even a hang-up, until
        changed.
        """
        if fd not in self._handlers:
            return
        if events:
            self._poll.register(fd, events)
        else:
            self._unregister(fd)

    def forget(self, fd: int) -> None:
        """Stop watching; unknown descriptors are fine."""
        if self._handlers.pop(fd, None) is not None:
            self._unregister(fd)

    def _unregister(self, fd: int) -> None:
        try:
            self._poll.unregister(fd)
        except KeyError:
            pass

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Call ``action`` once, ``delay_s`` from now."""
        timer = Timer(time.monotonic() + delay_s, action)
        self._timers.append(timer)
        return timer

    def stop(self) -> None:
        """Leave ``run`` after the events at hand."""
        self._stopped = True

    def run(self) -> None:
        """Serve until ``stop``."""
        while not self._stopped:
            for fd, events in self._poll.poll(self._wait_ms()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(events)
            self.after_events()
            self._run_timers()

    def _wait_ms(self) -> int | None:
        self._timers = [timer for timer in self._timers if timer.action is not None]
        if not self._timers:
            return None
        left = min(timer.due for timer in self._timers) - time.monotonic()
        return max(0, int(left * 1000) + 1)

    def _run_timers(self) -> None:
        now = time.monotonic()
        due = [timer for timer in self._timers if timer.due <= now]
        for timer in due:
            action, timer.action = timer.action, None
            if action is not None:
                action()


class Outlet:
    """A descriptor that is written to without blocking, through a buffer.

    ``on_drained`` is called when a buffer that was above ``HIGH_WATER`` has run empty, ``on_broken`` when
    nobody reads any more. ``events`` are those to wait for besides writing.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        *,
        on_broken: Callable[[], None],
        on_drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self.fd = fd
        self._buffer = bytearray()
        self._on_broken = on_broken
        self._on_drained = on_drained
        self._was_full = False
        self.broken = False

    @property
    def pending(self) -> int:
        """Bytes not written yet."""
        return len(self._buffer)

    @property
    def full(self) -> bool:
        """Whether whoever fills this should wait."""
        return len(self._buffer) > HIGH_WATER

    def write(self, data: bytes) -> None:
        """Write now what fits, and keep the rest."""
        if self.broken:
            return
        if not self._buffer:
            try:
                data = data[os.write(self.fd, data) :]
            except BlockingIOError:
                pass
            except OSError:
                self._break()
                return
        self._buffer += data
        self._was_full = self._was_full or self.full

    def flush(self) -> None:
        """Write more of the buffer; called when the descriptor is ready for it."""
        try:
            written = os.write(self.fd, memoryview(self._buffer)[: 1 << 18])
        except BlockingIOError:
            return
        except OSError:
            self._break()
            return
        del self._buffer[:written]
        if not self._buffer and self._was_full:
            self._was_full = False
            self._on_drained()

    def _break(self) -> None:
        self.broken = True
        self._buffer.clear()
        self._on_broken()
