"""What a RUN step mounts below its root, each made from the store, from secrets or from an agent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from builder.errors import SolveError
from builder.llb.ops import ExecOp
from builder.llb.ops import Mount as LlbMount
from builder.solver.env import SolveEnv
from builder.solver.types import SshAgent
from runtime.spec import BindMount, FileMount, Mount, OverlayMount, TmpfsMount

SECRET_LIMIT_BYTES = 500 * 1024
Inputs = Mapping[int, str | None]
"""The snapshot of each input by its position; None is an empty tree."""


def step_mounts(
    op: ExecOp, inputs: Inputs, env: SolveEnv, stack: ExitStack
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """The mounts below the root, parents before children, and the environment that some of them bring."""
    mounts: list[Mount] = []
    extra_env: list[str] = []
    caches: dict[str, Path] = {}
    secrets = {secret.id: secret.data for secret in env.secrets}
    agents = {agent.id: agent for agent in env.ssh}
    for mount in sorted((m for m in op.mounts if m.dest != "/"), key=lambda m: m.dest.rstrip("/").split("/")):
        match mount.type:
            case "bind":
                mounts.append(_bind(mount, inputs.get(mount.input), env))
            case "cache":
                initial = inputs.get(mount.input)
                mounts.append(_cache(mount, initial, env, stack, caches))
            case "tmpfs":
                mounts.append(TmpfsMount(target=mount.dest, size_bytes=mount.size_bytes))
            case "secret":
                data = secrets.get(mount.id)
                if data is not None:
                    mounts.append(
                        FileMount(
                            target=mount.dest,
                            data=_checked_secret(mount.id, data),
                            mode=(mount.mode or 0o400) & 0o777,
                            uid=mount.uid,
                            gid=mount.gid,
                        )
                    )
                elif not mount.optional:
                    raise _no_secret(mount.id)
            case "ssh":
                agent = agents.get(mount.id or "default")
                if agent is not None:
                    mounts.append(_agent(mount, agent, env, stack))
                    if not any(item.startswith("SSH_AUTH_SOCK=") for item in (*op.meta.env, *extra_env)):
                        extra_env.append(f"SSH_AUTH_SOCK={mount.dest}")
                elif not mount.optional:
                    raise SolveError(
                        f'no SSH key "{mount.id or "default"}" forwarded from the client',
                        code="ssh-not-forwarded",
                        hint="forward an agent with --ssh default",
                    )
    for wanted in op.secret_env:
        data = secrets.get(wanted.id)
        if data is not None:
            extra_env.append(
                f"{wanted.name}={_checked_secret(wanted.id, data).decode('utf-8', 'surrogateescape')}"
            )
        elif not wanted.optional:
            raise _no_secret(wanted.id)
    env.place.take()
    return tuple(mounts), tuple(extra_env)


def _agent(mount: LlbMount, agent: SshAgent, env: SolveEnv, stack: ExitStack) -> Mount:
    """A socket for this step alone, with the owner and mode that it asks for."""
    from builder.solver.ops.agentsocket import agent_socket  # few steps need it

    directory = stack.enter_context(env.store.staging("ssh"))
    mode = (mount.mode or 0o600) & 0o777
    path = stack.enter_context(
        agent_socket(agent.socket, directory, mode=mode, uid=mount.uid, gid=mount.gid, raw=agent.raw)
    )
    return BindMount(target=mount.dest, source=str(path), nosuid=True, nodev=True, noexec=True)


def _bind(mount: LlbMount, snapshot: str | None, env: SolveEnv) -> Mount:
    layers = tuple(str(path) for path in env.store.snapshots.layers(snapshot))
    if not layers:
        return TmpfsMount(target=mount.dest, mode=0o755, readonly=mount.readonly)
    return OverlayMount(
        target=mount.dest,
        lowers=layers,
        subpath=mount.selector.strip("/"),
        throwaway=not mount.readonly,
        userxattr=env.store.snapshots.userxattr,
    )


def _cache(
    mount: LlbMount, initial: str | None, env: SolveEnv, stack: ExitStack, taken: dict[str, Path]
) -> Mount:
    """A cache mount; one that the step names twice is ``taken`` once (EXE-32)."""
    name = cache_mount_name(mount, initial)
    if name not in taken:
        fill = None
        if initial is not None:
            from builder.solver.ops.inputs import copy_tree

            fill = partial(copy_tree, env.store.snapshots.layers(initial), mount.selector)
        acquired = env.store.cache_mounts.acquire(
            name, mount.sharing, on_wait=env.place.leave, check=env.cancel.check, fill=fill
        )
        taken[name] = stack.enter_context(acquired)
    path = taken[name]
    subpath = mount.selector.strip("/") if initial is None else ""
    return BindMount(target=mount.dest, source=str(path), subpath=subpath, readonly=mount.readonly)


def cache_mount_name(mount: LlbMount, initial: str | None) -> str:
    """Under which name a cache mount is kept: one with content to start with is apart from an empty one."""
    name = mount.id or mount.dest
    return name if initial is None else f"{name}@{initial}"


def clear_cache_mounts(ops: Iterable[ExecOp], env: SolveEnv) -> None:
    """Remove the cache mounts of steps that run without cache; those in use stay (MNT-10)."""
    names = {mount.id or mount.dest for op in ops for mount in op.mounts if mount.type == "cache"}
    if not names:
        return
    for instance in env.store.cache_mounts.list():
        if instance.id in names or instance.id.rpartition("@")[0] in names:
            env.store.cache_mounts.delete(instance.directory)


def _checked_secret(name: str, data: bytes) -> bytes:
    if len(data) > SECRET_LIMIT_BYTES:
        raise SolveError(
            f"secret {name} too big. max size {SECRET_LIMIT_BYTES // 1000}KB", code="secret-too-big"
        )
    return data


def _no_secret(name: str) -> SolveError:
    return SolveError(
        f"secret {name}: not found", code="secret-not-found", hint=f"pass it with --secret id={name},src=FILE"
    )
