"""Progress of a build or transfer: takes events from any thread and feeds them to a renderer (row PRG-02).

Events are queued and shown by one thread about ten times a second, so that workers never wait for a slow
terminal as long as the queue is short.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Protocol, TextIO

from builder.errors import UsageError
from builder.solver.progress import Event, LogEvent, OnEvent
from cli.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MODES = ("auto", "plain", "tty", "quiet", "rawjson")
_MOST_QUEUED = 20_000


class Renderer(Protocol):
    """Shows events; called by one thread at a time."""

    def show(self, events: Iterable[Event], now_ns: int) -> None:
        """Take events (perhaps none) and show what is due."""

    def finish(self, now_ns: int) -> None:
        """Show what is left."""


class Progress:
    """The ``on_event`` of a use case. Use with ``with``: the display ends with the block, well or not."""

    def __init__(
        self, renderer: Renderer | None, *, period_s: float = 0.1, limits: Settings | None = None
    ) -> None:
        """``limits`` says how much output of a step is shown; None = all."""
        self._limits = limits
        self._clip: OnEvent | None = None
        self._renderer = renderer
        self._period_s = period_s
        self._queue: deque[Event] = deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._broken = False

    def __call__(self, event: Event) -> None:
        if self._renderer is None:
            return
        if self._clip is None and self._limits is not None and isinstance(event, LogEvent):
            self._make_clip(self._limits)
        if self._clip is not None:
            self._clip(event)
        else:
            self._put(event)

    def _make_clip(self, settings: Settings) -> None:
        """Once; the module is not needed before there is output."""
        from cli.render.clip import Clip

        size, speed = settings.step_log_limits
        with self._lock:
            if self._clip is None:
                self._clip = Clip(self._put, max_size=size, max_speed=speed)

    def _put(self, event: Event) -> None:
        self._queue.append(event)
        if len(self._queue) > _MOST_QUEUED:
            self._drain()

    def __enter__(self) -> Progress:
        if self._renderer is not None:
            self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Show all that is left and end the display; again does nothing."""
        if self._thread is None or self._renderer is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        self._drain()
        if not self._broken:
            with self._lock:
                self._renderer.finish(time.time_ns())

    def _loop(self) -> None:
        while not self._stop.wait(self._period_s):
            self._drain()

    def _drain(self) -> None:
        """Show what is queued. A display whose reader went away must not stop the build: it falls silent."""
        assert self._renderer is not None
        with self._lock:
            events: list[Event] = []
            while self._queue:
                events.append(self._queue.popleft())
            if self._broken:
                return
            try:
                self._renderer.show(events, time.time_ns())
            except (OSError, ValueError):
                self._broken = True


def make_progress(
    mode: str, settings: Settings, stream: TextIO, *, title: str = "Building", clip: bool = True
) -> Progress:
    """The progress display for ``--progress=mode``; raises UsageError on an unknown mode. ``clip``: long
    output of steps is cut (EXE-27).
    """
    renderer, live = renderer_for(mode, settings, stream, title=title)
    period_s = settings.tty_display_ms / 1000 if live else 0.1
    return Progress(renderer, period_s=period_s, limits=settings if clip else None)


def check_mode(mode: str) -> None:
    """Raises UsageError for what is no mode."""
    if mode not in MODES:
        raise UsageError(f"invalid progress mode {mode}", hint=f"known are {', '.join(MODES)}")


def renderer_for(
    mode: str, settings: Settings, stream: TextIO, *, title: str = "Building"
) -> tuple[Renderer, bool]:
    """What shows events in a mode, and whether it is the live display. Raises UsageError."""
    check_mode(mode)
    if mode == "auto":
        mode = "tty" if stream.isatty() and not settings.dumb_terminal else "plain"
    if mode == "tty" and not stream.isatty():
        raise UsageError("--progress=tty needs a terminal", hint="use --progress=plain")
    if mode == "rawjson":
        from cli.render.rawjson import RawJsonRenderer

        return RawJsonRenderer(stream), False
    if mode == "tty":
        from cli.render.tty import TtyRenderer, palette

        renderer = TtyRenderer(
            stream,
            colors=palette(settings.progress_colors) if settings.color else {},
            log_lines=settings.tty_log_lines,
            truncate=not settings.no_truncate,
            title=title,
        )
        return renderer, True
    if mode == "quiet":
        from cli.render.quiet import QuietRenderer

        return QuietRenderer(stream), False
    from cli.render.plain import PlainRenderer

    return PlainRenderer(stream), False
