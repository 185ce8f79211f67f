"""Connections to a monitor: the door where they come in, and each one's frames (see ``runtime.wire``)."""

from __future__ import annotations

import _socket
import os

from runtime import statefile, wire
from runtime.eventloop import READ, WRITE, Loop, Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runtime.monitor_job import Job

_CHUNK = 64 << 10


class Door:
    """``attach.sock`` in a container's directory."""

    def __init__(self, loop: Loop, directory: str, on_client: Callable[[int], object]) -> None:
        """Open it, in place of one that a dead monitor left. ``on_client`` gets each connection.

        Bound through the directory: the path may be longer than a socket name.
        """
        self._loop = loop
        self._path = os.path.join(directory, statefile.SOCKET_FILE)
        self._on_client = on_client
        holder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        previous = os.umask(0o177)
        try:
            try:
                os.unlink(statefile.SOCKET_FILE, dir_fd=holder)
            except FileNotFoundError:
                pass
            self._listener.bind(f"/proc/self/fd/{holder}/{statefile.SOCKET_FILE}")
        finally:
            os.umask(previous)
            os.close(holder)
        self._listener.listen(64)
        self._listener.setblocking(False)
        loop.watch(self._listener.fileno(), READ, self._accept)

    def close(self) -> None:
        """Let nobody in any more."""
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        try:
            os.unlink(self._path)
        except OSError:
            pass  # removed with the container

    def _accept(self, _: int) -> None:
        try:
            # The accept of socket.socket, without importing that module.
            fd, _peer = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        os.set_inheritable(fd, False)
        self._on_client(fd)


class Client:
    """One connection. ``on_request`` gets every frame that is not part of an attached stream."""

    def __init__(self, loop: Loop, fd: int, on_request: Callable[[Client, bytes, bytes], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._on_request = on_request
        self._frames = wire.FrameReader()
        self.job: Job | None = None
        self._plan: tuple[Any, ...] = ()
        self.wants: frozenset[str] = frozenset()
        self.sends_input = False
        self.owner = False
        self.waiting = False
        self.closed = False
        self.on_closed: Callable[[Client], None] = lambda _: None
        self._closing = False
        os.set_blocking(fd, False)
        self._out = Outlet(loop, fd, on_broken=self.close, on_drained=self._drained)
        loop.watch(fd, READ, self._ready)

    @property
    def full(self) -> bool:
        """Whether the job should wait for this client."""
        return self._out.full

    def attach(self, job: Job, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        """Become a stream of ``job``."""
        self.job = job
        self.sends_input = stdin
        self.wants = frozenset(name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted)
        job.attach(self)

    def take_plan(self) -> tuple[Any, ...]:
        """The plan that came before this request."""
        plan, self._plan = self._plan, ()
        return plan

    def output(self, stream: str, data: bytes) -> None:
        """Output of the job."""
        if stream in self.wants:
            self.send(wire.STDOUT if stream == "stdout" else wire.STDERR, data)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """One frame; nothing happens when the peer is gone."""
        self._out.write(wire.frame(kind, payload))
        self._update()

    def ask(self, kind: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """Send a frame and wait for the next one, blocking; an empty kind when the peer leaves instead."""
        self.send(kind, payload)
        os.set_blocking(self._fd, True)
        try:
            while self._out.pending:
                self._out.flush()
            while True:
                data = os.read(self._fd, _CHUNK)
                frames = self._frames.feed(data)
                if frames:
                    return frames[0]
                if not data:
                    return b"", b""
        except (OSError, wire.BrokenFrame):
            return b"", b""
        finally:
            os.set_blocking(self._fd, False)

    def finish(self) -> None:
        """Close once everything has been sent."""
        self._closing = True
        if not self._out.pending:
            self.close()

    def close(self) -> None:
        """Close now."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self._fd)
        os.close(self._fd)
        if self.job is not None:
            self.job.detach(self)
        self.on_closed(self)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._out.pending:
            self._out.flush()
            if self._closing and not self._out.pending:
                self.close()
        if events & READ and not self.closed:
            self._read()
        self._update()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
            frames = self._frames.feed(data)
        except BlockingIOError:
            return
        except (OSError, wire.BrokenFrame):
            self.close()
            return
        if not data:
            self.close()
            return
        for kind, payload in frames:
            if self.closed:
                return
            self._handle(kind, payload)

    def _handle(self, kind: bytes, payload: bytes) -> None:
        if kind == wire.PLAN:
            self._plan = wire.unpack(payload)
        elif kind in (wire.STDIN, wire.STDIN_END) and self.job is None:
            pass  # the process has just ended
        elif self.job is None or kind not in (wire.STDIN, wire.STDIN_END, wire.RESIZE):
            self._on_request(self, kind, payload)
        elif kind == wire.RESIZE:
            if len(payload) == wire.SIZE.size:
                self.job.resize(*wire.SIZE.unpack(payload))
        elif self.sends_input:
            if kind == wire.STDIN:
                self.job.write_input(payload)
            else:
                self.job.close_input()

    def _drained(self) -> None:
        if self.job is not None:
            self.job.resume_output()

    def resume_reading(self) -> None:
        """The job takes input again."""
        self._update()

    def _update(self) -> None:
        if self.closed:
            return
        blocked = self.job is not None and self.sends_input and self.job.input_full
        self._loop.change(self._fd, (0 if blocked else READ) | (WRITE if self._out.pending else 0))
