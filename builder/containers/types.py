"""What the container use cases are asked for, and what they answer with; values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from builder.cache.containerstore import ContainerRow
from builder.errors import PybuildError
from runtime.spec import Limits, Rlimit
from runtime.specfile import LogOptions, RestartPolicy
from runtime.state import State

Pairs = tuple[tuple[str, str], ...]
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Propagation = Literal["private", "rprivate", "slave", "rslave", "shared", "rshared"]
else:  # typing would take a millisecond of every start
    Propagation = str

_NO_RESTART = RestartPolicy()
_JSON_LOG = LogOptions()
_NO_LIMITS = Limits()


class Conflict(PybuildError):
    """What is asked for does not fit the state that a container, or another one, is in."""

    code = "container-conflict"


class BadOption(PybuildError):
    """An option of ``create`` or ``run`` is malformed or contradicts another one."""

    code = "invalid-option"
    exit_status = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRequest:
    """One ``-v``, ``--mount`` or VOLUME: ``source`` is an absolute path, a volume name, or empty for a new
    one.
    """

    target: str
    source: str = ""
    kind: Literal["bind", "volume", "tmpfs"] = "volume"
    readonly: bool = False
    copy: bool = True
    propagation: Propagation = "rprivate"
    tmpfs_size: int = 0
    tmpfs_mode: int = 0o1777
    create_source: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRequest:
    """One published port; ``host_port`` 0 = any free one."""

    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """One ``--device``."""

    host: str
    container: str
    access: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """Everything ``create`` and ``run`` can be told (RUN-01 to RUN-47).

    ``entrypoint`` None keeps the image's; empty removes it. ``env`` are ``NAME=value`` or ``NAME`` (removes
    the image's). ``on_exit`` is the command that settles the end of a container whose starter has left;
    empty = the default one. ``starting``: this process goes on to start it, so until it ends nobody prunes
    the container.
    """

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    labels: Pairs = ()
    workdir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    interactive: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    auto_remove: bool = False
    restart: RestartPolicy = _NO_RESTART
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    log: LogOptions = _JSON_LOG
    volumes: tuple[VolumeRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()
    tmpfs: tuple[VolumeRequest, ...] = ()
    network: str = ""
    ports: tuple[PortRequest, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    mac_address: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()
    readonly_root: bool = False
    shm_size: int = 64 << 20
    ulimits: tuple[Rlimit, ...] = ()
    limits: Limits = _NO_LIMITS
    cgroup_parent: str = ""
    oom_score_adj: int | None = None
    on_exit: tuple[str, ...] = ()
    starting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """One ``exec`` (IO-EXEC-1)."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    tty: bool = False
    interactive: bool = False
    detach: bool = False
    privileged: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """One ``commit``: ``changes`` are Dockerfile lines of the allowed subset."""

    reference: str = ""
    message: str = ""
    author: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True
    compression: str = "gzip"


@dataclass(frozen=True, slots=True)
class Container:
    """A container as it is now: its row, its directory and what became of it."""

    row: ContainerRow
    directory: Path
    state: State
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self.row.id

    @property
    def name(self) -> str:
        """Without the leading slash."""
        return self.row.name

    @property
    def data(self) -> dict[str, Any]:
        """What was decided at creation: ``Config``, ``HostConfig``, ``Mounts`` and so on."""
        return self.row.data

    @property
    def short_id(self) -> str:
        """The first twelve digits."""
        return self.row.id[:12]


OnWarning = Callable[[str], None]
