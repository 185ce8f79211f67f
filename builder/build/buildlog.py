"""The whole progress of one build on disk: ``history/<id>/log``, the reference's status stream (HSY-02).

Every event is appended by one write of its own, so that what was told before the process died is there;
states of steps that came from the cache wait for the next event. Nobody waits for the disk.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from builder.errors import StoreError
from builder.frontend.redact import redact
from builder.solver.progress import Event, LogEvent, VertexEvent, WarningEvent
from builder.solver.protowire import WireError
from builder.solver.statuswire import Frames, frame

MAX_LOG_BYTES = 256 << 20
"""Output of steps beyond this is not kept; states of steps still are."""
HIDDEN = b"xxxxx"
_PIECE = 1 << 20
_POLL_S = 0.1
_SHORTEST_SECRET = 4


class LogWriter:
    """Appends events; safe for many threads. Where the disk refuses, it falls silent."""

    def __init__(
        self, path: str, *, secrets: tuple[bytes, ...] = (), limit_bytes: int = MAX_LOG_BYTES
    ) -> None:
        self._lock = threading.Lock()
        self._pending: list[bytes] = []
        self._size = 0
        self._limit = limit_bytes
        self._full = False
        found = {secret.rstrip(b"\r\n") for secret in secrets}
        self._secrets = sorted((s for s in found if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            self._fd = -1

    def add(self, event: Event) -> None:
        """Keep an event."""
        if self._fd < 0:
            return
        if isinstance(event, LogEvent):
            if self._full:
                return
            event = self._without_secrets(event)
        elif isinstance(event, VertexEvent) and ("://" in event.name or "://" in event.error):
            event = replace(event, name=redact(event.name), error=redact(event.error))
        piece = frame(event)
        with self._lock:
            self._pending.append(piece)
            self._size += len(piece)
            if self._size > self._limit and not self._full:
                self._full = True
                self._pending.append(frame(_full(event, self._limit)))
            if not (isinstance(event, VertexEvent) and event.cached):
                self._write()

    def close(self) -> None:
        """Write what waits; nothing can be added afterwards."""
        with self._lock:
            self._write()
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _write(self) -> None:
        if self._fd < 0 or not self._pending:
            return
        rest = b"".join(self._pending)
        self._pending.clear()
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.close(self._fd)
            self._fd = -1

    def _without_secrets(self, event: LogEvent) -> LogEvent:
        data = event.data
        for secret in self._secrets:
            data = data.replace(secret, HIDDEN)
        if data is event.data:
            return event
        return replace(event, data=data)


def _full(event: Event, limit: int) -> WarningEvent:
    vertex = event.digest if isinstance(event, VertexEvent) else event.vertex
    return WarningEvent(
        vertex=vertex, short=f"the history keeps {limit >> 20} MiB of a build; output ends here"
    )


def read_log(path: str, *, running: Callable[[], bool] | None = None) -> Iterator[Event]:
    """The events of a log, oldest first; while ``running`` says so, those too that are still to come.

    A log that is removed meanwhile is read to its end. StoreError on a file that is none; the last frame of a
    build that was killed may be cut off and is left out.
    """
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    frames = Frames()
    with file:
        while True:
            going = running is not None and running()
            for piece in iter(lambda: file.read(_PIECE), b""):
                try:
                    yield from frames.feed(piece)
                except WireError as error:
                    raise StoreError(f"{path} is no build log: {error}", code="bad-build-log") from error
            if not going:
                return
            time.sleep(_POLL_S)
