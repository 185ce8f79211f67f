"""RUN: a command in a container on a writable view of its root input (rows EXE-01…34)."""

from __future__ import annotations

import os
import selectors
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from builder.cache.tree import View
from builder.cache.types import Active
from builder.errors import SolveError, StepFailed
from builder.llb.definition import LinuxResources, Vertex
from builder.llb.ops import ExecOp
from builder.llb.ops import Mount as LlbMount
from builder.oci.config import DEFAULT_PATH, set_env
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.ops.attribution import attribute
from builder.solver.ops.inputs import local_snapshot
from builder.solver.ops.machine import Emulation, device_edits, emulation_for, insecure_devices
from builder.solver.planning import Nodes
from builder.solver.reporter import Reporter
from builder.solver.types import Result
from runtime import capabilities
from runtime.cdi import Edits
from runtime.hosts import host_resolv_conf, hosts_file, resolv_conf
from runtime.plan import MASKED_PATHS, READONLY_PATHS
from runtime.spec import (
    BindMount,
    ContainerSpec,
    DirRoot,
    ExitStatus,
    FileMount,
    Limits,
    Mount,
    Network,
    OverlayMount,
    OverlayRoot,
    Rlimit,
    Root,
    TmpfsMount,
)

HOSTNAME = "buildkitsandbox"
SECRET_LIMIT_BYTES = 500 * 1024


def run_exec(
    vertex: Vertex, nodes: Nodes, results: dict[Digest, Result], env: SolveEnv, reporter: Reporter
) -> Result:
    """Run the command; returns one committed snapshot per output. Raises StepFailed with the exit code."""
    op = vertex.op
    assert isinstance(op, ExecOp)
    _check_entitlements(op, env)
    emulation = emulation_for(vertex.platform, env.search_path)
    root_mount = next(mount for mount in op.mounts if mount.dest == "/")
    parent = _input(vertex, root_mount, nodes, results, env)
    active = env.store.snapshots.prepare(parent, description=vertex.name)
    try:
        with ExitStack() as stack:
            mounts, extra_env = _mounts(op, vertex, nodes, results, env, stack)
            edits = device_edits(op.devices, env.device_aliases, env.cdi_dirs, reporter)
            network = _network(op, env, reporter, stack)
            spec = _spec(op, vertex, active, (*mounts, *edits.mounts), (*extra_env, *edits.env), network, env)
            spec = _on_machine(spec, edits, emulation, active)
            status = _run(spec, env, reporter)
        env.cancel.check()
        if status.code is None or status.code not in op.meta.valid_exit_codes:
            hint = emulation.hint(vertex.platform) if emulation is not None and vertex.platform else None
            raise _failure(op, status, reporter, hint)
        attribute(env.store, active, op.meta.user)
        info = env.store.snapshots.commit(active, description=vertex.name)
    except BaseException:
        env.store.snapshots.discard(active)
        raise
    outputs: list[str | None] = [None] * op.outputs
    outputs[root_mount.output] = info.id
    return Result(tuple(outputs))


def _check_entitlements(op: ExecOp, env: SolveEnv) -> None:
    asked = {
        "network.host": op.network == "host",
        "security.insecure": op.security == "insecure",
    }
    for name, wanted in asked.items():
        if wanted and name not in env.allow:
            raise SolveError(
                f"failed to load LLB: {name} is not allowed",
                code="entitlement-needed",
                hint=f"grant it for this build with --allow {name}",
            )


def _input(
    vertex: Vertex, mount: LlbMount, nodes: Nodes, results: dict[Digest, Result], env: SolveEnv
) -> str | None:
    if mount.input < 0:
        return None
    edge = vertex.inputs[mount.input]
    node = nodes[edge.digest]
    if node.local:
        return local_snapshot(vertex, mount.input, node, env)
    return results[edge.digest].outputs[edge.index]


def _mounts(
    op: ExecOp, vertex: Vertex, nodes: Nodes, results: dict[Digest, Result], env: SolveEnv, stack: ExitStack
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """The mounts below the root, parents before children, and the environment that some of them bring."""
    mounts: list[Mount] = []
    extra_env: list[str] = []
    caches: dict[str, Path] = {}
    secrets = {secret.id: secret.data for secret in env.secrets}
    agents = {agent.id: agent.socket for agent in env.ssh}
    for mount in sorted((m for m in op.mounts if m.dest != "/"), key=lambda m: m.dest.rstrip("/").split("/")):
        match mount.type:
            case "bind":
                mounts.append(_bind(mount, _input(vertex, mount, nodes, results, env), env))
            case "cache":
                initial = _input(vertex, mount, nodes, results, env)
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
                socket = agents.get(mount.id or "default")
                if socket is not None:
                    mounts.append(_agent(mount, socket, env, stack))
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
    return tuple(mounts), tuple(extra_env)


def _agent(mount: LlbMount, agent: str, env: SolveEnv, stack: ExitStack) -> Mount:
    """A socket for this step alone, with the owner and mode that it asks for."""
    from builder.solver.ops.agentsocket import agent_socket  # few steps need it

    directory = stack.enter_context(env.store.staging("ssh"))
    mode = (mount.mode or 0o600) & 0o777
    path = stack.enter_context(agent_socket(agent, directory, mode=mode, uid=mount.uid, gid=mount.gid))
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
        acquired = env.store.cache_mounts.acquire(name, mount.sharing, check=env.cancel.check, fill=fill)
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


def _network(op: ExecOp, env: SolveEnv, reporter: Reporter, stack: ExitStack) -> Network:
    match op.network:
        case "host":
            return Network(mode="host")
        case "none":
            return Network(mode="none")
        case "sandbox":
            return stack.enter_context(env.networks().lease(reporter, reusable=op.security == "sandbox"))


def _spec(
    op: ExecOp,
    vertex: Vertex,
    active: Active,
    mounts: tuple[Mount, ...],
    extra_env: tuple[str, ...],
    network: Network,
    env: SolveEnv,
) -> ContainerSpec:
    hostname = op.meta.hostname or HOSTNAME
    sandboxed = op.security == "sandbox"
    files = (
        FileMount(
            target="/etc/hosts", data=hosts_file(hostname, extra=op.meta.extra_hosts).encode(), mode=0o644
        ),
        FileMount(
            target="/etc/resolv.conf",
            data=resolv_conf(host_resolv_conf(), isolated=network.mode != "host").encode(),
            mode=0o644,
        ),
    )
    taken = {mount.target for mount in mounts}
    return ContainerSpec(
        id=f"build-{active.id}-{os.getpid()}",
        root=_root(active),
        args=op.meta.args,
        env=_environment(op, extra_env),
        cwd=op.meta.cwd or "/",
        user=op.meta.user,
        hostname=hostname,
        mounts=(*(item for item in files if item.target not in taken), *mounts),
        network=network,
        capabilities=capabilities.DEFAULT if sandboxed else capabilities.ALL,
        seccomp="default" if sandboxed else "unconfined",
        masked_paths=MASKED_PATHS if sandboxed else (),
        readonly_paths=READONLY_PATHS if sandboxed else (),
        sysfs_writable=not sandboxed,
        all_devices=not sandboxed,
        devices=() if sandboxed else insecure_devices(),
        shm_size_bytes=env.shm_size_bytes or (64 << 20),
        rlimits=tuple(Rlimit(name=item.name, soft=item.soft, hard=item.hard) for item in op.meta.ulimits),
        limits=_limits(env.limits, vertex.meta.resources),
        cgroup_parent=op.meta.cgroup_parent,
        clean_stubs=True,
    )


def _on_machine(
    spec: ContainerSpec, edits: Edits, emulation: Emulation | None, active: Active
) -> ContainerSpec:
    """The container with its devices and, for a foreign platform, the emulator before its command."""
    nodes = (
        *spec.devices,
        *(node for node in edits.devices if node.path not in {d.path for d in spec.devices}),
    )
    spec = replace(spec, devices=nodes, groups=(*spec.groups, *edits.groups))
    if emulation is None:
        return spec
    args = emulation.args(spec.args, spec.env, lambda: View((active.upper, *active.lowers)))
    return replace(spec, args=args, mounts=(*spec.mounts, emulation.mount))


def _root(active: Active) -> Root:
    if active.driver == "overlay" and active.lowers:
        return OverlayRoot(
            lowers=tuple(str(path) for path in active.lowers),
            upper=str(active.upper),
            work=str(active.work),
            userxattr=active.userxattr,
            volatile=True,
        )
    return DirRoot(path=str(active.upper))


def _environment(op: ExecOp, extra: tuple[str, ...]) -> tuple[str, ...]:
    """EXE-10: the step's own, proxies in both cases, PATH when missing, secrets last."""
    env = op.meta.env
    for key, value in op.meta.proxy_env:
        for name in (key.lower(), key.upper()):
            if not any(item.startswith(f"{name}=") for item in env):
                env = (*env, f"{name}={value}")
    if not any(item.startswith("PATH=") for item in env):
        env = (*env, f"PATH={DEFAULT_PATH}")
    for item in extra:
        key, _, value = item.partition("=")
        env = set_env(env, key, value)
    return env


def _limits(base: Limits, resources: LinuxResources | None) -> Limits:
    if resources is None:
        return base
    return Limits(
        memory_bytes=resources.memory_bytes or base.memory_bytes,
        memory_swap_bytes=resources.memory_swap_bytes or base.memory_swap_bytes,
        cpu_shares=resources.cpu_shares or base.cpu_shares,
        cpu_period_us=resources.cpu_period or base.cpu_period_us,
        cpu_quota_us=resources.cpu_quota or base.cpu_quota_us,
        cpuset_cpus=resources.cpuset_cpus or base.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems or base.cpuset_mems,
    )


def _run(spec: ContainerSpec, env: SolveEnv, reporter: Reporter) -> ExitStatus:
    """Start, stream the output until both ends are closed, wait; a cancelled build kills the container."""
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    readers: dict[int, Literal[1, 2]] = {out_read: 1, err_read: 2}
    try:
        try:
            handle = env.executor().run(spec, stdin=None, stdout=out_write, stderr=err_write)
        finally:
            os.close(out_write)
            os.close(err_write)
        for warning in getattr(handle, "warnings", ()):
            reporter.warn(f"RUN: {warning}")
        forget = env.cancel.on_set(handle.kill)
        try:
            _stream(readers, reporter)
            return handle.wait()
        except BaseException:
            handle.kill()
            raise
        finally:
            forget()
    finally:
        os.close(out_read)
        os.close(err_read)


def _stream(readers: dict[int, Literal[1, 2]], reporter: Reporter) -> None:
    with selectors.DefaultSelector() as selector:
        for fd in readers:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if data:
                    reporter.log(readers[key.fd], data)
                else:
                    selector.unregister(key.fd)


def _failure(op: ExecOp, status: ExitStatus, reporter: Reporter, hint: str | None) -> StepFailed:
    command = " ".join(op.meta.args)
    message = f'process "{command}" did not complete successfully: exit code: {status.shell_code}'
    if status.oom_killed:
        message += ": cannot allocate memory"
        hint = "the step hit its memory limit: raise it with --memory"
    return StepFailed(message, exit_code=status.shell_code, log_tail=reporter.tail(), hint=hint)


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
