"""What clients ask of a monitor while its container runs: attach, exec, signal, stop, pause, wait.

``Requests`` is the part of ``runtime.monitor.Monitor`` that answers them; each method takes the client and
the request's fields, and raises what becomes the answer when it cannot be done.
"""

from __future__ import annotations

from runtime import spawn, wire
from runtime.errors import ContainerError, PybuildError
from runtime.eventloop import Loop, Timer
from runtime.monitor_job import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from runtime.monitor_client import Client
    from runtime.process import Process

SIGKILL = 9


class Requests:
    """Needs what ``Monitor`` sets up: the loop, the state document, the first process and its job."""

    _loop: Loop
    _state: dict[str, Any]
    _options: dict[str, Any]
    _main: Job | None
    _child: Process | None
    _restart_timer: Timer | None
    _stop_timer: Timer | None
    _execs: dict[str, Job]
    _over: bool
    _removed: bool

    def _watch(self, child: Process, job: Job) -> None:
        raise NotImplementedError

    def _record(self, **changes: Any) -> None:
        raise NotImplementedError

    def _leave_stopped(self, **changes: Any) -> None:
        raise NotImplementedError

    def _attach_request(self, client: Client, request: dict[str, Any]) -> None:
        job = self._running()
        attach_client(client, job, request)
        client.send(wire.OK, wire.pack({}))

    def _exec(self, client: Client, request: dict[str, Any]) -> None:
        self._running()
        self._not_paused("exec")
        assert self._child is not None
        job = Job(self._loop, tty=bool(request["tty"]), stdin=bool(request["stdin"]), stdin_once=True)
        try:
            stdin, stdout, stderr = job.fds
            child = spawn.enter(
                self._child.pid,
                client.take_plan(),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pidfd=self._child.pidfd,
                answers=True,
            )
            job.close_child_ends()
            child.started()
        except BaseException as error:
            job.abandon()
            if isinstance(error, OSError):
                raise ContainerError(f"exec failed: {error}", code="exec-failed") from error
            raise
        exec_id = request["id"]
        self._execs[exec_id] = job
        job.on_finished = lambda code: self._exec_finished(exec_id, job, code)
        self._record(execs=list(self._execs))
        client.send(wire.OK, wire.pack({"id": exec_id, "pid": child.pid}))
        if not request.get("detach"):
            attach_client(client, job, {"stdin": request["stdin"], "stdout": True, "stderr": True})
        job.started(child.pid, child.terminal)
        if request.get("size"):
            job.resize(*request["size"])
        self._watch(child, job)

    def _exec_finished(self, exec_id: str, job: Job, code: int) -> None:
        self._execs.pop(exec_id, None)
        if not self._over:
            self._record(execs=list(self._execs))
        for client in tuple(job.clients):
            client.job = None
            send_exit(client, code)
        job.clients.clear()

    def _signal(self, client: Client, request: dict[str, Any]) -> None:
        """SIGNAL: to the container's first process; KILL also ends a pending restart (LIF-KILL-2)."""
        number = int(request["signal"])
        final = number in (SIGKILL, self._options["stop_signal"])
        if self._restart_timer is not None:
            if final:
                self._cancel_restart()
            client.send(wire.OK, wire.pack({}))
            return
        job = self._running()
        if not request.get("force"):
            self._not_paused("kill")
        if final:
            self._record(manually_stopped=True)
        assert self._child is not None
        self._child.kill(number)
        if self._state["status"] == "paused" and number == SIGKILL:
            self._freeze(frozen=False)  # a frozen process does not die on every kernel
        client.send(wire.OK, wire.pack({"pid": job.pid}))

    def _stop(self, client: Client, request: dict[str, Any]) -> None:
        """STOP: the signal, then KILL after ``timeout_s``; the exit is the answer."""
        client.waiting = True
        if self._restart_timer is not None:
            self._cancel_restart()
            return
        self._running()
        self._not_paused("stop")
        self._record(manually_stopped=True)
        assert self._child is not None
        self._child.kill(int(request.get("signal") or self._options["stop_signal"]))
        if self._stop_timer is not None:
            self._stop_timer.cancel()
        if float(request["timeout_s"]) >= 0:
            self._stop_timer = self._loop.call_later(float(request["timeout_s"]), self._child.kill)

    def _cancel_restart(self) -> None:
        assert self._restart_timer is not None
        self._restart_timer.cancel()
        self._restart_timer = None
        self._leave_stopped(manually_stopped=True)

    def _pause(self, client: Client, _: dict[str, Any]) -> None:
        self._running()
        if self._state["status"] == "paused":
            raise ContainerError("the container is already paused", code="container-paused")
        self._freeze(frozen=True)
        self._record(status="paused")
        client.send(wire.OK, wire.pack({}))

    def _unpause(self, client: Client, _: dict[str, Any]) -> None:
        self._running()
        if self._state["status"] != "paused":
            raise ContainerError("the container is not paused", code="container-not-paused")
        self._freeze(frozen=False)
        self._record(status="running")
        client.send(wire.OK, wire.pack({}))

    def _freeze(self, *, frozen: bool) -> None:
        assert self._child is not None
        try:
            self._child.group.freeze(frozen)
        except (OSError, KeyError) as error:
            raise ContainerError(
                "this container cannot be paused: it has no control group with a freezer",
                context=(str(error),) if isinstance(error, OSError) else (),
                hint="run as root, or have cgroups delegated to this user",
                code="no-freezer",
            ) from error

    def _wait(self, client: Client, _: dict[str, Any]) -> None:
        client.waiting = True

    def _removed_by_owner(self, client: Client, _: dict[str, Any]) -> None:
        self._removed = True
        client.finish()

    def _running(self) -> Job:
        if self._main is None or self._main.exit_code is not None or self._over:
            raise ContainerError("the container is not running", code="container-not-running")
        return self._main

    def _not_paused(self, verb: str) -> None:
        if self._state["status"] == "paused":
            raise ContainerError(
                f"the container is paused: cannot {verb}", hint="unpause it first", code="container-paused"
            )

    handlers: ClassVar[dict[bytes, Any]] = {
        wire.ATTACH: _attach_request,
        wire.EXEC: _exec,
        wire.SIGNAL: _signal,
        wire.STOP: _stop,
        wire.PAUSE: _pause,
        wire.UNPAUSE: _unpause,
        wire.WAIT: _wait,
        wire.REMOVED: _removed_by_owner,
    }


def attach_client(client: Client, job: Job, request: dict[str, Any]) -> None:
    client.owner = bool(request.get("owner"))
    client.attach(
        job,
        stdin=bool(request.get("stdin")),
        stdout=bool(request.get("stdout")),
        stderr=bool(request.get("stderr")),
    )


def send_exit(client: Client, code: int) -> None:
    client.send(wire.EXIT, wire.pack({"code": code}))
    if not client.owner:
        client.finish()


def send_failure(client: Client, error: PybuildError) -> None:
    answer = {
        "message": error.message,
        "code": error.code,
        "exit_status": error.exit_status,
        "hint": error.hint,
        "context": list(error.context),
    }
    client.send(wire.FAIL, wire.pack(answer))
