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
from builder.solver.progress import OnEvent
from builder.solver.reporter import Reporter
from builder.solver.types import Cancel, Secret, SshAgent
from runtime.spec import ContainerSpec, ExitStatus, Limits, Network

if TYPE_CHECKING:
    from builder.solver.planning import Nodes


class Sources(Protocol):
    """Resolves source operations."""

    def tree(self, op: SourceOp) -> SourceTree | None:
        """The tree of a local source, read in place; None when the source is not local."""
        ...

    def select(self, op: SourceOp, copies: tuple[Copy, ...]) -> str:
        """Content digest of what ``copies`` select from a local source. Raises PathNotFound."""
        ...

    def changed(self, op: SourceOp) -> tuple[str, ...]:
        """Files of a local source that were read and are not what they were when they were keyed (SLO-06)."""
        ...

    def key(self, op: SourceOp, platform: Platform | None, reporter: Reporter) -> str:
        """The cache key of a source that is not local; resolves names to immutable identities."""
        ...

    def fetch(
        self, op: SourceOp, platform: Platform | None, reporter: Reporter, cancel: Cancel
    ) -> str | None:
        """The committed snapshot of a source that is not local; None = empty."""
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
    max_parallelism: int = 0
    keep_going: bool = False
    on_planned: Callable[[Nodes], None] | None = None
    """Told every step with its key once all are known; what becomes of the steps shows in the same values."""
    on_snapshot: Callable[[Vertex, str], None] | None = None
    """Told every snapshot that the head's own chain of layers is made of, as soon as it exists."""
