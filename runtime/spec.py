"""What a container is made of, as plain values; close to the OCI runtime specification's ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRoot:
    """An overlay mounted as root: lower directories topmost first, and the directories that take the changes.

    All are absolute host paths. Without ``upper`` the root is read-only.
    """

    lowers: tuple[str, ...]
    upper: str = ""
    work: str = ""
    userxattr: bool = False
    volatile: bool = False
    """Nothing is flushed to disk for this mount: for build steps, whose results are settled by the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirRoot:
    """An ordinary directory used as root."""

    path: str
    readonly: bool = False


Root = OverlayRoot | DirRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """A host file or directory made visible at ``target`` (absolute, inside the container).

    ``subpath`` is resolved beneath ``source`` without leaving it. ``throwaway`` gives a writable view whose
    changes are dropped.
    """

    target: str
    source: str
    subpath: str = ""
    readonly: bool = False
    throwaway: bool = False
    nosuid: bool = False
    nodev: bool = False
    noexec: bool = False
    propagation: Literal["private", "rprivate", "slave", "rslave", "shared", "rshared"] = "rprivate"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayMount:
    """A tree made of layers, mounted at ``target``; ``subpath`` selects a file or directory beneath it.

    Without ``upper`` it is read-only; ``throwaway`` gives it a writable layer in memory that is dropped.
    """

    target: str
    lowers: tuple[str, ...]
    upper: str = ""
    work: str = ""
    subpath: str = ""
    throwaway: bool = False
    userxattr: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsMount:
    """A tmpfs at ``target``; ``size_bytes`` 0 = the kernel's default."""

    target: str
    size_bytes: int = 0
    mode: int = 0o1777
    readonly: bool = False
    nosuid: bool = True
    nodev: bool = True
    noexec: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMount:
    """A small file in memory at ``target``: secrets, generated resolv.conf and hosts, heredoc scripts.

    ``data`` never appears in a printed form of the value.
    """

    target: str
    data: bytes
    mode: int = 0o400
    uid: int = 0
    gid: int = 0
    readonly: bool = True

    def __repr__(self) -> str:
        return f"FileMount(target={self.target!r}, data=<{len(self.data)} bytes>, mode={self.mode:o})"


Mount = BindMount | OverlayMount | TmpfsMount | FileMount


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the container's cgroup; None = not set. Bytes, microseconds, shares."""

    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    memory_reservation_bytes: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    cpu_period_us: int | None = None
    cpu_quota_us: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """``name`` is lower case without RLIMIT_ (``nofile``); -1 = unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node to create; ``access`` for the device cgroup, a subset of ``rwm``."""

    path: str
    type: Literal["c", "b"]
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Which network namespace: a new one with loopback only, the host's, or the one at a path.

    ``path`` names an existing namespace (``/proc/<pid>/ns/net`` or a bound file) when ``mode`` is ``path``.
    ``gateway`` is this machine's address in it, where that is known.
    """

    mode: Literal["none", "host", "path"] = "none"
    path: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One process in its own namespaces and root.

    ``user`` is ``name|uid[:group|gid]`` and is looked up inside the root (EXE-11); ``cwd`` is created when
    missing; ``capabilities`` are names without ``CAP_`` and become bounding, permitted and effective, never
    inheritable. ``shared`` namespaces (``pid``, ``ipc``, ``uts``) are those of the paths given, or the host's
    when the path is empty.
    """

    id: str
    root: Root
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    mounts: tuple[Mount, ...] = ()
    network: Network = Network()
    shared: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: Literal["default", "unconfined"] = "default"
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysfs_writable: bool = False
    readonly_root: bool = False
    devices: tuple[Device, ...] = ()
    all_devices: bool = False
    shm_size_bytes: int = 64 << 20
    rlimits: tuple[Rlimit, ...] = ()
    limits: Limits = Limits()
    cgroup_parent: str = ""
    oom_score_adj: int | None = None
    terminal: bool = False
    clean_stubs: bool = False
    """Remove mount points that had to be made in the root once the process has ended, if still empty
    (EXE-23)."""
    accounting: bool = False
    """Give it a group in every cgroup hierarchy, so that it can be paused and measured (``run``, not build
    steps)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """One more process in a container that runs: its namespaces and groups, with its own confinement.

    Fields mean what they mean in ``ContainerSpec``; ``capabilities`` are cut down to the container's bounding
    set.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: Literal["default", "unconfined"] = "default"
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: an exit code or a signal, exactly one."""

    code: int | None = None
    signal: int | None = None
    oom_killed: bool = False

    def __post_init__(self) -> None:
        if (self.code is None) == (self.signal is None):
            raise ValueError("exactly one of code and signal")

    @property
    def shell_code(self) -> int:
        """The status as a shell shows it: the code, or 128 + signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)
