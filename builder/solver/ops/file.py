"""File operations as a step: snapshots in, one committed snapshot per output."""

from __future__ import annotations

from contextlib import ExitStack

from builder.cache.tree import SourceTree, View
from builder.cache.treewriter import Writer
from builder.cache.types import Active
from builder.errors import PathNotFound
from builder.llb.definition import Vertex
from builder.llb.ops import FileOp, SourceOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.ops.fileop import run_file_op
from builder.solver.planning import Nodes
from builder.solver.types import Result


def run_file(vertex: Vertex, nodes: Nodes, results: dict[Digest, Result], env: SolveEnv) -> Result:
    """Carry out the actions of a file op. Raises PathNotFound, SolveError, StoreError."""
    op = vertex.op
    assert isinstance(op, FileOp)
    made: dict[int, Active] = {}

    def writer(position: int) -> Writer:
        parent = None
        if position >= 0:
            edge = vertex.inputs[position]
            parent = results[edge.digest].outputs[edge.index]
        active = env.store.snapshots.prepare(parent, description=vertex.name)
        new = Writer(active.upper, active.lowers, userxattr=active.userxattr)
        stack.enter_context(new)
        made[id(new)] = active
        return new

    with ExitStack() as stack:
        trees = [
            _tree(vertex, position, nodes, results, env, stack) for position in range(len(vertex.inputs))
        ]
        try:
            writers = run_file_op(op, trees, writer, check=env.cancel.check)
            outputs = tuple(
                env.store.snapshots.commit(made.pop(id(done)), description=vertex.name).id for done in writers
            )
        except PathNotFound as error:
            error.name_ref(str(vertex.digest))
            raise
        finally:
            for active in made.values():
                env.store.snapshots.discard(active)
    return Result(outputs)


def _tree(
    vertex: Vertex,
    position: int,
    nodes: Nodes,
    results: dict[Digest, Result],
    env: SolveEnv,
    stack: ExitStack,
) -> SourceTree | None:
    edge = vertex.inputs[position]
    node = nodes[edge.digest]
    if node.local:
        assert isinstance(node.vertex.op, SourceOp)
        return env.sources.tree(node.vertex.op)
    snapshot = results[edge.digest].outputs[edge.index]
    if snapshot is None:
        return None
    return stack.enter_context(
        View(env.store.snapshots.layers(snapshot), userxattr=env.store.snapshots.userxattr)
    )
