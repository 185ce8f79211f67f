"""Keeps a flood of output off the display (EXE-27): the history has all of it.

A step may show so many bytes in all, and so many per second since it began. What goes beyond is left out,
with one line that says so; its end is kept, and shown after all when the step fails.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

from builder.solver.progress import Event, LogEvent, OnEvent, VertexEvent

MAX_SIZE = 2 << 20
MAX_SPEED = 200 << 10
TAIL_BYTES = 256 << 10


class Clip:
    """An ``on_event`` that passes on what may be shown; -1 = no limit. Safe for many threads."""

    def __init__(self, emit: OnEvent, *, max_size: int = MAX_SIZE, max_speed: int = MAX_SPEED) -> None:
        self._emit = emit
        self._max_size = max_size
        self._max_speed = max_speed
        self._steps: dict[str, _Step] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        if isinstance(event, LogEvent):
            with self._lock:
                shown = self._shown(event)
            for item in shown:
                self._emit(item)
            return
        if isinstance(event, VertexEvent) and event.completed_ns is not None:
            step = self._steps.pop(event.digest, None)
            if step is not None and event.error and not event.cancelled:
                for kept in step.tail:
                    self._emit(kept)
        self._emit(event)

    def _shown(self, event: LogEvent) -> list[LogEvent]:
        step = self._steps.get(event.vertex)
        if step is None:
            step = self._steps[event.vertex] = _Step()
        limit, speed = self._limit(step)
        room = len(event.data) if limit < 0 else max(0, min(len(event.data), limit - step.size))
        step.size += len(event.data)
        out = []
        if room:
            out.append(event if room == len(event.data) else replace(event, data=event.data[:room]))
            if step.clipping and room == len(event.data):
                step.clipping = False
                step.tail.clear()
        if room < len(event.data):
            if not step.clipping:
                step.clipping = True
                shown = f"{self._max_speed / 1024:g}KiB/s" if speed else f"{self._max_size / (1 << 20):g}MiB"
                said = f"[output clipped, log limit {shown} reached]\n".encode()
                lead = b"" if event.data[:room].endswith(b"\n") or not room else b"\n"
                out.append(replace(event, data=lead + said))
            step.keep(replace(event, data=event.data[room:]))
        return out

    def _limit(self, step: _Step) -> tuple[int, bool]:
        """How many bytes the step may have shown by now (-1 = any), and whether its speed decides."""
        if self._max_speed < 0:
            return self._max_size, False
        seconds = int(time.monotonic() - step.began) + 1
        allowed = seconds * self._max_speed
        if 0 <= self._max_size < allowed:
            return self._max_size, False
        return allowed, True


class _Step:
    __slots__ = ("_kept", "began", "clipping", "size", "tail")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.size = 0
        self.clipping = False
        self.tail: deque[LogEvent] = deque()
        self._kept = 0

    def keep(self, event: LogEvent) -> None:
        """Hold back output, its last 256 KiB."""
        self.tail.append(event)
        self._kept = len(event.data) if len(self.tail) == 1 else self._kept + len(event.data)
        while self._kept > TAIL_BYTES and len(self.tail) > 1:
            self._kept -= len(self.tail.popleft().data)
