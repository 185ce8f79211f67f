"""A session in the foreground: coupled to a terminal or to pipes.

``couple`` is what ``run``, ``attach``, ``start -a`` and ``exec`` do: standard input goes in, output comes
out, window changes and signals are passed on, the detach keys leave without stopping anything.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal: no enum module behind it
import os
import select
from _socket import MSG_DONTWAIT
from contextlib import contextmanager
from dataclasses import dataclass

from runtime import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from runtime.detachkeys import DetachKeys
    from runtime.session import Session

_CHUNK = 64 << 10
_NOT_FORWARDED = frozenset(
    {
        *(
            _signal.SIGCHLD,
            _signal.SIGPIPE,
            _signal.SIGURG,
            _signal.SIGWINCH,
            _signal.SIGTTIN,
            _signal.SIGTTOU,
        ),
        *(
            _signal.SIGKILL,
            _signal.SIGSTOP,
            _signal.SIGTSTP,
            _signal.SIGCONT,
            _signal.SIGALRM,
            _signal.SIGVTALRM,
        ),
        *(_signal.SIGPROF, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGTRAP),
        *(_signal.SIGABRT, _signal.SIGSYS),
    }
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a foreground session ended: the exit status, or None when the user detached."""

    code: int | None


def couple(
    session: Session,
    *,
    stdin: int | None,
    stdout: int,
    stderr: int,
    tty: bool,
    detach_keys: bytes | None = None,
    sig_proxy: bool = False,
) -> Ended:
    """Pass bytes both ways until the process ends or the user detaches.

    With ``tty`` and a terminal as ``stdin`` the terminal is in raw mode meanwhile and its size is passed
    on. ``detach_keys`` None are the usual ones; they are looked for with ``tty`` only. With ``sig_proxy`` the
    signals that this process receives go to the container's first process instead (RUN-35); that and the
    watched terminal need the main thread.
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
        detach_keys: bytes | None,
        sig_proxy: bool,
    ) -> None:
        self._session = session
        self._stdin = stdin
        self._out = {"stdout": stdout, "stderr": stderr}
        self._terminal = tty and stdin is not None and os.isatty(stdin)
        self._keys = _detach_keys(detach_keys) if tty else None
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
            sent = self._session.socket.send(self._pending, MSG_DONTWAIT)
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
        keep, detached = self._keys.feed(data) if self._keys is not None else (data, False)
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
            wanted = {int(n) for n in _signal.valid_signals() if n < _signal.SIGRTMIN} - _NOT_FORWARDED
        if self._terminal:
            wanted.add(int(_signal.SIGWINCH))
        before: dict[int, Any] = {}
        old_wakeup = _signal.set_wakeup_fd(writer, warn_on_full_buffer=False) if wanted else -1
        try:
            for number in wanted:
                before[number] = _signal.signal(number, lambda *_: None)
            yield reader
        finally:
            for number, handler in before.items():
                _signal.signal(number, handler if handler is not None else _signal.SIG_DFL)
            if wanted:
                _signal.set_wakeup_fd(old_wakeup)
            os.close(reader)
            os.close(writer)

    def _pass_signals(self, wake: int) -> None:
        for number in os.read(wake, 256):
            if number == _signal.SIGWINCH:
                self._pass_size()
            elif number not in _NOT_FORWARDED:
                self._queue(wire.SIGNAL, wire.pack({"signal": number, "force": True}))


def _detach_keys(keys: bytes | None) -> DetachKeys:
    from runtime import detachkeys

    return detachkeys.DetachKeys(detachkeys.DEFAULT if keys is None else keys)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select((), (fd,), ())
