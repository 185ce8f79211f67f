"""Results from other machines, as the solver sees them: matched after planning, fetched when needed.

A matched step has ``Node.remote`` and counts as done; its layers stay where they are until a step that runs,
or an export, needs its tree (SLV-09). When they cannot be had, the step runs as if nobody had known it
(SLV-06).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from builder.cache.types import CacheRecord
from builder.llb.definition import Definition
from builder.llb.ops import ExecOp, SourceOp
from builder.oci.digest import Digest
from builder.solver.planning import Node, Nodes, needed

if TYPE_CHECKING:
    from builder.solver.env import SolveEnv


class RemoteResults(Protocol):
    """The caches that a build imports."""

    def match(self, nodes: Nodes, env: SolveEnv) -> None:
        """Set ``remote`` of every node without a record that an import has a result for."""
        ...

    def late(
        self, node: Node, nodes: Nodes, snapshots: Mapping[int, str | None], env: SolveEnv
    ) -> CacheRecord | None:
        """A result for a step whose inputs are there (by position), found by their content and fetched."""
        ...

    def fetch(self, node: Node, nodes: Nodes, env: SolveEnv) -> CacheRecord | None:
        """Bring the result of a matched node here and put it on record; None when that fails."""
        ...

    def fill_mounts(self, ops: Iterable[ExecOp], env: SolveEnv) -> None:
        """Give cache mounts that are not here yet the content that an import has for them."""
        ...


def use_remote(definitions: Sequence[Definition], nodes: Nodes, env: SolveEnv, remote: RemoteResults) -> None:
    """Match what has no record, and fetch what would have to be there before the first step runs."""
    if not any(_is_open(nodes[digest]) for digest in _wanted(definitions, nodes)):
        return
    remote.match(nodes, env)
    failed = True
    while failed:
        failed = False
        for digest in _trees(definitions, nodes, need_heads=env.need_heads):
            node = nodes[digest]
            env.cancel.check()
            node.record = remote.fetch(node, nodes, env)
            if node.record is None:
                node.remote = None
                failed = True


def _wanted(definitions: Sequence[Definition], nodes: Nodes) -> set[Digest]:
    return set().union(*(needed(definition, nodes) for definition in definitions))


def _is_open(node: Node) -> bool:
    return (
        not isinstance(node.vertex.op, SourceOp)
        and node.record is None
        and node.remote is None
        and node.error is None
        and not node.blocked
    )


def _trees(definitions: Sequence[Definition], nodes: Nodes, *, need_heads: bool) -> list[Digest]:
    """Matched nodes whose trees are needed: heads, and inputs of steps that run."""
    found: dict[Digest, None] = {}
    if need_heads:
        found.update((definition.head.digest, None) for definition in definitions if definition.head)
    for digest in _wanted(definitions, nodes):
        if _is_open(nodes[digest]):
            found.update((edge.digest, None) for edge in nodes[digest].vertex.inputs)
    return [digest for digest in found if nodes[digest].remote is not None and nodes[digest].record is None]
