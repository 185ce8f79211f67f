"""The launcher's own process: one thread, few imports, a loop over sockets and processes.

It is started by ``launcher.Launcher`` and serves requests from its control socket (see ``messages``) until
that is closed, which is also what happens when the client dies; then it kills its containers, waits for them
and ends. Closing a request's reply socket kills that container.
"""

from __future__ import annotations

import gc
import os
import select

from runtime import cgroups, messages, spawn
from runtime.syscalls import constants as c
from runtime.syscalls.linux import KERNEL, reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from runtime.process import Process

CONTROL_FD = 3


class Job:
    """One container or process that was asked for."""

    __slots__ = ("process", "reply")

    def __init__(self, reply: _socket.socket, process: Process) -> None:
        self.reply = reply
        self.process = process

    def say(self, message: messages.Message, fds: tuple[int, ...] = ()) -> None:
        """Tell the client; one that has gone does not want to know."""
        try:
            messages.send(self.reply, message, fds)
        except OSError:
            pass


class Server:
    """The loop and what it waits for: descriptor → what to do when it is ready."""

    def __init__(self, control: _socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._jobs: set[Job] = set()
        self._open = True
        self._watch(control.fileno(), self._request)

    def serve(self) -> None:
        """Serve until the client closes the control socket, then end every container."""
        while self._open or self._jobs:
            for fd, _ in self._poll.poll():
                if action := self._ready.get(fd):
                    action()

    def _watch(self, fd: int, action: Callable[[], None], events: int = select.POLLIN) -> None:
        self._ready[fd] = action
        self._poll.register(fd, events)

    def _forget(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _request(self) -> None:
        received = messages.receive(self._control)
        if received is None:
            self._open = False
            self._forget(self._control.fileno())
            for job in self._jobs:
                job.process.kill()
            return
        message, fds = received
        reply = messages.adopt(fds[0])
        try:
            process = self._start(message, fds)
        except OSError as error:
            call = getattr(error, "call", "") or "clone3"
            failure = ("failed", "setup", call, str(error.filename or ""), error.errno or 5, "")
            self._refuse(reply, failure)
        except Exception as error:  # noqa: BLE001 - one bad request must not end the containers of others
            self._refuse(reply, ("failed", "bug", "", "", 0, f"{type(error).__name__}: {error}"))
        else:
            self._follow(Job(reply, process))
        finally:
            for fd in fds[1:]:
                os.close(fd)

    @staticmethod
    def _start(message: messages.Message, fds: tuple[int, ...]) -> Process:
        _, stdin, stdout, stderr, *more = fds
        if message[0] == "run":
            netns = more[0] if more else -1
            return spawn.spawn(
                message[1], stdin=stdin, stdout=stdout, stderr=stderr, netns_fd=netns, answers=True
            )
        return spawn.enter(message[2], message[1], stdin=stdin, stdout=stdout, stderr=stderr, pidfd=more[0])

    @staticmethod
    def _refuse(reply: _socket.socket, failure: messages.Message) -> None:
        try:
            messages.send(reply, failure)
        except OSError:
            pass
        reply.close()

    def _follow(self, job: Job) -> None:
        self._jobs.add(job)
        self._watch(job.process.report_fd(), lambda: self._report(job))
        self._watch(job.reply.fileno(), lambda: self._abandoned(job), select.POLLHUP)

    def _report(self, job: Job) -> None:
        fd = job.process.report_fd()
        outcome = job.process.report()
        if outcome is None:
            return
        self._forget(fd)
        if outcome[0] == "failed":
            job.process.reap_raw()
            if job.process.terminal >= 0:
                os.close(job.process.terminal)
            job.say(outcome)
            self._finish(job)
            return
        process = job.process
        fds = (process.pidfd, process.terminal) if process.terminal >= 0 else (process.pidfd,)
        job.say(("started", process.pid, process.warnings), fds)
        if process.terminal >= 0:
            os.close(process.terminal)
            process.terminal = -1
        if process.listener >= 0:
            self._watch(process.listener, lambda: self._changes_owner(job))
        self._watch(process.pidfd, lambda: self._ended(job))

    def _changes_owner(self, job: Job) -> None:
        from runtime import chowns

        if not chowns.answer(job.process.listener):
            self._forget(job.process.listener)

    def _ended(self, job: Job) -> None:
        if job.process.listener >= 0:
            self._forget(job.process.listener)
        self._forget(job.process.pidfd)
        job.say(("exited", *job.process.reap_raw(), job.process.usage))
        self._finish(job)

    def _abandoned(self, job: Job) -> None:
        self._forget(job.reply.fileno())
        job.process.kill()

    def _finish(self, job: Job) -> None:
        self._forget(job.reply.fileno())
        job.reply.close()
        self._jobs.discard(job)


def main() -> None:
    """Entry point: the control socket is descriptor 3."""
    KERNEL.prctl(c.PR_SET_DUMPABLE, 0)
    os.umask(0o022)
    os.chdir("/")
    reset_signals(tuple(number for number in range(1, 65) if number not in {9, 19}))
    spawn.get_ready()
    gc.collect()
    gc.freeze()  # what is shared with the children should not be touched by a collection
    gc.disable()
    Server(messages.adopt(CONTROL_FD)).serve()
    cgroups.sweep()
    os._exit(0)
