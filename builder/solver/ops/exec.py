"""RUN: a command in a container on a writable view of its root input (rows EXE-01…34)."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

from builder.cache.tree import View
from builder.cache.types import Active
from builder.errors import SolveError, StepFailed
from builder.llb.definition import LinuxResources, Vertex
from builder.llb.ops import ExecOp
from builder.oci.config import DEFAULT_PATH, set_env
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.ops.attribution import attribute
from builder.solver.ops.execmounts import Inputs, step_mounts
from builder.solver.ops.inputs import local_snapshot
from builder.solver.ops.machine import Emulation, device_edits, emulation_for, insecure_devices
from builder.solver.ops.outputs import ExtraOutputs
from builder.solver.planning import Nodes
from builder.solver.reporter import Reporter
from builder.solver.types import FailedStep, Result
from runtime import capabilities
from runtime.cdi import Edits
from runtime.errors import CommandNotExecutable, SetupFailed
from runtime.hosts import HOST_GATEWAY, host_resolv_conf, hosts_file, parse_add_host, resolv_conf
from runtime.plan import MASKED_PATHS, READONLY_PATHS
from runtime.spec import (
    ContainerSpec,
    DirRoot,
    ExitStatus,
    FileMount,
    Limits,
    Mount,
    Network,
    OverlayRoot,
    Rlimit,
    Root,
)

HOSTNAME = "buildkitsandbox"


def run_exec(
    vertex: Vertex, nodes: Nodes, results: dict[Digest, Result], env: SolveEnv, reporter: Reporter
) -> Result:
    """Run the command; returns one committed snapshot per output. Raises StepFailed with the exit code."""
    op = vertex.op
    assert isinstance(op, ExecOp)
    _check_entitlements(op, env)
    root_mount = next(mount for mount in op.mounts if mount.dest == "/")
    inputs = _inputs(op, vertex, nodes, results, env)
    active = env.store.snapshots.prepare(inputs.get(root_mount.input), description=vertex.name)
    outputs = ExtraOutputs(op, inputs, env.store, vertex.name)
    try:
        with ExitStack() as stack:
            outputs.prepare()
            spec = outputs.mounted(step_container(op, vertex, active, inputs, env, reporter, stack))
            status, late = _run(spec, vertex, env, reporter)
        env.cancel.check()
        if late or status.code is None or status.code not in op.meta.valid_exit_codes:
            from builder.solver.ops.failures import step_failed

            raise step_failed(op, status, reporter, env, late=late, platform=vertex.platform)
        attribute(env.store, active, op.meta.user)
        made = outputs.commit(active, root_mount)
    except StepFailed as error:
        if env.on_failed is not None:
            env.on_failed(FailedStep(vertex=vertex, active=active, inputs=inputs, error=error))
        env.store.snapshots.discard(active)
        outputs.discard()
        raise
    except BaseException:
        env.store.snapshots.discard(active)
        outputs.discard()
        raise
    return Result(made)


def _inputs(
    op: ExecOp, vertex: Vertex, nodes: Nodes, results: dict[Digest, Result], env: SolveEnv
) -> dict[int, str | None]:
    """The snapshot of every input that is mounted; what is mounted of a context becomes one."""
    found: dict[int, str | None] = {}
    for position in sorted({mount.input for mount in op.mounts if mount.input >= 0}):
        edge = vertex.inputs[position]
        node = nodes[edge.digest]
        found[position] = (
            local_snapshot(vertex, position, node, env)
            if node.local
            else results[edge.digest].outputs[edge.index]
        )
    return found


def step_container(
    op: ExecOp,
    vertex: Vertex,
    active: Active,
    inputs: Inputs,
    env: SolveEnv,
    reporter: Reporter,
    stack: ExitStack,
) -> ContainerSpec:
    """The container of a step on its tree ``active``; what it needs meanwhile is in ``stack``."""
    emulation = emulation_for(vertex.platform, env.search_path)
    mounts, extra_env = step_mounts(op, inputs, env, stack)
    edits = device_edits(op.devices, env.device_aliases, env.cdi_dirs, reporter)
    network = _network(op, env, reporter, stack)
    spec = _spec(op, vertex, active, (*mounts, *edits.mounts), (*extra_env, *edits.env), network, env)
    if emulation is not None and vertex.platform is not None:
        reporter.warn(emulation.warning(vertex.platform))
    return _on_machine(spec, edits, emulation, active)


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


def _network(op: ExecOp, env: SolveEnv, reporter: Reporter, stack: ExitStack) -> Network:
    match op.network:
        case "host":
            return Network(mode="host")
        case "none":
            return Network(mode="none")
        case "sandbox":
            return stack.enter_context(env.networks().lease(reporter, reusable=op.security == "sandbox"))


def _extra_hosts(op: ExecOp, network: Network) -> tuple[tuple[str, str], ...]:
    """The step's own names; ``host-gateway`` is this machine as the step reaches it (BadHostEntry if not)."""
    gateway = "127.0.0.1" if network.mode == "host" else network.gateway
    return tuple(
        parse_add_host(f"{name}={address}", gateway=gateway) if address == HOST_GATEWAY else (name, address)
        for name, address in op.meta.extra_hosts
    )


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
            target="/etc/hosts",
            data=hosts_file(hostname, extra=_extra_hosts(op, network)).encode(),
            mode=0o644,
        ),
        FileMount(
            target="/etc/resolv.conf",
            data=resolv_conf(
                host_resolv_conf(),
                isolated=network.mode != "host",
                dns=env.dns.dns,
                search=env.dns.search,
                options=env.dns.options,
            ).encode(),
            mode=0o644,
        ),
    )
    own = tuple(f"{mount.target.rstrip('/')}/" for mount in mounts)
    return ContainerSpec(
        id=f"build-{active.id}-{os.getpid()}",
        root=_root(active),
        args=op.meta.args,
        env=_environment(op, extra_env),
        cwd=op.meta.cwd or "/",
        user=op.meta.user,
        hostname=hostname,
        # A mount of the step's own over /etc hides the generated files, as it hides those of the image.
        mounts=(*(item for item in files if not f"{item.target}/".startswith(own)), *mounts),
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
        accounting=env.on_usage is not None,
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


def _run(spec: ContainerSpec, vertex: Vertex, env: SolveEnv, reporter: Reporter) -> tuple[ExitStatus, bool]:
    from builder.solver.ops.running import run_container

    try:
        return run_container(spec, env, reporter)
    except CommandNotExecutable as error:
        from builder.solver.ops.failures import not_started

        assert isinstance(vertex.op, ExecOp)
        raise not_started(vertex.op, error, vertex.platform) from error
    except SetupFailed as error:
        from builder.solver.ops.failures import setup_hint, source_missing

        missing = source_missing(vertex, error)
        if missing is not None:
            raise missing from None
        error.hint = error.hint or setup_hint(error)
        raise
