"""File operations as a step: snapshots in, one committed snapshot per output."""

from __future__ import annotations

from contextlib import ExitStack

from builder.cache.tree import SourceTree, View
from builder.cache.treewriter import Writer
from builder.cache.types import Active
from builder.errors import PathNotFound
from builder.llb.definition import Vertex
from builder.llb.ops import Copy, FileOp, SourceOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.ops.fileop import run_file_op
from builder.solver.planning import Nodes
from builder.solver.reporter import Reporter
from builder.solver.types import Result


def run_file(
    vertex: Vertex, nodes: Nodes, results: dict[Digest, Result], env: SolveEnv, reporter: Reporter
) -> Result:
    """Carry out the actions of a file op. Raises PathNotFound, SolveError, StoreError."""
    op = vertex.op
    assert isinstance(op, FileOp)

    def parent(position: int) -> str | None:
        if position < 0:
            return None
        edge = vertex.inputs[position]
        return results[edge.digest].outputs[edge.index]

    with ExitStack() as stack:
        trees = [
            _tree(vertex, position, nodes, results, env, stack) for position in range(len(vertex.inputs))
        ]
        made = _Snapshots(env, vertex.name, stack)
        try:
            writers = run_file_op(
                op,
                trees,
                lambda at: made.start(parent(at)),
                check=env.cancel.check,
                forks=made,
                remark=lambda text: reporter.say(f"{text}\n"),
            )
            outputs = tuple(made.commit(done) for done in writers)
        except PathNotFound as error:
            if any(isinstance(item.action, Copy) for item in op.actions):
                error.name_ref(str(vertex.digest))
            raise
        finally:
            made.discard()
    return Result(outputs)


class _Snapshots:
    """The trees that a file op makes: active ones by their writers, and what became of those."""

    def __init__(self, env: SolveEnv, description: str, stack: ExitStack) -> None:
        self._env = env
        self._store = env.store.snapshots
        self._description = description
        self._stack = stack
        self._active: dict[int, Active] = {}
        self._committed: dict[int, str] = {}

    def start(self, parent: str | None) -> Writer:
        """A writer on a new tree."""
        active = self._store.prepare(parent, description=self._description)
        made = Writer(active.upper, active.lowers, userxattr=active.userxattr)
        self._stack.enter_context(made)
        self._active[id(made)] = active
        return made

    def commit(self, done: Writer) -> str:
        """The snapshot of what was written, and of nothing that is written later."""
        known = self._committed.get(id(done))
        if known is None:
            known = self._store.commit(self._active[id(done)], description=self._description).id
            del self._active[id(done)]
            self._committed[id(done)] = known
            self._env.hold.snapshot(known)
        return known

    def freeze(self, writer: Writer) -> None:
        self.commit(writer)

    def tree(self, frozen: Writer) -> SourceTree:
        layers = self._store.layers(self._committed[id(frozen)])
        return self._stack.enter_context(View(layers, userxattr=self._store.userxattr))

    def writer(self, frozen: Writer) -> Writer:
        return self.start(self._committed[id(frozen)])

    def discard(self) -> None:
        """Drop what was not committed."""
        for active in self._active.values():
            self._store.discard(active)


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
