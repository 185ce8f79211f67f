"""Starting a monitor process: light, so that a command can do it first and the rest while the monitor
starts.
"""

from __future__ import annotations

import _socket
import os
import sys

from runtime import openfiles
from runtime.errors import ContainerError

_BOOT = "import sys; sys.path.insert(0, {root!r}); from runtime.monitor import main; main({fd})"
_CONTROL_FD = 3
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "LANG", "LC_ALL")


class MonitorProcess:
    """A monitor that has been launched and waits for its container.

    Launching it early hides its start behind other work. Closing it unused makes it leave.
    """

    def __init__(self, sock: _socket.socket, pid: int, errors: int) -> None:
        self._socket: _socket.socket | None = sock
        self._pid = pid
        self._errors = errors

    @classmethod
    def launch(cls) -> MonitorProcess:
        """Start the process: a new session, a clean interpreter, nothing inherited but the socket."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        command = (sys.executable, "-I", "-S", "-c", _BOOT.format(root=root, fd=_CONTROL_FD))
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= openfiles.environment()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # A descriptor that happens to be 3 already would keep its close-on-exec flag, so it is moved first.
        high = os.dup(theirs.fileno()) if theirs.fileno() == _CONTROL_FD else theirs.fileno()
        errors = os.memfd_create("monitor-errors", os.MFD_CLOEXEC)
        actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, errors, 2))
        actions.append((os.POSIX_SPAWN_DUP2, high, _CONTROL_FD))
        try:
            pid = os.posix_spawn(
                sys.executable, command, environment, file_actions=actions, setsid=True, setsigmask=()
            )
        except OSError as error:
            ours.close()
            os.close(errors)
            raise ContainerError(f"cannot start a monitor process: {error}") from error
        finally:
            os.close(null)
            if high != theirs.fileno():
                os.close(high)
            theirs.close()
        return cls(ours, pid, errors)

    def take(self) -> _socket.socket:
        """The socket to speak with it; the launched process has handed over to the monitor by now or soon."""
        sock, self._socket = self._socket, None
        if sock is None:
            raise ContainerError("this monitor has its container already")
        return sock

    def errors(self) -> str:
        """What it wrote to its standard error: nothing, unless it is broken."""
        if self._errors < 0:
            return ""
        return os.pread(self._errors, 1 << 16, 0).decode("utf-8", "replace")

    def reap(self) -> None:
        """Collect the launched process, which ends as soon as the monitor proper runs."""
        if self._pid:
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass
            self._pid = 0
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1

    def close(self) -> None:
        """Send it home if it was not used."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.reap()

    def __enter__(self) -> MonitorProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
