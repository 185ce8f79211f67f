"""Containers on a directory: create, start, attach, exec, signal, stop, pause, wait.

A container directory is described in ``runtime.state``. Every verb here talks to the container's monitor,
or finds that there is none and says so. What the directory belongs to (a name, an image, a snapshot) is not
known here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime import specfile, state, wire
from runtime.errors import ContainerError
from runtime.monitor_start import MonitorProcess
from runtime.session import MonitorGone, Session
from runtime.spec import ContainerSpec, ExecSpec
from runtime.specfile import MonitorOptions
from runtime.state import NetworkState, ProcessRef, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Connect",
    "MonitorProcess",
    "NotRunning",
    "Streams",
    "attach",
    "create",
    "execute",
    "pause",
    "removed",
    "send_signal",
    "start",
    "stop",
    "unpause",
    "wait",
]

Connect = Callable[[int, ProcessRef], NetworkState]
"""Gives the network namespace behind a descriptor its links; the owner is the monitor."""


class NotRunning(ContainerError):
    """A verb needs a running container."""

    code = "container-not-running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Which streams a session wants; ``owner`` promises to remove an auto-remove container itself."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    owner: bool = False
    size: tuple[int, int] | None = None

    def to_request(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "owner": self.owner,
            "size": self.size,
        }


def create(directory: Path, spec: ContainerSpec, options: MonitorOptions) -> None:
    """Fill a new container directory; nothing runs yet."""
    specfile.write(directory, spec, options)
    state.write(directory, State())


def start(
    directory: Path,
    *,
    monitor: MonitorProcess | None = None,
    connect: Connect | None = None,
    attach: Streams | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Session | None:
    """Start the container; with ``attach`` returns a session that misses nothing of its output.

    ``connect`` is needed when the options ask for a bridge. Raises what went wrong in the monitor:
    CommandNotFound, SetupFailed, PortTaken and kin; the state file then says so too. ``meanwhile`` is called
    while the monitor works.
    """
    from runtime.plan import container_plan

    spec, options = specfile.read(directory)
    before = state.read(directory)
    try:
        plan = container_plan(spec).wire()
    except ValueError as error:
        raise ContainerError(f"invalid container specification: {error}", code="invalid-spec") from error
    monitor = monitor or MonitorProcess.launch()
    session = Session(monitor.take())
    try:
        session.send(wire.PLAN, wire.pack(plan))
        request = {
            "directory": str(directory),
            "options": {**options.to_request(spec), "before": (before.started_at, before.finished_at)},
            "attach": attach.to_request() if attach is not None else None,
        }
        session.send(wire.START, wire.pack(request))
        if meanwhile is not None:
            meanwhile()
        answer = session.answer()
        if "network" in answer:
            _connect(session, answer["network"], connect)
            answer = session.answer()
    except MonitorGone as error:
        error.context = (*error.context, *monitor.errors().splitlines()[-5:])
        session.close()
        monitor.reap()
        raise
    except BaseException:
        session.close()
        monitor.reap()
        raise
    monitor.reap()
    if attach is None:
        session.close()
        return None
    return session


def _connect(session: Session, question: dict[str, Any], connect: Connect | None) -> None:
    """Make the links that the monitor asks for, in the namespace that it holds."""
    if connect is None:
        raise ContainerError("this container needs a bridge, and nobody makes one", code="network-failed")
    netns = os.open(f"/proc/{question['pid']}/fd/{question['fd']}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = ProcessRef(question["pid"], question["start"], question["boot"])
        network = connect(netns, owner)
    finally:
        os.close(netns)
    session.send(wire.NETWORK, wire.pack(state.network_json(network)))


def attach(directory: Path, streams: Streams) -> Session:
    """A session with a running container."""
    session = _session(directory)
    try:
        session.request(wire.ATTACH, streams.to_request())
    except BaseException:
        session.close()
        raise
    return session


def execute(
    directory: Path,
    spec: ExecSpec,
    *,
    exec_id: str,
    stdin: bool = False,
    detach: bool = False,
    size: tuple[int, int] | None = None,
) -> Session | None:
    """One more process in a running container; a session with it, or None with ``detach``."""
    from runtime import capabilities
    from runtime.plan import exec_plan

    container, _ = specfile.read(directory)
    session = _session(directory)
    try:
        plan = exec_plan(spec, capabilities.mask(container.capabilities)).wire()
        session.send(wire.PLAN, wire.pack(plan))
        request = {
            "id": exec_id,
            "tty": spec.terminal,
            "stdin": stdin and not detach,
            "detach": detach,
            "size": size,
        }
        session.request(wire.EXEC, request)
    except BaseException:
        session.close()
        raise
    if detach:
        session.close()
        return None
    return session


def send_signal(directory: Path, number: int, *, force: bool = False) -> None:
    """Signal the first process (LIF-KILL-1); a paused container refuses unless ``force``."""
    with _session(directory) as session:
        session.request(wire.SIGNAL, {"signal": number, "force": force})


def stop(directory: Path, *, timeout_s: float = 10, signal: int | None = None) -> int | None:
    """Stop the container; returns its exit status, None when it was not running (LIF-STOP).

    A negative ``timeout_s`` never kills.
    """
    try:
        with _session(directory) as session:
            session.send(wire.STOP, wire.pack({"timeout_s": timeout_s, "signal": signal}))
            return _await_exit(session)
    except (NotRunning, MonitorGone):
        return None


def pause(directory: Path) -> None:
    """Freeze every process (LIF-PAUSE)."""
    with _session(directory) as session:
        session.request(wire.PAUSE)


def unpause(directory: Path) -> None:
    """Let them go on."""
    with _session(directory) as session:
        session.request(wire.UNPAUSE)


def wait(directory: Path) -> int:
    """The exit status, once the container has stopped for good (LIF-WAIT)."""
    try:
        with _session(directory) as session:
            session.send(wire.WAIT, wire.pack({}))
            return _await_exit(session)
    except (NotRunning, MonitorGone):
        return state.observe(directory).exit_code


def _await_exit(session: Session) -> int:
    from runtime.session import error_from

    while True:
        kind, payload = session.receive()
        if kind == wire.EXIT:
            return int(wire.unpack(payload)["code"])
        if kind == wire.FAIL:
            raise error_from(wire.unpack(payload))


def removed(session: Session) -> None:
    """Tell the monitor that the starter has removed the container (``Streams.owner``)."""
    try:
        session.send(wire.REMOVED)
    except MonitorGone:
        pass


def _session(directory: Path) -> Session:
    """A connection to the monitor; NotRunning, with the reason, when there is none."""
    try:
        return Session.connect(directory)
    except MonitorGone as error:
        found = state.observe(directory)
        context = (found.error,) if found.error else ()
        raise NotRunning(
            f"container {directory.name[:12]} is not running", context=context, hint="start it first"
        ) from error
