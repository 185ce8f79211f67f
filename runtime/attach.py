"""The client's side of a monitor's socket: sessions, and the loop that couples one to a terminal or to pipes.

``Session`` speaks ``runtime.wire``. ``couple`` is what ``run``, ``attach``, ``start -a`` and ``exec`` do
while they are in the foreground: standard input goes in, output comes out, window changes and signals are
passed on, the detach keys leave without stopping anything.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from runtime import state, wire
from runtime.errors import CommandNotExecutable, CommandNotFound, ContainerError, PybuildError, UserNotFound

DETACH_KEYS = b"\x10\x11"
"""ctrl-p ctrl-q."""

_CHUNK = 64 << 10
_NOT_FORWARDED = frozenset(
    {
        *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU),
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT, signal.SIGALRM, signal.SIGVTALRM),
        *(signal.SIGPROF, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP),
        *(signal.SIGABRT, signal.SIGSYS),
    }
)


class MonitorGone(ContainerError):
    """The monitor closed the connection, or there is none."""

    code = "monitor-gone"


@dataclass(frozen=True, slots=True)
class Event:
    """What came from the container: ``stdout`` or ``stderr`` with bytes, or ``exit`` with a status."""

    kind: str
    data: bytes = b""
    code: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a foreground session ended: the exit status, or None when the user detached."""

    code: int | None


class Session:
    """A connection to a monitor; a context manager. Not for several threads at once."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._frames = wire.FrameReader()
        self._ready: list[tuple[bytes, bytes]] = []

    @classmethod
    def connect(cls, directory: Path) -> Session:
        """Reach the monitor of a container directory; MonitorGone when nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            holder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f"/proc/self/fd/{holder}/{state.SOCKET_FILE}")
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


def couple(
    session: Session,
    *,
    stdin: int | None,
    stdout: int,
    stderr: int,
    tty: bool,
    detach_keys: bytes = DETACH_KEYS,
    sig_proxy: bool = False,
) -> Ended:
    """Pass bytes both ways until the process ends or the user detaches.

    With ``tty`` and a terminal as ``stdin`` the terminal is in raw mode meanwhile and its size is passed
    on. With ``sig_proxy`` the signals that this process receives go to the container's first process
    instead (RUN-35); that and the watched terminal need the main thread.
    """
    return _Coupling(session, stdin, stdout, stderr, tty, detach_keys, sig_proxy).run()


class _Coupling:
    def __init__(
        self,
        session: Session,
        stdin: int | None,
        stdout: int,
        stderr: int,
        tty: bool,
        detach_keys: bytes,
        sig_proxy: bool,
    ) -> None:
        self._session = session
        self._stdin = stdin
        self._out = {"stdout": stdout, "stderr": stderr}
        self._terminal = tty and stdin is not None and os.isatty(stdin)
        self._keys = DetachKeys(detach_keys if tty else b"")
        self._sig_proxy = sig_proxy
        self._pending = bytearray()

    def run(self) -> Ended:
        with self._raw_terminal(), self._signals() as wake:
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            while True:
                self._register(poll)
                ready = {} if self._session.has_early_events else dict(poll.poll())
                if wake in ready:
                    self._pass_signals(wake)
                if ready.get(self._session.fileno(), 0) & select.POLLOUT:
                    self._flush()
                if self._session.has_early_events or ready.get(self._session.fileno(), 0) & ~select.POLLOUT:
                    code = self._receive()
                    if code is not None:
                        return Ended(code)
                if self._stdin is not None and self._stdin in ready and self._read_input(poll):
                    self._flush()
                    return Ended(None)

    def _register(self, poll: select.poll) -> None:
        """Input is read only when the last of it has been sent: the process may be waiting for us to read."""
        poll.register(self._session.fileno(), select.POLLIN | (select.POLLOUT if self._pending else 0))
        if self._stdin is not None:
            if self._pending:
                try:
                    poll.unregister(self._stdin)
                except KeyError:
                    pass
            else:
                poll.register(self._stdin, select.POLLIN)

    def _receive(self) -> int | None:
        for event in self._session.arrived():
            if event.kind == "exit":
                return event.code
            _write_all(self._out[event.kind], event.data)
        return None

    def _queue(self, kind: bytes, payload: bytes = b"") -> None:
        self._pending += wire.frame(kind, payload)
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._session.socket.send(self._pending, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._pending)  # the reading side will find out why
        del self._pending[:sent]

    def _read_input(self, poll: select.poll) -> bool:
        """Pass on what was typed; True when it was the detach keys."""
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, _CHUNK)
        except OSError:
            data = b""
        if not data:
            poll.unregister(self._stdin)
            self._stdin = None
            self._queue(wire.STDIN_END)
            return False
        keep, detached = self._keys.feed(data)
        if keep:
            self._queue(wire.STDIN, keep)
        return detached

    @contextmanager
    def _raw_terminal(self) -> Iterator[None]:
        terminal = self._stdin
        if not self._terminal or terminal is None:
            yield
            return
        import termios
        import tty

        before = termios.tcgetattr(terminal)
        try:
            tty.setraw(terminal, termios.TCSANOW)
            self._pass_size()
            yield
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)

    def _pass_size(self) -> None:
        if self._stdin is not None:
            try:
                size = os.get_terminal_size(self._stdin)
            except OSError:
                return
            self._queue(wire.RESIZE, wire.SIZE.pack(min(size.lines, 0xFFFF), min(size.columns, 0xFFFF)))

    @contextmanager
    def _signals(self) -> Iterator[int]:
        """A descriptor that becomes readable when a signal came in; handlers are put back at the end."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        wanted: set[int] = set()
        if self._sig_proxy:
            wanted = {int(n) for n in signal.valid_signals() if n < signal.SIGRTMIN} - _NOT_FORWARDED
        if self._terminal:
            wanted.add(int(signal.SIGWINCH))
        before: dict[int, Any] = {}
        old_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False) if wanted else -1
        try:
            for number in wanted:
                before[number] = signal.signal(number, lambda *_: None)
            yield reader
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            if wanted:
                signal.set_wakeup_fd(old_wakeup)
            os.close(reader)
            os.close(writer)

    def _pass_signals(self, wake: int) -> None:
        for number in os.read(wake, 256):
            if number == signal.SIGWINCH:
                self._pass_size()
            elif number not in _NOT_FORWARDED:
                self._queue(wire.SIGNAL, wire.pack({"signal": number, "force": True}))


class DetachKeys:
    """Finds a key sequence in what is typed, across reads; what is not part of it is passed on."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes to pass on, whether the sequence is complete)."""
        if not self._keys:
            return data, False
        data = self._held + data
        self._held = b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or single characters, comma-separated; empty text = no detaching."""
    if not text:
        return b""
    keys = bytearray()
    for word in text.split(","):
        name = word.strip().lower()
        if len(word) == 1:
            keys += word.encode()
        elif name.startswith("ctrl-") and len(name) == 6 and ("a" <= name[5] <= "z" or name[5] in "@[\\]^_"):
            keys.append(ord(name[5].upper()) & 0x1F)
        else:
            raise ContainerError(
                f"invalid detach keys {text!r}", hint="for example ctrl-p,ctrl-q", code="usage"
            )
    return bytes(keys)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select((), (fd,), ())
