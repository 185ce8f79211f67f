"""The operations of a build graph: BuildKit's LLB model as values (build-engine rows OPM-01…11).

An op holds no host path, no time and no random id, so equal steps are equal values everywhere. Inputs are not
part of an op: a vertex (``llb.definition``) holds them, and an op names them by their position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pairs = tuple[tuple[str, str], ...]
EMPTY = -1
"""An input position that means: nothing, an empty tree."""
REQUIRED = ",required"
"""What the text of a device ends with that the step cannot do without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOp:
    """Something from outside: ``docker-image://``, ``oci-layout://``, ``local://``, ``git://``, ``https://``."""

    identifier: str
    attrs: Pairs = ()

    def attr(self, key: str, default: str = "") -> str:
        """One attribute's value."""
        for name, value in self.attrs:
            if name == key:
                return value
        return default


MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]
ContentCache = Literal["default", "on", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mount of an exec op; ``input`` and ``output`` are positions, -1 = empty / none (OPM-04).

    ``id`` names the secret, ssh agent or cache; ``mode`` 0 means the type's default. ``result_id`` and
    ``content_cache`` are carried for other builders and decide nothing here.
    """

    dest: str
    type: MountType = "bind"
    input: int = EMPTY
    selector: str = ""
    output: int = EMPTY
    readonly: bool = False
    id: str = ""
    sharing: Sharing = "shared"
    size_bytes: int = 0
    uid: int = 0
    gid: int = 0
    mode: int = 0
    optional: bool = False
    result_id: str = ""
    content_cache: ContentCache = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretEnv:
    """A secret given to a command as an environment variable."""

    id: str
    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """A resource limit, ``name`` as in RLIMIT_<NAME> lower-cased; -1 = unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecMeta:
    """What an exec op runs; ``env`` entries are ``K=V``. Mount points that had to be made are always removed
    with their parents, whatever ``remove_mount_stubs_recursive`` says.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    proxy_env: Pairs = ()
    extra_hosts: Pairs = ()
    hostname: str = ""
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    valid_exit_codes: tuple[int, ...] = (0,)
    remove_mount_stubs_recursive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOp:
    """Run a command in a tree; mount 0 is the root (CMP-02)."""

    meta: ExecMeta
    mounts: tuple[Mount, ...]
    network: Literal["sandbox", "host", "none"] = "sandbox"
    security: Literal["sandbox", "insecure"] = "sandbox"
    secret_env: tuple[SecretEnv, ...] = ()
    devices: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """How many results the op has."""
        return 1 + max((mount.output for mount in self.mounts), default=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserOpt:
    """A user or group: by number, or by name looked up in the tree of ``input`` (an action position)."""

    name: str = ""
    id: int = 0
    input: int = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class ChownOpt:
    """New owner; None keeps (copy) or means 0 (mkdir, mkfile)."""

    user: UserOpt | None = None
    group: UserOpt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Copy paths from the secondary input (OPM-07, FIL-06…16); mode -1 keeps, timestamp -1 keeps."""

    src: str
    dest: str
    owner: ChownOpt | None = None
    mode: int = -1
    mode_str: str = ""
    follow_symlink: bool = False
    dir_contents: bool = False
    attempt_unpack: bool = False
    create_dest_path: bool = False
    allow_wildcard: bool = False
    allow_empty_wildcard: bool = False
    timestamp_ns: int = -1
    include_patterns: tuple[str, ...] = ()
    exclude_patterns: tuple[str, ...] = ()
    always_replace: bool = False
    required_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MkFile:
    """Create or truncate a file."""

    path: str
    data: bytes
    mode: int = 0o644
    owner: ChownOpt | None = None
    timestamp_ns: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MkDir:
    """Create a directory, with parents if asked."""

    path: str
    mode: int = 0o755
    make_parents: bool = False
    owner: ChownOpt | None = None
    timestamp_ns: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rm:
    """Remove a path and all below it."""

    path: str
    allow_not_found: bool = False
    allow_wildcard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink:
    """Create a symbolic link ``new_path`` that says ``old_path``."""

    old_path: str
    new_path: str
    owner: ChownOpt | None = None
    timestamp_ns: int = -1


Action = Copy | MkFile | MkDir | Rm | Symlink


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAction:
    """One action. Positions below the op's input count name inputs.

    Input count + i names action i's result.
    """

    action: Action
    input: int = EMPTY
    secondary: int = EMPTY
    output: int = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOp:
    """File operations without a process (OPM-06)."""

    actions: tuple[FileAction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOp:
    """Inputs laid over each other, later ones win; ``inputs`` are positions."""

    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOp:
    """What upper changed relative to lower; positions, -1 = scratch."""

    lower: int
    upper: int


LLB_BUILDER = -1
"""The builder of a ``BuildOp`` that solves a definition."""
DEFINITION_INPUT = "buildkit.llb.definition"
"""The input of a ``BuildOp`` that holds a definition, and its file unless an attribute says another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOp:
    """A build within the build: the definition is a file of an input (OPM-10).

    ``inputs`` gives positions by name, sorted; ``definition`` is a nested definition in wire form.
    """

    builder: int = LLB_BUILDER
    inputs: tuple[tuple[str, int], ...] = ()
    definition: bytes = b""
    attrs: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PassthroughOp:
    """Makes all inputs and gives some of them on: ``outputs`` are their positions."""

    id: str
    outputs: tuple[int, ...]


Op = SourceOp | ExecOp | FileOp | MergeOp | DiffOp | BuildOp | PassthroughOp


def output_count(op: Op) -> int:
    """How many results an op has."""
    match op:
        case ExecOp():
            return op.outputs
        case FileOp():
            return 1 + max((item.output for item in op.actions), default=EMPTY)
        case PassthroughOp():
            return len(op.outputs)
        case _:
            return 1
