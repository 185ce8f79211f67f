"""What a solve needs from outside, as protocols: sources, processes and networks are handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.cache.tree import SourceTree
from builder.llb.definition import Vertex
from builder.llb.ops import Copy, SourceOp
from builder.oci.platform import Platform
from builder.solver.places import Place
from builder.solver.progress import OnEvent
from builder.solver.reporter import Reporter
from builder.solver.types import Cancel, Secret, SshAgent
from runtime.hosts import Dns
from runtime.spec import ContainerSpec, ExitStatus, Limits, Network

if TYPE_CHECKING:
    from builder.cache.plannedtree import PlannedTree
    from builder.cache.tree import View
    from builder.solver.planning import Nodes
    from builder.solver.remote import RemoteResults
    from builder.solver.types import FailedStep

    Direct = Callable[[str | None, View, PlannedTree, str], str]
    """Packs a planned tree on a committed snapshot with the view's tree; gives a snapshot, described so."""


class Sources(Protocol):
    """Resolves source operations."""

    def tree(self, op: SourceOp) -> SourceTree | None:
        """The tree of a local source, read in place; None when the source is not local."""
        ...

    def select(
        self, op: SourceOp, copies: tuple[Copy, ...], on_read: Callable[[int], None] | None = None
    ) -> str:
        """Content digest of what ``copies`` select from a local source; ``on_read`` is told of bytes as they
        are read. Raises PathNotFound.
        """
        ...

    def changed(self, op: SourceOp) -> tuple[str, ...]:
        """Files of a local source that were read and are not what they were when they were keyed (SLO-06)."""
        ...

    def key(self, op: SourceOp, platform: Platform | None, reporter: Reporter) -> str:
        """The cache key of a source that is not local; resolves names to immutable identities."""
        ...

    def pin(self, op: SourceOp) -> str:
        """What a git or http source was found to be, as ``algorithm:hex``; "" for others."""
        ...

    def base_digests(self, op: SourceOp, platform: Platform | None, reporter: Reporter) -> tuple[str, ...]:
        """The names of a source in exported caches (CKY-08); () for a local one."""
        ...

    def fetch(
        self,
        op: SourceOp,
        platform: Platform | None,
        reporter: Reporter,
        cancel: Cancel,
        *,
        lazy: bool = False,
    ) -> str | None:
        """The committed snapshot of a source that is not local; None = empty.

        ``lazy`` says that no step reads its tree: an image need not be unpacked (SLV-09).
        """
        ...


class RunHandle(Protocol):
    """A started process."""

    def wait(self) -> ExitStatus:
        """Block until it ended; raises ContainerError when it could not be started."""
        ...

    def kill(self) -> None:
        """SIGKILL to the whole container."""
        ...


class Executor(Protocol):
    """Starts containers."""

    def run(self, spec: ContainerSpec, *, stdin: int | None, stdout: int, stderr: int) -> RunHandle:
        """Start ``spec``; the fds stay the caller's."""
        ...


class Networks(Protocol):
    """Networks for RUN steps."""

    def lease(self, reporter: Reporter, *, reusable: bool = True) -> AbstractContextManager[Network]:
        """A network namespace with a way out, or the host's where none can be made.

        ``reusable``: the step cannot change its network, so a later step may have it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveEnv:
    """Everything one solve works with."""

    store: Store
    hold: Hold
    sources: Sources
    executor: Callable[[], Executor]
    networks: Callable[[], Networks]
    emit: OnEvent
    cancel: Cancel
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[SshAgent, ...] = ()
    limits: Limits = Limits()
    shm_size_bytes: int = 0
    allow: frozenset[str] = frozenset()
    device_aliases: Mapping[str, str] = field(default_factory=dict)
    cdi_dirs: tuple[str, ...] = ()
    search_path: str = ""
    """Where emulators for other processors are looked for."""
    dns: Dns = field(default_factory=Dns)
    """What ``/etc/resolv.conf`` of RUN steps says in the place of the host's; never part of a key."""
    max_parallelism: int = 0
    """How many steps run at once; 0 = four per CPU, and at least 16."""
    build_id: str = ""
    """What the build is called in the history, whose log others may follow; "" = it has none."""
    nesting: int = 0
    """How many builds this one is nested in."""
    keep_going: bool = False
    """A failure stops only what needs the step."""
    retries: int = 0
    """How often a RUN step or a source is tried again."""
    step_timeout_s: float = 0
    """How long the command of a RUN step may take; 0 = for ever."""
    durations: Callable[[], Mapping[str, float]] | None = None
    """How many seconds steps took earlier, by name; asked when there is a choice what to run first."""
    place: Place = field(default_factory=Place)
    on_usage: Callable[[Vertex, tuple[tuple[str, int], ...]], None] | None = None
    """Told what the container of a RUN step used up (``runtime.groupusage``), each time one ends."""
    on_failed: Callable[[FailedStep], None] | None = None
    """Given the tree of a RUN step that failed for good; returns once nobody needs it any more."""
    check_space: Callable[[], None] | None = None
    """Called around every step that runs; raises StoreFull when the build cache exceeds its limits."""
    remote: RemoteResults | None = None
    """Caches of other machines."""
    need_heads: bool = True
    """False when nobody will look at the trees of the results."""
    direct: Direct | None = None
    """Makes the layer of a file operation whose tree nobody reads, without writing the tree."""
    on_planned: Callable[[Nodes], None] | None = None
    """Told every step with its key once all are known; what becomes of the steps shows in the same values."""
    on_snapshot: Callable[[Vertex, str], None] | None = None
    """Told every snapshot that the head's own chain of layers is made of, as soon as it exists."""
