"""Running containers: start, attach, exec, stop, kill, pause, wait, rename, remove.

Every function takes a container by reference and finds the truth on disk first. A session that comes back
belongs to the caller, who couples it to a terminal (``runtime.coupling.couple``) and, for an auto-remove
container, calls ``finish`` with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from builder.cache.store import Store
from builder.containers import document, names, networking, specs
from builder.containers.lookup import find
from builder.containers.types import Conflict, Container, ExecRequest
from builder.errors import PybuildError, StoreBusy
from runtime import capabilities, specfile, state
from runtime import container as engine
from runtime.container import Streams
from runtime.errors import NoSuchContainer
from runtime.monitor_start import MonitorProcess
from runtime.session import Session
from runtime.spec import ExecSpec

_STOP_TIMEOUT_S = 10
_REMOVE_TIMEOUT_S = 3
_SIGKILL = 9


def start(
    store: Store,
    ref: str,
    *,
    attach: Streams | None = None,
    monitor: MonitorProcess | None = None,
) -> tuple[Container, Session | None]:
    """Start a container (LIF-START-2, LIF-START-3); running already is fine, and ``attach`` then attaches.

    ``monitor`` may have been launched beforehand to save its start-up time. Warnings are in the returned
    value.
    """
    with store.lock(f"start {find(store, ref).id}"):
        return _start(store, ref, attach, monitor)


def _start(
    store: Store, ref: str, attach: Streams | None, monitor: MonitorProcess | None
) -> tuple[Container, Session | None]:
    container = find(store, ref)
    if container.state.status == "paused":
        raise Conflict("Cannot start a paused container, try unpause instead.", code="container-paused")
    if container.state.running:
        return container, engine.attach(container.directory, attach) if attach is not None else None
    if container.state.status == "dead" or container.row.snapshot is None:
        raise Conflict(f"container {ref} is marked for removal and cannot be started")
    plan = networking.plan(store, container)
    spec, monitor_options = specfile.read(container.directory)
    spec = specs.live_spec(store, spec, container.row.snapshot, container.data, plan.network)
    monitor_options = replace(monitor_options, bridge=plan.bridge, network_mode=plan.mode, ports=plan.ports)
    specfile.write(container.directory, spec, monitor_options)
    try:
        session = engine.start(
            container.directory,
            monitor=monitor,
            connect=plan.connect,
            attach=attach,
            meanwhile=_load_the_end if attach is not None and attach.owner else None,
        )
    except PybuildError as error:
        error.context = (*error.context, f"container {container.name} ({container.short_id})")
        raise
    store.events.add("container", "start", container.id, document.event_attributes(container.row))
    return replace(_again(store, container), warnings=plan.warnings), session


def _load_the_end() -> None:
    """What a container in the foreground needs next is imported while its monitor is busy."""
    from importlib import import_module

    for name in ("builder.containers.settling", "builder.cache.trash", "runtime.coupling"):
        import_module(name)


def attach(store: Store, ref: str, *, stdin: bool = True) -> tuple[Container, Session]:
    """A session with a running container (IO-ATTACH-1)."""
    container = find(store, ref)
    if not container.state.running:
        raise Conflict(
            "You cannot attach to a stopped container, start it first", code="container-not-running"
        )
    if container.state.status == "paused":
        raise Conflict("You cannot attach to a paused container, unpause it first", code="container-paused")
    wants_stdin = stdin and bool(container.data["Config"]["OpenStdin"])
    session = engine.attach(container.directory, Streams(stdin=wants_stdin))
    store.events.add("container", "attach", container.id, document.event_attributes(container.row))
    return container, session


def finish(store: Store, ref: str, session: Session | None) -> None:
    """Note the end of a container whose session was the owner's, and remove it if it is auto-remove
    (RUN-33).
    """
    from builder.containers.settling import settle

    settle(store, ref)
    if session is not None:
        engine.removed(session)


def execute(store: Store, ref: str, request: ExecRequest) -> tuple[str, Session | None]:
    """One more process in a running container: the exec id and, unless detached, a session (IO-EXEC-1)."""
    container = find(store, ref)
    if not container.state.running:
        raise Conflict(f"Container {container.short_id} is not running", code="container-not-running")
    if container.state.status == "paused":
        raise Conflict(
            f"Container {container.name} is paused, unpause the container before exec",
            code="container-paused",
        )
    exec_id = names.new_id()
    attributes = document.event_attributes(container.row, execID=exec_id)
    words = " ".join(request.command)
    store.events.add("container", f"exec_create: {words}", container.id, attributes)
    session = engine.execute(
        container.directory,
        _exec_spec(container, request),
        exec_id=exec_id,
        stdin=request.interactive,
        detach=request.detach,
        size=request.size,
    )
    store.events.add("container", f"exec_start: {words}", container.id, attributes)
    return exec_id, session


def _exec_spec(container: Container, request: ExecRequest) -> ExecSpec:
    """The container's own environment, directory and user, with what was asked for on top (IO-EXEC-2)."""
    spec, _ = specfile.read(container.directory)
    term = ("TERM=xterm",) if request.tty and not spec.terminal else ()
    return ExecSpec(
        args=request.command,
        env=tuple(document.environment((*term, *spec.env), request.env)),
        cwd=request.workdir or spec.cwd,
        user=request.user or spec.user,
        groups=() if request.user else spec.groups,
        capabilities=capabilities.ALL if request.privileged else spec.capabilities,
        no_new_privileges=spec.no_new_privileges and not request.privileged,
        seccomp="unconfined" if request.privileged else spec.seccomp,
        rlimits=spec.rlimits,
        oom_score_adj=spec.oom_score_adj,
        terminal=request.tty,
    )


def stop(store: Store, ref: str, *, timeout_s: float | None = None, signal: str = "") -> Container:
    """Stop it; stopped already is fine (LIF-STOP)."""
    from builder.containers.options import signal_number

    container = find(store, ref)
    if not container.state.running:
        return container
    _refuse_paused(container, "stopping or killing")
    if timeout_s is None:
        timeout_s = container.data["Config"].get("StopTimeout", _STOP_TIMEOUT_S)
    number = signal_number(signal) if signal else None
    engine.stop(container.directory, timeout_s=timeout_s, signal=number)
    _note_end(store, container)
    attributes = document.event_attributes(container.row)
    store.events.add("container", "stop", container.id, attributes)
    return _again(store, container)


def _note_end(store: Store, container: Container, *, removes: bool = True) -> None:
    """The helper of the monitor would do it, too; doing it here keeps the order of events."""
    from builder.containers.settling import settle

    settle(store, container.id, removes=removes)


def _again(store: Store, container: Container) -> Container:
    """As it is now; an auto-remove container is gone and stays as it was seen."""
    try:
        return find(store, container.id)
    except NoSuchContainer:
        return replace(container, state=replace(container.state, status="exited"))


def kill(store: Store, ref: str, *, signal: str = "KILL") -> Container:
    """Send a signal; KILL also waits for the end (LIF-KILL-1, LIF-KILL-2)."""
    from builder.containers.options import signal_number

    number = signal_number(signal)
    container = find(store, ref)
    if not container.state.running:
        raise Conflict(
            f"Cannot kill container: {ref}: Container {container.short_id} is not running",
            code="container-not-running",
        )
    _refuse_paused(container, "stopping or killing")
    engine.send_signal(container.directory, number)
    if number == _SIGKILL:
        engine.wait(container.directory)
    attributes = document.event_attributes(container.row, signal=str(number))
    store.events.add("container", "kill", container.id, attributes)
    if number == _SIGKILL:
        _note_end(store, container)
    return _again(store, container)


def _refuse_paused(container: Container, what: str) -> None:
    if container.state.status == "paused":
        raise Conflict(
            f"Container {container.name} is paused. Unpause the container before {what}",
            code="container-paused",
        )


def pause(store: Store, ref: str) -> None:
    """Freeze every process (LIF-PAUSE)."""
    container = find(store, ref)
    if not container.state.running:
        raise Conflict(f"Container {ref} is not running", code="container-not-running")
    if container.state.status == "paused":
        raise Conflict(f"Container {ref} is already paused", code="container-paused")
    engine.pause(container.directory)
    store.events.add("container", "pause", container.id, document.event_attributes(container.row))


def unpause(store: Store, ref: str) -> None:
    """Let them go on."""
    container = find(store, ref)
    if container.state.status != "paused":
        raise Conflict(f"Container {ref} is not paused", code="container-not-paused")
    engine.unpause(container.directory)
    store.events.add("container", "unpause", container.id, document.event_attributes(container.row))


def restart(store: Store, ref: str, *, timeout_s: float | None = None) -> Container:
    """Stop, then start (LIF-RESTART)."""
    container = stop(store, ref, timeout_s=timeout_s)
    started, _ = start(store, container.id)
    store.events.add("container", "restart", container.id, document.event_attributes(container.row))
    return started


def wait(store: Store, ref: str) -> int:
    """Block until it has stopped for good; its exit status (LIF-WAIT)."""
    container = find(store, ref)
    code = engine.wait(container.directory)
    _note_end(store, container)
    return code


def rename(store: Store, ref: str, name: str) -> None:
    """Give it another name (LIF-RENAME)."""
    container = find(store, ref)
    wanted = names.checked_name(name)
    if wanted == container.name:
        raise Conflict("Renaming a container with the same name as its current name", code="same-name")
    store.containers.rename(container.id, wanted)
    attributes = document.event_attributes(container.row, oldName=container.name)
    store.events.add("container", "rename", container.id, {**attributes, "name": wanted})


def remove(store: Store, ref: str, *, force: bool = False, volumes: bool = False) -> str:
    """Remove it; returns its name (LIF-RM-1, LIF-RM-2).

    Running ones only with ``force``. Anonymous volumes that no other container uses go with ``volumes``.
    """
    with store.lock(f"start {find(store, ref).id}"):
        return _remove(store, ref, force=force, volumes=volumes)


def _remove(store: Store, ref: str, *, force: bool, volumes: bool) -> str:
    container = find(store, ref)
    if container.state.running:
        if not force:
            raise Conflict(
                f"You cannot remove a running container {container.id}. Stop the container before attempting "
                "removal or use -f",
                code="container-running",
            )
        _end_by_force(container)
        _note_end(store, container, removes=False)
    _delete(store, container, volumes=volumes)
    return container.name


def _end_by_force(container: Container) -> None:
    """Kill, whatever state it is in; go on when there is nobody to talk to."""
    try:
        engine.send_signal(container.directory, _SIGKILL, force=True)
        engine.wait(container.directory)
    except PybuildError:
        process = state.observe(container.directory).process
        if process.alive():
            os.kill(process.pid, _SIGKILL)


def _delete(store: Store, container: Container, *, volumes: bool) -> None:
    """Row first: from then on nobody finds it, and what is left is rubbish."""
    if not store.containers.remove(container.id):
        return
    if volumes:
        _remove_volumes(store, container)
    store.events.add("container", "destroy", container.id, document.event_attributes(container.row))


def _remove_volumes(store: Store, container: Container) -> None:
    from builder.containers.mounts import users_of

    for entry in container.data["Mounts"]:
        name = entry.get("Name")
        if name and entry.get("Anonymous") and not users_of(store, name):
            store.volumes.remove(name)


def prune(store: Store, chosen: Callable[[Container], bool] = lambda _: True) -> tuple[Container, ...]:
    """Remove every ``chosen`` container that is not running nor just being started; what was removed."""
    from builder.containers.lookup import every

    return tuple(container for container in every(store) if _prune(store, container, chosen))


def _prune(store: Store, container: Container, chosen: Callable[[Container], bool]) -> bool:
    if container.state.running or _is_starting(container) or not chosen(container):
        return False
    try:
        with store.lock(f"start {container.id}", timeout_s=0):
            now = find(store, container.id)
            if now.state.running or not chosen(now):
                return False
            _delete(store, now, volumes=True)
    except (StoreBusy, NoSuchContainer):
        return False  # somebody starts it, or was faster
    return True


def _is_starting(container: Container) -> bool:
    """Whether who made it is about to start it."""
    starter = container.data.get("Starter")
    return container.state.status == "created" and starter is not None and state.ProcessRef(*starter).alive()
