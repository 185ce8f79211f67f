"""The monitor: one small process per running container, its parent and subreaper.

It owns the container's pseudo terminal or pipes, writes the log, serves ``attach.sock``, forwards published
ports, applies the restart policy and records how it all ended. It has one thread and a clean interpreter,
so that it may fork. While it lives it holds ``monitor.lock`` and is the only writer of ``state.json``.

The starter (``runtime.container``) may launch it early, while it still prepares the container: it then
waits for the ``START`` frame on its first descriptor, and leaves silently when that never comes.

When the monitor dies the container loses its streams and its network namespace's holder; verbs see that
(``runtime.state.observe``). An auto-remove container is removed by its starter, which says so
(``REMOVED``); when the starter has left, the monitor runs the command ``on_exit``. If neither happens,
the next verb that lists containers finishes it.
"""

from __future__ import annotations

import fcntl
import os
import time

from runtime import spawn, statefile, wire
from runtime.errors import ContainerError, PybuildError
from runtime.eventloop import READ, Loop, Timer
from runtime.logwriter import LogWriter
from runtime.monitor_client import Client, Door
from runtime.monitor_job import Job
from runtime.monitor_requests import SIGKILL, Requests, attach_client, send_exit, send_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from runtime.process import Process
    from runtime.restarts import Restarts

CONTROL_FD = 3

_LINGER_S = 10.0


def main(control: int = CONTROL_FD) -> None:
    """Be a monitor: serve the socket ``control`` and whatever it starts, then exit."""
    os.closerange(control + 1, 1 << 16)
    os.set_inheritable(control, False)
    os.chdir("/")  # hold nobody's directory
    if os.fork():
        os._exit(0)  # the starter reaps this one at once; the monitor belongs to init
    spawn.get_ready()
    monitor = Monitor(control)
    try:
        monitor.serve()
    except Exception as error:  # noqa: BLE001  (a bug: it must reach somebody)
        monitor.report_bug(error)
        os._exit(70)
    os._exit(0)


class Monitor(Requests):
    """One container and everybody who talks to it."""

    def __init__(self, control: int) -> None:
        self._loop = Loop()
        self._loop.after_events = self._reap
        self._clients: set[Client] = set()
        self._jobs: dict[int, Job] = {}
        self._directory = ""
        self._lock = -1
        self._state: dict[str, Any] = statefile.new_document()
        self._options: dict[str, Any] = {}
        self._plan: tuple[Any, ...] = ()
        self._main: Job | None = None
        self._child: Process | None = None
        self._door: Door | None = None
        self._netns = -1
        self._restarts: Restarts | None = None
        self._restart_timer: Timer | None = None
        self._stop_timer: Timer | None = None
        self._execs: dict[str, Job] = {}
        self._over = False
        self._removed = False
        self._control = self._add_client(control)

    def serve(self) -> None:
        """Serve until the container is over for good."""
        self._loop.run()

    def report_bug(self, error: Exception) -> None:
        """Leave the traceback beside the state."""
        import traceback

        text = "".join(traceback.format_exception(error))
        try:
            os.write(2, text.encode())
            if not self._directory:
                return
            with open(os.path.join(self._directory, "monitor.log"), "a") as file:
                file.write(text)
        except OSError:
            pass

    # -- clients

    def _add_client(self, fd: int) -> Client:
        client = Client(self._loop, fd, self._request)
        client.on_closed = self._client_closed
        self._clients.add(client)
        return client

    def _client_closed(self, client: Client) -> None:
        self._clients.discard(client)
        if self._main is None and not self._clients:
            self._loop.stop()  # launched early and never needed
        if self._over:
            self._finish_when_quiet()

    def _request(self, client: Client, kind: bytes, payload: bytes) -> None:
        """One request; failures become a FAIL frame."""
        try:
            request = wire.unpack(payload) if payload else {}
            handler = self._handlers.get(kind)
            if handler is None:
                raise ContainerError(f"the monitor does not know the request {kind!r}")
            handler(self, client, request)
        except PybuildError as error:
            send_failure(client, error)
        except (KeyError, ValueError, TypeError, EOFError) as error:
            if kind == wire.START:
                raise  # half started is worse than gone
            send_failure(client, ContainerError(f"malformed request to the monitor: {error!r}"))

    # -- starting

    def _start(self, client: Client, request: dict[str, Any]) -> None:
        """START: take the directory, make the network, start the process, answer."""
        if self._main is not None or client is not self._control:
            raise ContainerError("this monitor already has a container")
        self._directory = request["directory"]
        self._options = request["options"]
        self._plan = client.take_plan()
        policy, maximum = self._options["restart"]
        if policy != "no":
            from runtime.restarts import Restarts

            self._restarts = Restarts(policy, maximum)
        try:
            self._take_directory()
            self._make_network(client)
            self._run_once(client, request.get("attach"))
        except (PybuildError, OSError) as error:
            self._refuse(client, error)

    def _take_directory(self) -> None:
        path = os.path.join(self._directory, statefile.LOCK_FILE)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise AlreadyRunning("the container is already running") from None
        self._lock = fd  # held until this process ends
        self._state["started_at"], self._state["finished_at"] = self._options["before"]
        self._state["monitor"] = statefile.process_entry(os.getpid())
        self._door = Door(self._loop, self._directory, self._add_client)

    def _make_network(self, client: Client) -> None:
        options = self._options
        if not (options["ports"] or options["bridge"] or options["netns_path"]):
            self._state["network"] = {**statefile.NO_NETWORK, "mode": options["network_mode"]}
            return
        from runtime import monitor_network

        self._netns, self._state["network"] = monitor_network.make(
            self._loop, client, options, self._state["monitor"]
        )

    def _run_once(self, client: Client | None, attach: dict[str, Any] | None) -> None:
        """Start the process; ``client`` is attached before a byte of output is read."""
        options = self._options
        job = Job(self._loop, tty=options["tty"], stdin=options["stdin"], stdin_once=options["stdin_once"])
        try:
            stdin, stdout, stderr = job.fds
            child = spawn.spawn(
                self._plan, stdin=stdin, stdout=stdout, stderr=stderr, netns_fd=self._netns, answers=True
            )
            job.close_child_ends()
            child.started()
        except BaseException:
            job.abandon()
            raise
        self._child = child
        job.log = self._open_log()
        job.on_finished = self._main_finished
        self._main = job
        if self._restarts is not None:
            self._restarts.started()
        self._record(
            status="running",
            process=statefile.process_entry(child.pid),
            started_at=statefile.timestamp(time.time_ns()),
            cgroups=[place for place in (child.group.unified, *child.group.v1.values()) if place],
            warnings=list(child.warnings),
            error="",
            exit_code=0,
            oom_killed=False,
        )
        if client is not None:
            if attach is not None:
                attach_client(client, job, attach)
            client.send(wire.OK, wire.pack({"pid": child.pid, "warnings": list(child.warnings)}))
        job.started(child.pid, child.terminal)
        if client is not None and attach is not None and attach.get("size"):
            job.resize(*attach["size"])
        self._watch(child, job)

    def _open_log(self) -> LogWriter | None:
        log = self._options["log"]
        if log["driver"] == "none":
            return None
        path = os.path.join(self._directory, f"{os.path.basename(self._directory)}-json.log")
        return LogWriter(path, max_size=log["max_size"], max_files=log["max_files"])

    def _refuse(self, client: Client, error: PybuildError | OSError) -> None:
        """The container could not be started: say so, record it, leave (LIF-START-3)."""
        if isinstance(error, OSError):
            error = ContainerError(f"cannot start the container: {error}", code="start-failed")
            error.exit_status = 125
        if self._lock >= 0:
            started = self._state["started_at"] != statefile.NEVER
            self._record(
                status="exited" if started else "created",
                exit_code=error.exit_status if error.exit_status in (126, 127) else 128,
                error=error.message,
                monitor=statefile.NO_PROCESS,
                network=statefile.NO_NETWORK,
            )
            self._close_door()
        self._over = True
        send_failure(client, error)
        client.finish()

    # -- children

    def _watch(self, child: Process, job: Job) -> None:
        job.child = child
        self._jobs[child.pid] = job
        self._loop.watch(child.pidfd, READ, lambda _: None)  # wakes the loop, which then reaps
        if child.listener >= 0:
            self._loop.watch(child.listener, READ, lambda _: self._changes_owner(child))

    def _changes_owner(self, child: Process) -> None:
        from runtime import chowns

        if not chowns.answer(child.listener):
            self._loop.forget(child.listener)

    def _reap(self) -> None:
        """Collect every child that has ended, adopted ones too."""
        while self._jobs:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            job = self._jobs.pop(pid, None)
            if job is None or job.child is None:
                continue
            self._loop.forget(job.child.pidfd)
            if job.child.listener >= 0:
                self._loop.forget(job.child.listener)
            code = _shell_code(status)
            oom = code == 128 + SIGKILL and job.child.group.oom_kills() > 0
            job.child.finish()
            job.ended(code, oom_killed=oom)

    def _main_finished(self, code: int) -> None:
        """The container's first process has ended and its output is complete."""
        job = self._main
        assert job is not None
        if job.log is not None:
            job.log.close()
        if self._stop_timer is not None:
            self._stop_timer.cancel()
        delay_s = None
        if self._restarts is not None and not self._state["manually_stopped"]:
            delay_s = self._restarts.delay_s(code, self._state["restart_count"])
        changes: dict[str, Any] = {"status": "restarting"}
        if delay_s is None:
            changes = {
                "status": "exited",
                "monitor": statefile.NO_PROCESS,
                "network": statefile.NO_NETWORK,
                "cgroups": [],
            }
        self._record(
            process=statefile.NO_PROCESS,
            exit_code=code,
            oom_killed=job.oom_killed,
            finished_at=statefile.timestamp(time.time_ns()),
            execs=[],
            **changes,
        )
        for client in tuple(job.clients):
            client.job = None
            send_exit(client, code)
        job.clients.clear()
        if delay_s is None:
            self._end(code)
        else:
            self._restart_timer = self._loop.call_later(delay_s, self._restart)

    def _restart(self) -> None:
        self._restart_timer = None
        self._state["restart_count"] += 1
        try:
            self._run_once(None, None)
        except (PybuildError, OSError) as error:
            self._leave_stopped(error=error.message if isinstance(error, PybuildError) else str(error))

    def _leave_stopped(self, **changes: Any) -> None:
        self._record(
            status="exited", monitor=statefile.NO_PROCESS, network=statefile.NO_NETWORK, cgroups=[], **changes
        )
        self._end(self._state["exit_code"])

    # -- the end

    def _end(self, code: int) -> None:
        """Nothing will run any more: tell everybody, and leave when they have heard it."""
        self._over = True
        self._close_door()
        for job in tuple(self._execs.values()):
            for client in tuple(job.clients):
                client.job = None
                send_exit(client, code)
        for client in tuple(self._clients):
            if client.waiting:
                send_exit(client, code)
            elif not client.owner:
                client.finish()
        self._loop.call_later(_LINGER_S, self._loop.stop)
        self._finish_when_quiet()

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None

    def _finish_when_quiet(self) -> None:
        if not self._clients:
            self._remove_if_asked()
            self._loop.stop()

    def _remove_if_asked(self) -> None:
        command = self._options.get("on_exit")
        if self._main is None or self._removed or not command:
            return
        self._removed = True
        os.close(self._lock)
        null = os.open("/dev/null", os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        try:
            os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=True)
        except OSError:
            pass  # the next verb finishes it

    # -- helpers

    def _record(self, **changes: Any) -> None:
        self._state.update(changes)
        try:
            data = statefile.to_json(self._state).encode("ascii")
            statefile.write_file(self._directory, statefile.STATE_FILE, data)
        except OSError:
            pass  # removed meanwhile, or a full disk: keep looking after the container

    _handlers: ClassVar[dict[bytes, Any]] = {**Requests.handlers, wire.START: _start}


class AlreadyRunning(ContainerError):
    """Another monitor has this container."""

    code = "container-already-running"


def _shell_code(status: int) -> int:
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
