"""A process that was started in a container: its reports until the command runs, its end, and what is
cleaned up then.
"""

from __future__ import annotations

import os

from runtime import messages
from runtime.paths import Stub, remove_stubs
from runtime.syscalls.linux import pidfd_send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from runtime.cgroups import Group
    from runtime.spec import ExitStatus


class Process:
    """A started process that its owner has to reap."""

    __slots__ = (
        "_failed",
        "_report",
        "group",
        "listener",
        "owns_group",
        "owns_pids",
        "pid",
        "pidfd",
        "stubs",
        "terminal",
        "usage",
        "warnings",
    )

    def __init__(
        self, pid: int, pidfd: int, report: _socket.socket, group: Group, *, owns_group: bool
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.group = group
        self.owns_group = owns_group
        self.owns_pids = True
        self.warnings = tuple(group.warnings)
        self.listener = -1
        """Where changes of owner are asked about, once started (``runtime.chowns``)."""
        self.terminal = -1
        """The master of its terminal, once started."""
        self.stubs: list[Stub] = []
        self.usage: tuple[tuple[str, int], ...] = ()
        """What it used up, once it ended and if its group is counted (``runtime.groupusage``)."""
        self._report: _socket.socket | None = report
        self._failed: messages.Message | None = None

    def report_fd(self) -> int:
        """What to poll for ``report``; -1 when there is nothing more to come."""
        return self._report.fileno() if self._report is not None else -1

    def report(self) -> messages.Message | None:
        """Read one report: None means more is to come, ``("started",)`` that the command runs (or the process
        has ended), ``("failed", ...)`` that it never will."""
        assert self._report is not None
        received = messages.receive(self._report)
        if received is None:
            self._report.close()
            self._report = None
            return self._failed or ("started",)
        message, fds = received
        if message[0] == "stubs":
            self.stubs += [Stub(fd, *row) for fd, row in zip(fds, message[1], strict=True)]
        elif message[0] == "terminal":
            self.terminal = fds[0]
        elif message[0] == "listener":
            self.listener = fds[0]
        elif message[0] == "warning":
            self.warnings += (message[1],)
        else:
            self._failed = message
        return None

    def started(self) -> None:
        """Wait until the command runs; SetupFailed, CommandNotFound, CommandNotExecutable, UserNotFound if it
        cannot, with the process reaped and everything cleaned up."""
        while (outcome := self.report()) is None:
            pass
        if outcome[0] == "failed":
            self.reap_raw()
            if self.terminal >= 0:
                os.close(self.terminal)
                self.terminal = -1
            raise messages.error_of(outcome)

    def kill(self, signal: int = 9) -> None:
        """Send a signal; a process that has ended is not an error."""
        if self.pidfd >= 0:
            pidfd_send_signal(self.pidfd, signal)

    def reap_raw(self) -> tuple[int | None, int | None, bool]:
        """Wait for the end: (code, signal, killed for memory). Cleans up mount points and groups."""
        _, status = os.waitpid(self.pid, 0)
        killed = os.WIFSIGNALED(status)
        if self.owns_group and not self.owns_pids:
            self.group.kill()  # no pid namespace of its own took the rest of the container along
        oom = (killed or os.WEXITSTATUS(status) == 137) and self.group.oom_kills() > 0
        if self.group.counted and self.owns_group:
            from runtime.groupusage import measure

            self.usage = measure(self.group)
        self.finish()
        if killed:
            return None, os.WTERMSIG(status), oom
        return os.WEXITSTATUS(status), None, oom

    def wait(self) -> ExitStatus:
        """Wait for the end of the process."""
        from runtime.spec import ExitStatus

        return ExitStatus(*self.reap_raw())

    def finish(self) -> None:
        """Clean up after the process: its mount points, its groups, our descriptors (the terminal stays
        open)."""
        while self._report is not None and self.report() is None:
            pass  # stubs that were announced just before it was killed
        remove_stubs(self.stubs)
        self.stubs = []
        if self.owns_group:
            self.group.remove()
        self.group.close()
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
