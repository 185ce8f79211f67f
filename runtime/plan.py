"""A container spec turned into an ordered list of operations, before anything is done.

A plan can be printed, compared and sent to the process that carries it out; it names no descriptor and reads
nothing but the spec. ``init.OPERATIONS`` has the function behind each operation name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from runtime import capabilities, devicefilter, hierarchies
from runtime import spec as s
from runtime.syscalls import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMESPACES = {"pid": c.CLONE_NEWPID, "ipc": c.CLONE_NEWIPC, "uts": c.CLONE_NEWUTS}
RLIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8,
    "as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
"""EXE-05."""
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""EXE-05."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One step: the name of what is done and the values it is done with."""

    name: str
    args: tuple[Any, ...] = ()

    def describe(self) -> str:
        """One line for people; file contents and filter programs are given by their size."""
        shown = [f"<{len(arg)} bytes>" if isinstance(arg, bytes) else repr(arg) for arg in self.args]
        return f"{self.name}({', '.join(shown)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a process is started: namespaces that are new, groups, operations, command.

    ``pid_path`` is a pid namespace to be born in (``""`` for a new one or the parent's, as ``flags`` say);
    ``netns`` is a network namespace that the starter opens and the process joins. ``rules`` are device rules,
    None for all; ``filter_for`` the capabilities that the seccomp filter is made for, None for no filter.
    """

    id: str
    flags: int
    operations: tuple[Operation, ...]
    args: tuple[str, ...]
    env: tuple[str, ...]
    filter_for: tuple[str, ...] | None
    netns: str = ""
    pid_path: str = ""
    cgroup_parent: str = ""
    limits: tuple[tuple[str, int | str | bool], ...] = ()
    rules: tuple[devicefilter.Rule, ...] | None = ()
    accounting: bool = False
    clean_stubs: bool = False

    def wire(self) -> tuple[Any, ...]:
        """As plain values, in the order of ``spawn.Wire``."""
        return (
            self.id,
            self.flags,
            tuple((op.name, *op.args) for op in self.operations),
            self.args,
            self.env,
            self.filter_for,
            self.netns,
            self.pid_path,
            self.cgroup_parent,
            self.limits,
            self.rules,
            self.accounting,
            self.clean_stubs,
        )

    def describe(self) -> str:
        """The plan as text, one operation a line; the environment is left out."""
        return "\n".join(operation.describe() for operation in self.operations)


def container_plan(spec: s.ContainerSpec) -> Plan:
    """How to start the container of ``spec``. ValueError for a spec that cannot be carried out."""
    hierarchies.group_path(spec.id, spec.cgroup_parent)
    shared = dict(spec.shared)
    flags = c.CLONE_NEWNS | c.CLONE_NEWCGROUP
    flags |= sum(flag for kind, flag in _NAMESPACES.items() if kind not in shared)
    if spec.network.mode == "none":
        flags |= c.CLONE_NEWNET
    operations = [
        *_namespace_operations(spec, shared),
        *_root_operations(spec),
        *_system_operations(spec),
        *[_mount_operation(mount) for mount in sorted(spec.mounts, key=_depth_order)],
        *_closing_operations(spec),
    ]
    return Plan(
        id=spec.id,
        flags=flags,
        operations=tuple(operations),
        args=spec.args,
        env=spec.env,
        netns=spec.network.path if spec.network.mode == "path" else "",
        filter_for=_filter(spec.seccomp, spec.capabilities),
        pid_path=shared.get("pid", ""),
        cgroup_parent=spec.cgroup_parent,
        limits=_limit_pairs(spec.limits),
        rules=None if spec.all_devices else _device_rules(spec.devices),
        accounting=spec.accounting,
        clean_stubs=spec.clean_stubs,
    )


def exec_plan(spec: s.ExecSpec, bounding: int) -> Plan:
    """How to start one more process in a container whose bounding set is ``bounding``."""
    operations = [Operation("join_all"), Operation("who", (spec.user, spec.groups))]
    if spec.oom_score_adj is not None:
        operations.insert(0, Operation("oom_score", (spec.oom_score_adj,)))
    if spec.terminal:
        operations.append(Operation("exec_terminal"))
    operations += [
        Operation("directory", (spec.cwd, False)),
        *_limit_operations(spec.rlimits),
        Operation("terminal"),
    ]
    keep = capabilities.mask(spec.capabilities) & bounding
    kept = capabilities.names_of(keep)
    operations.append(Operation("confine", (keep, spec.no_new_privileges)))
    return Plan(
        id="",
        flags=0,
        operations=tuple(operations),
        args=spec.args,
        env=spec.env,
        filter_for=_filter(spec.seccomp, kept),
    )


def _namespace_operations(spec: s.ContainerSpec, shared: dict[str, str]) -> list[Operation]:
    slave = any(isinstance(m, s.BindMount) and "private" not in m.propagation for m in spec.mounts)
    operations = [
        Operation("join", (_NAMESPACES[kind], path))
        for kind, path in shared.items()
        if path and kind != "pid"
    ]
    if spec.network.mode == "path":
        operations.append(Operation("join", (c.CLONE_NEWNET, "")))
    operations.append(Operation("propagation", (slave,)))
    if spec.hostname and "uts" not in shared:
        operations.append(Operation("hostname", (spec.hostname,)))
    if spec.network.mode == "none":
        operations.append(Operation("loopback"))
    if spec.oom_score_adj is not None:
        operations.append(Operation("oom_score", (spec.oom_score_adj,)))
    return operations


def _root_operations(spec: s.ContainerSpec) -> list[Operation]:
    root = spec.root
    if isinstance(root, s.DirRoot):
        return [Operation("dir_root", (_absolute(root.path), root.readonly))]
    if not root.lowers and not root.upper:
        raise ValueError("an overlay root needs layers")
    if not root.lowers:
        # Nothing below: the upper directory is the whole root, and no overlay is needed.
        return [Operation("dir_root", (_absolute(root.upper), False))]
    for path in root.lowers:
        _absolute(path)
    args = (root.lowers, root.upper, root.work, root.userxattr, root.volatile, False)
    return [Operation("overlay_root", args)]


def _system_operations(spec: s.ContainerSpec) -> list[Operation]:
    operations = []
    if any(_needs_staging(mount) for mount in spec.mounts):
        operations.append(Operation("staging"))
    nodes = tuple((d.path, d.type, d.major, d.minor, d.mode, d.uid, d.gid) for d in spec.devices)
    operations += [
        Operation("proc"),
        Operation("dev", (nodes,)),
        Operation("devpts"),
        Operation("shm", (spec.shm_size_bytes,)),
        Operation("mqueue"),
        Operation("sysfs", (spec.sysfs_writable,)),
        Operation("cgroup_fs", (spec.sysfs_writable,)),
    ]
    if spec.terminal:
        operations.append(Operation("console"))
    return operations


def _closing_operations(spec: s.ContainerSpec) -> list[Operation]:
    operations = []
    if spec.masked_paths:
        operations.append(Operation("mask", (spec.masked_paths,)))
    if spec.readonly_paths:
        operations.append(Operation("readonly_paths", (spec.readonly_paths,)))
    operations.append(Operation("who", (spec.user, spec.groups)))
    if spec.readonly_root:
        operations.append(Operation("readonly_root"))
    keep = capabilities.mask(spec.capabilities)
    operations += [
        Operation("pivot"),
        Operation("directory", (spec.cwd or "/", True)),
        *_limit_operations(spec.rlimits),
        Operation("terminal"),
        Operation("confine", (keep, spec.no_new_privileges)),
    ]
    return operations


def _filter(profile: str, names: tuple[str, ...]) -> tuple[str, ...] | None:
    return None if profile == "unconfined" else tuple(capabilities.normalise(name) for name in names)


def _limit_operations(rlimits: tuple[s.Rlimit, ...]) -> list[Operation]:
    if not rlimits:
        return []
    rows = []
    for rlimit in rlimits:
        if rlimit.name not in RLIMITS:
            raise ValueError(f"unknown resource limit {rlimit.name!r}")
        rows.append((RLIMITS[rlimit.name], rlimit.soft, rlimit.hard))
    return [Operation("limits", (tuple(rows),))]


def _depth_order(mount: s.Mount) -> list[str]:
    return [part for part in mount.target.split("/") if part]


def _needs_staging(mount: s.Mount) -> bool:
    return not isinstance(mount, s.TmpfsMount) and not (
        isinstance(mount, s.BindMount) and not mount.throwaway
    )


def _mount_operation(mount: s.Mount) -> Operation:
    target = _target(mount.target)
    if isinstance(mount, s.BindMount):
        flags = _flags(mount.readonly, mount.nosuid, mount.nodev, mount.noexec)
        source = _absolute(mount.source)
        return Operation("bind", (target, source, mount.subpath, flags, mount.throwaway, mount.propagation))
    if isinstance(mount, s.OverlayMount):
        args = (mount.lowers, mount.upper, mount.work, mount.subpath, mount.throwaway, mount.userxattr)
        return Operation("overlay", (target, *args))
    if isinstance(mount, s.TmpfsMount):
        flags = _flags(mount.readonly, mount.nosuid, mount.nodev, mount.noexec)
        return Operation("tmpfs", (target, mount.size_bytes, mount.mode, flags))
    flags = _flags(mount.readonly, True, True, not mount.mode & 0o111)
    return Operation("file", (target, mount.data, mount.mode, mount.uid, mount.gid, flags))


def _flags(readonly: bool, nosuid: bool, nodev: bool, noexec: bool) -> int:
    wanted = ((readonly, c.MS_RDONLY), (nosuid, c.MS_NOSUID), (nodev, c.MS_NODEV), (noexec, c.MS_NOEXEC))
    return sum(flag for given, flag in wanted if given)


def _target(path: str) -> str:
    if not path.strip("/") or "\0" in path:
        raise ValueError(f"invalid mount target {path!r}")
    return path


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"not an absolute path: {path!r}")
    return path


def _limit_pairs(limits: s.Limits) -> tuple[tuple[str, int | str | bool], ...]:
    pairs = ((field.name, getattr(limits, field.name)) for field in fields(limits))
    return tuple((name, value) for name, value in pairs if value not in {None, "", False})


def _device_rules(devices: tuple[s.Device, ...]) -> tuple[devicefilter.Rule, ...]:
    return devicefilter.DEFAULT + tuple((d.type, d.major, d.minor, d.access) for d in devices)
