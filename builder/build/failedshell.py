"""A shell where a step of an earlier build stood: its tree, mounts, environment, user and directory.

It works on a snapshot of its own on top of the step's tree, which is thrown away at the end. Cache mounts are
the real ones: what is changed there stays changed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from builder.build.failed import KeptStep, checked_snapshot
from builder.build.machine import Machine
from builder.cache.store import Store
from builder.cache.tree import View
from builder.errors import UsageError
from builder.llb.definition import Vertex
from builder.llb.ops import ExecOp
from builder.solver.cancel import Cancel
from builder.solver.env import SolveEnv, Sources
from builder.solver.ops.exec import step_container
from builder.solver.reporter import Reporter
from builder.solver.types import Secret, SshAgent
from runtime.spec import ContainerSpec

if TYPE_CHECKING:
    from builder.solver.progress import Event

_SHELLS = ("/bin/bash", "/bin/sh", "/busybox/sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellRequest:
    """What to run where; no ``command`` means a shell. ``terminal``: the command gets a terminal of its own,
    of the kind ``term``.
    """

    step: KeptStep
    command: tuple[str, ...] = ()
    terminal: bool = False
    term: str = "xterm"
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[SshAgent, ...] = ()


@contextmanager
def step_shell(
    store: Store, machine: Machine, request: ShellRequest
) -> Iterator[tuple[ContainerSpec, tuple[str, ...]]]:
    """The container to start, and notes about what it lacks. Nothing is left of it afterwards.

    Raises UsageError when the step's tree is gone.
    """
    step = request.step
    with store.hold() as hold, ExitStack() as stack:
        snapshot = checked_snapshot(store, step)
        if not hold.snapshot(snapshot):
            checked_snapshot(store, step)
        active = store.snapshots.prepare(snapshot, description=f"shell in {step.name}")
        stack.callback(store.snapshots.discard, active)
        vertex, notes = _without_missing(step.vertex(), request)
        op = cast("ExecOp", vertex.op)
        with View(active.lowers or (active.upper,), userxattr=active.userxattr) as view:
            command = request.command or (_shell(view),)
        env = op.meta.env
        if request.terminal and not any(item.startswith("TERM=") for item in env):
            env = (*env, f"TERM={request.term}")
        op = replace(op, meta=replace(op.meta, args=command, env=env))
        inputs, gone = _inputs(store, step)
        warned: list[str] = []

        def listen(event: Event) -> None:
            short = getattr(event, "short", "")
            if short:
                warned.append(short)

        solve_env = SolveEnv(
            store=store,
            hold=hold,
            sources=cast("Sources", None),
            executor=machine.executor,
            networks=machine.networks,
            emit=listen,
            cancel=Cancel(),
            secrets=request.secrets,
            ssh=request.ssh,
            cdi_dirs=machine.cdi_dirs,
            search_path=machine.search_path,
        )
        reporter = Reporter(vertex, listen)
        spec = step_container(op, vertex, active, inputs, solve_env, reporter, stack)
        spec = replace(spec, id=f"shell-{secrets.token_hex(6)}-{os.getpid()}", terminal=request.terminal)
        yield spec, (*notes, *gone, *warned)


def _without_missing(vertex: Vertex, request: ShellRequest) -> tuple[Vertex, tuple[str, ...]]:
    """The step with what was not given again made optional, and a note about each."""
    op = cast("ExecOp", vertex.op)
    secret_ids = {secret.id for secret in request.secrets}
    agents = {agent.id for agent in request.ssh}
    missing = {m.id for m in op.mounts if m.type == "secret"} | {item.id for item in op.secret_env}
    notes = [
        f"secret {name} is not kept: give it with --secret id={name},src=FILE"
        for name in sorted(missing - secret_ids)
    ]
    wanted = {mount.id or "default" for mount in op.mounts if mount.type == "ssh"}
    notes += [f"no ssh agent {name}: forward one with --ssh {name}" for name in sorted(wanted - agents)]
    op = replace(
        op,
        mounts=tuple(replace(m, optional=True) if m.type in ("secret", "ssh") else m for m in op.mounts),
        secret_env=tuple(replace(item, optional=True) for item in op.secret_env),
    )
    return Vertex(op=op, platform=vertex.platform, meta=vertex.meta), tuple(notes)


def _inputs(store: Store, step: KeptStep) -> tuple[dict[int, str | None], tuple[str, ...]]:
    """What the step's mounts are made of, and a note about what has been removed since."""
    op = cast("ExecOp", step.vertex().op)
    found: dict[int, str | None] = {}
    notes: list[str] = []
    for mount in op.mounts:
        if mount.dest == "/" or mount.input < 0:
            continue
        snapshot = step.inputs.get(mount.input)
        if snapshot and store.snapshots.get(snapshot) is None:
            snapshot = None
        if snapshot is None and mount.type == "bind":
            notes.append(f"{mount.dest} is empty: what was mounted there is gone")
        found[mount.input] = snapshot
    return found, tuple(notes)


def _shell(view: View) -> str:
    for path in _SHELLS:
        if view.lstat(view.resolve(path[1:])) is not None:
            return path
    raise UsageError(
        "the step's tree has no shell", hint="give a command: ... -- COMMAND [ARG...]", code="no-shell"
    )
