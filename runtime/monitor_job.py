"""The streams of a monitored process.

A ``Job`` is the container's first process or one started by ``exec``: its standard streams are pipes or one
pseudo terminal, what it writes goes to the log and to every attached client, what clients send goes to its
input. Whoever reads too slowly slows the job down instead of filling memory.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from runtime.eventloop import READ, WRITE, Loop, Outlet, Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.logwriter import LogWriter
    from runtime.monitor_client import Client
    from runtime.process import Process

_CHUNK = 64 << 10
_DRAIN_GRACE_S = 0.1
_LAST_READS = 32


class Job:
    """One process with its streams; ``fds`` are what the process itself gets and are closed once it has
    them.
    """

    def __init__(self, loop: Loop, *, tty: bool, stdin: bool, stdin_once: bool = False) -> None:
        self._loop = loop
        self.tty = tty
        self.stdin_once = stdin_once
        self.pid = 0
        self.child: Process | None = None
        self.exit_code: int | None = None
        self.oom_killed = False
        self.log: LogWriter | None = None
        self.clients: list[Client] = []
        self.on_finished: Callable[[int], None] = lambda _: None
        self._input: Outlet | None = None
        self._sources: dict[int, str] = {}
        self._status: int | None = None
        self._grace: Timer | None = None
        self.master = -1
        self.fds: tuple[int, int, int] = self._open_null() if tty else self._open_pipes(stdin)

    def _open_null(self) -> tuple[int, int, int]:
        """A terminal is made inside the container, so there is nothing to give but /dev/null."""
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        return fd, fd, fd

    def _open_pipes(self, stdin: bool) -> tuple[int, int, int]:
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        for fd, stream in ((out_read, "stdout"), (err_read, "stderr")):
            os.set_blocking(fd, False)
            self._sources[fd] = stream
        if not stdin:
            return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), out_write, err_write
        in_read, in_write = os.pipe()
        os.set_blocking(in_write, False)
        self._input = Outlet(
            self._loop, in_write, on_broken=self.close_input, on_drained=self._resume_clients
        )
        return in_read, out_write, err_write

    def started(self, pid: int, terminal: int) -> None:
        """The process runs and holds its ends; from now on its output is read."""
        self.pid = pid
        if self.tty:
            self.master = terminal
            os.set_blocking(terminal, False)
            self._sources[terminal] = "stdout"
            self._input = Outlet(
                self._loop, terminal, on_broken=lambda: None, on_drained=self._resume_clients
            )
        for fd in self._sources:
            self._loop.watch(fd, READ, self._reader(fd))
        if self._input is not None and not self.tty:
            self._loop.watch(self._input.fd, 0, lambda _: self._flush_input())

    def close_child_ends(self) -> None:
        """Close the ends that belong to the process, once it has them; safe to call twice."""
        for fd in set(self.fds):
            if fd >= 0:
                os.close(fd)
        self.fds = (-1, -1, -1)

    def abandon(self) -> None:
        """Close everything of a process that was never started."""
        self.close_child_ends()
        self._close_streams()

    # -- output

    def _reader(self, fd: int) -> Callable[[int], None]:
        return lambda events: self._output_ready(fd, events)

    def _output_ready(self, fd: int, events: int) -> None:
        if events & WRITE and self._input is not None and self._input.fd == fd and self._input.pending:
            self._flush_input()
        if events & READ and fd in self._sources:
            self._read(fd)

    def _read(self, fd: int) -> bool:
        """Take one piece of output; False when there is none now."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last process has closed the terminal
            data = b""
        if not data:
            self._end_of(fd)
            return False
        stream = self._sources[fd]
        if self.log is not None:
            self.log.write(stream, data)
        for client in tuple(self.clients):
            client.output(stream, data)
        if self._status is None and any(client.full for client in self.clients):
            self._pause_output()
        return True

    def _pause_output(self) -> None:
        for fd in self._sources:
            self._loop.change(fd, self._events(fd, reading=False))

    def resume_output(self) -> None:
        """A client has caught up, or is gone."""
        if not any(client.full for client in self.clients):
            for fd in self._sources:
                self._loop.change(fd, self._events(fd, reading=True))

    def _events(self, fd: int, *, reading: bool) -> int:
        writing = self._input is not None and self._input.fd == fd and self._input.pending > 0
        return (READ if reading else 0) | (WRITE if writing else 0)

    def _end_of(self, fd: int) -> None:
        self._loop.forget(fd)
        del self._sources[fd]
        if fd != self.master:
            os.close(fd)
        if not self._sources:
            self._finish_if_done()

    # -- input

    @property
    def input_full(self) -> bool:
        """Whether clients should wait before they send more."""
        return self._input is not None and self._input.full

    def write_input(self, data: bytes) -> None:
        """Bytes for the process; dropped when it has no input."""
        if self._input is not None:
            self._input.write(data)
            self._update_input()

    def close_input(self) -> None:
        """End of input: closes a pipe once it has run empty; a terminal's end is a character."""
        if self._input is None or self.tty:
            return
        if self._input.pending and not self._input.broken:
            self._closing_input = True
            return
        self._loop.forget(self._input.fd)
        os.close(self._input.fd)
        self._input = None
        self._resume_clients()

    _closing_input = False

    def _flush_input(self) -> None:
        outlet = self._input
        if outlet is not None:
            outlet.flush()
            if not outlet.pending and self._closing_input:
                self.close_input()
        self._update_input()

    def _update_input(self) -> None:
        if self._input is None:
            return
        if self.tty:
            if self.master in self._sources:
                reading = not any(client.full for client in self.clients)
                self._loop.change(self.master, self._events(self.master, reading=reading))
        else:
            self._loop.change(self._input.fd, WRITE if self._input.pending else 0)

    def _resume_clients(self) -> None:
        for client in self.clients:
            client.resume_reading()

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the kernel signals the foreground group."""
        if self.master >= 0:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    # -- clients

    def attach(self, client: Client) -> None:
        """Send output to ``client`` from now on."""
        self.clients.append(client)

    def detach(self, client: Client) -> None:
        """A client has left; the one that owned the input may end it (RUN-44)."""
        if client in self.clients:
            self.clients.remove(client)
            if client.sends_input and self.stdin_once and not self.tty:
                self.close_input()
            self.resume_output()

    # -- the end

    def ended(self, exit_code: int, *, oom_killed: bool = False) -> None:
        """The process has ended; what it wrote is still read, then ``on_finished`` is called.

        That is not much, so from now on nobody waits for slow clients.
        """
        self._status = exit_code
        self.oom_killed = oom_killed
        for fd in self._sources:
            self._loop.change(fd, self._events(fd, reading=True))
        # Something that the process left behind may hold the streams open: do not wait for it for ever.
        self._grace = self._loop.call_later(_DRAIN_GRACE_S, self._stop_draining)
        self._finish_if_done()

    def _stop_draining(self) -> None:
        for fd in tuple(self._sources):
            for _ in range(_LAST_READS):
                if not self._read(fd):
                    break
        for fd in tuple(self._sources):
            self._end_of(fd)

    def _finish_if_done(self) -> None:
        if self._status is None or self._sources or self.exit_code is not None:
            return
        if self._grace is not None:
            self._grace.cancel()
        self.exit_code = self._status
        self._close_streams()
        if self.log is not None:
            self.log.flush()
        self.on_finished(self.exit_code)

    def _close_streams(self) -> None:
        for fd in self._sources:
            self._loop.forget(fd)
            if fd != self.master:
                os.close(fd)
        self._sources.clear()
        if self._input is not None and not self.tty:
            self._loop.forget(self._input.fd)
            os.close(self._input.fd)
        self._input = None
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
