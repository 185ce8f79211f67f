"""The launcher as its client sees it: start a small process once, ask it for containers from any thread.

No process with threads ever forks here: the launcher is started with ``posix_spawn`` and has one thread (see
``launcher_process``). Every request has a socket of its own, on which the asking thread waits; closing it, or
the death of this process, kills the container.
"""

from __future__ import annotations

import _socket
import _thread
import os
import sys
from pathlib import Path

from runtime import hierarchies, messages, openfiles, plan
from runtime.errors import ContainerError, NotPermitted, SetupFailed
from runtime.spec import ContainerSpec, ExecSpec, ExitStatus
from runtime.syscalls import constants as c
from runtime.syscalls import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CONTROL_FD = 3
_START = "import sys; sys.path.append(sys.argv[1]); from runtime.launcher_process import main; main()"


class RunHandle:
    """A container, or a process in one, that was started. Use it from one thread at a time; ``kill`` from
    any."""

    def __init__(
        self, reply: _socket.socket, pid: int, pidfd: int, terminal: int | None, warnings: tuple[str, ...]
    ) -> None:
        self.pid = pid
        """As the launcher's client sees it."""
        self.terminal = terminal
        """The master of its terminal, owned by the caller."""
        self.warnings = warnings
        """Limits and rules that this machine did not take."""
        self.on_ended: Callable[[], None] | None = None
        self.usage: tuple[tuple[str, int], ...] = ()
        """What it used up, once ended, if the spec asked for ``accounting``."""
        self._reply = reply
        self._pidfd = pidfd
        self._status: ExitStatus | None = None
        self._lock = _thread.allocate_lock()  # a descriptor must not be reused between look and use

    def wait(self) -> ExitStatus:
        """Wait for the end of the container, and of the clean-up after it. May be called again."""
        if self._status is None:
            received = messages.receive(self._reply)
            self.close()
            if received is None or received[0][0] != "exited":
                raise ContainerError("the launcher process ended unexpectedly", code="launcher-lost")
            code, signal, oom, self.usage = received[0][1:]
            self._status = ExitStatus(code, signal, oom)
            if self.on_ended is not None:
                self.on_ended()
        return self._status

    def kill(self, signal: int = 9) -> None:
        """Send a signal to the first process; nothing happens when it has ended."""
        with self._lock:
            if self._pidfd >= 0:
                linux.pidfd_send_signal(self._pidfd, signal)

    def close(self) -> None:
        """Let go of the container, which kills it when it still runs; a ``wait`` in another thread ends."""
        with self._lock:
            if self._pidfd < 0:
                return
            os.close(self._pidfd)
            self._pidfd = -1
        try:
            self._reply.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass  # the launcher has closed its side
        self._reply.close()


class Launcher:
    """Starts containers. Safe to use from many threads; a context manager."""

    def __init__(self, control: _socket.socket, pid: int) -> None:
        self._control = control
        self._pid = pid
        self._groups: set[str] = set()

    @classmethod
    def start(cls) -> Launcher:
        """Start the launcher process. Returns at once: it gets ready while the caller goes on."""
        ours, theirs = messages.pair()
        executable, held = _interpreter()
        argv = [_real_interpreter(), "-I", "-S", "-c", _START, str(Path(__file__).resolve().parent.parent)]
        devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # The sources are moved above the targets first, so that no copy overwrites one that is still needed.
        high = [os.dup(fd) for fd in (devnull, theirs.fileno())]
        actions = [(os.POSIX_SPAWN_DUP2, high[0], fd) for fd in (0, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, high[1], _CONTROL_FD))
        try:
            pid = os.posix_spawn(
                executable,
                argv,
                {"LC_ALL": "C.UTF-8", "PATH": os.defpath, **openfiles.environment()},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_all_signals(),
            )
        except OSError as error:
            raise SetupFailed("posix_spawn", executable, error.errno or 0) from error
        finally:
            for fd in (devnull, *high, *held):
                os.close(fd)
            theirs.close()
        return cls(ours, pid)

    def run(
        self,
        spec: ContainerSpec,
        *,
        stdin: int | None = None,
        stdout: int,
        stderr: int,
        on_started: Callable[[int], None] | None = None,
    ) -> RunHandle:
        """Start a container and return once its command runs.

        Raises SetupFailed, CommandNotFound, CommandNotExecutable, UserNotFound; ValueError for a bad spec.
        The caller keeps its descriptors; ``stdin`` None is an empty one.
        """
        prepared = plan.container_plan(spec)
        extra: tuple[int, ...] = ()
        if prepared.netns:
            # Opened here: a namespace file bound after the launcher's start is not there for it to see.
            extra = (_open(prepared.netns),)
        try:
            handle = self._ask(("run", prepared.wire()), stdin, stdout, stderr, extra)
        finally:
            for fd in extra:
                os.close(fd)
        group = hierarchies.group_path(spec.id, spec.cgroup_parent)
        self._groups.add(group)
        handle.on_ended = lambda: self._groups.discard(group)
        if on_started is not None:
            on_started(handle.pid)
        return handle

    def enter(
        self, target_pid: int, spec: ExecSpec, *, stdin: int | None = None, stdout: int, stderr: int
    ) -> RunHandle:
        """Start one more process in the container of ``target_pid``; as ``run`` otherwise."""
        from runtime import capabilities

        try:
            pidfd = os.pidfd_open(target_pid)
        except OSError as error:
            raise SetupFailed("pidfd_open", str(target_pid), error.errno or 0) from error
        try:
            prepared = plan.exec_plan(spec, capabilities.of_process(target_pid))
            return self._ask(("enter", prepared.wire(), target_pid), stdin, stdout, stderr, (pidfd,))
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """End the launcher; containers that still run are killed."""
        if self._pid > 0:
            self._control.close()
            pid, self._pid = self._pid, -1
            _, status = os.waitpid(pid, 0)
            if status:  # it was killed, and its containers with it, but not their groups
                from runtime import cgroups

                for group in self._groups:
                    cgroups.discard(group)

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(
        self,
        message: messages.Message,
        stdin: int | None,
        stdout: int,
        stderr: int,
        extra: tuple[int, ...],
    ) -> RunHandle:
        ours, theirs = messages.pair()
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if stdin is None else -1
        try:
            given = null if stdin is None else stdin
            messages.send(self._control, message, (theirs.fileno(), given, stdout, stderr, *extra))
        except OSError as error:
            ours.close()
            raise ContainerError("the launcher process is not running", code="launcher-lost") from error
        finally:
            theirs.close()
            if null >= 0:
                os.close(null)
        try:
            received = messages.receive(ours)
        except BaseException:  # KeyboardInterrupt too: nobody would ever stop the container
            ours.close()
            raise
        if received is None:
            ours.close()
            raise ContainerError("the launcher process ended unexpectedly", code="launcher-lost")
        reply, fds = received
        if reply[0] == "failed":
            ours.close()
            raise _explained(messages.error_of(reply))
        terminal = fds[1] if len(fds) > 1 else None
        return RunHandle(ours, reply[1], fds[0], terminal, reply[2])


def _explained(error: Exception) -> Exception:
    """The same failure, as one of the caller's rights where it is one."""
    if isinstance(error, SetupFailed) and error.call == "clone3" and error.errno == 1:
        hint = "run as root, or in a user namespace"
        if os.geteuid() == 0:
            hint = "this root lacks CAP_SYS_ADMIN, or an outer container forbids new namespaces"
        return NotPermitted("containers cannot be created here", context=(error.message,), hint=hint)
    return error


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupFailed("open", path, error.errno or 0) from error


def _all_signals() -> list[int]:
    import signal

    return [number for number in signal.valid_signals() if number not in {signal.SIGKILL, signal.SIGSTOP}]


def _real_interpreter() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _interpreter() -> tuple[str, tuple[int, ...]]:
    """A path that executes this interpreter through a read-only mount of its own, and what must stay open for
    it.

    A container that executes ``/proc/self/exe`` could otherwise reopen the host's interpreter for writing
    later. The mount is attached nowhere and goes away with the last process that uses it.
    """
    path = _real_interpreter()
    try:
        fd = linux.KERNEL.open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC)
    except OSError:
        return path, ()
    try:
        linux.KERNEL.mount_setattr(fd, "", c.AT_EMPTY_PATH, c.MOUNT_ATTR_RDONLY)
    except OSError:
        os.close(fd)
        return path, ()
    return f"/proc/self/fd/{fd}", (fd,)
