"""The client's side of a monitor's socket: requests and answers, output as events (``runtime.wire``)."""

from __future__ import annotations

import _socket
import os
from dataclasses import dataclass

from runtime import statefile, wire
from runtime.errors import CommandNotExecutable, CommandNotFound, ContainerError, PybuildError, UserNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Any

_CHUNK = 64 << 10


class MonitorGone(ContainerError):
    """The monitor closed the connection, or there is none."""

    code = "monitor-gone"


@dataclass(frozen=True, slots=True)
class Event:
    """What came from the container: ``stdout`` or ``stderr`` with bytes, or ``exit`` with a status."""

    kind: str
    data: bytes = b""
    code: int = 0


class Session:
    """A connection to a monitor; a context manager. Not for several threads at once."""

    def __init__(self, sock: _socket.socket) -> None:
        self.socket = sock
        self._frames = wire.FrameReader()
        self._ready: list[tuple[bytes, bytes]] = []

    @classmethod
    def connect(cls, directory: Path) -> Session:
        """Reach the monitor of a container directory; MonitorGone when nobody listens."""
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            holder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f"/proc/self/fd/{holder}/{statefile.SOCKET_FILE}")
            finally:
                os.close(holder)
        except OSError as error:
            sock.close()
            raise MonitorGone(f"container {directory.name[:12]} has no monitor: it is not running") from error
        return cls(sock)

    def close(self) -> None:
        """Leave; the container goes on."""
        self.socket.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self.socket.fileno()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """One frame; MonitorGone when the peer is gone."""
        try:
            self.socket.sendall(wire.frame(kind, payload))
        except OSError as error:
            raise MonitorGone("the monitor of the container is gone") from error

    def request(self, kind: bytes, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and wait for its OK; its FAIL is raised as the error it was in the monitor."""
        self.send(kind, wire.pack(body or {}))
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The answer to a request; output that came before it is kept for ``events``."""
        early: list[tuple[bytes, bytes]] = []
        while True:
            kind, payload = self.receive()
            if kind == wire.OK:
                self._ready[:0] = early
                return dict(wire.unpack(payload))
            if kind == wire.FAIL:
                raise error_from(wire.unpack(payload))
            if kind == wire.NETWORK:
                self._ready[:0] = early
                return {"network": wire.unpack(payload)}
            early.append((kind, payload))

    def receive(self) -> tuple[bytes, bytes]:
        """The next frame."""
        while not self._ready:
            self._receive()
        return self._ready.pop(0)

    def _receive(self) -> None:
        try:
            data = self.socket.recv(_CHUNK)
        except OSError as error:
            raise MonitorGone("the monitor of the container is gone") from error
        if not data:
            raise MonitorGone("the monitor of the container is gone")
        self._ready += self._frames.feed(data)

    def events(self) -> Iterator[Event]:
        """Output and finally the exit; MonitorGone when the monitor dies first."""
        while True:
            event = to_event(*self.receive())
            if event is not None:
                yield event
                if event.kind == "exit":
                    return

    def arrived(self) -> list[Event]:
        """What can be had with one read; for callers that wait on ``fileno`` themselves."""
        if not self._ready:
            self._receive()
        frames, self._ready = self._ready, []
        return [event for event in (to_event(*frame) for frame in frames) if event is not None]

    @property
    def has_early_events(self) -> bool:
        """Whether ``arrived`` would answer without reading."""
        return bool(self._ready)

    def write(self, data: bytes) -> None:
        """Input for the process."""
        for at in range(0, len(data), wire.CHUNK):
            self.send(wire.STDIN, data[at : at + wire.CHUNK])

    def write_end(self) -> None:
        """No more input."""
        self.send(wire.STDIN_END)

    def resize(self, rows: int, columns: int) -> None:
        """The size of the terminal."""
        self.send(wire.RESIZE, wire.SIZE.pack(min(rows, 0xFFFF), min(columns, 0xFFFF)))


def to_event(kind: bytes, payload: bytes) -> Event | None:
    """The event of a frame; None for answers nobody waits for."""
    if kind == wire.STDOUT:
        return Event("stdout", payload)
    if kind == wire.STDERR:
        return Event("stderr", payload)
    if kind == wire.EXIT:
        return Event("exit", code=int(wire.unpack(payload)["code"]))
    return None


_ERRORS: dict[str, type[PybuildError]] = {
    cls.code: cls for cls in (CommandNotFound, CommandNotExecutable, UserNotFound)
}


def error_from(answer: dict[str, Any]) -> PybuildError:
    """The error that a FAIL frame carries."""
    cls = _ERRORS.get(answer["code"], ContainerError)
    error = cls(answer["message"], context=tuple(answer["context"]), hint=answer["hint"], code=answer["code"])
    error.exit_status = int(answer["exit_status"])
    return error
