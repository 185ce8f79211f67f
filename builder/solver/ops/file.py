"""File operations as a step: snapshots in, one committed snapshot per output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from builder.cache.tree import SourceTree, TreeError, View
from builder.cache.treewriter import Writer
from builder.cache.types import Active
from builder.errors import PathNotFound
from builder.llb.definition import Vertex
from builder.llb.ops import EMPTY, FileOp, SourceOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.ops.fileop import branches, run_file_op
from builder.solver.planning import Nodes
from builder.solver.reporter import Reporter
from builder.solver.types import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.protocols import TreeSink


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
        planned = _planned(vertex, parent, trees, env, stack, reporter)
        if planned is not None:
            return Result((planned,))
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
            if error.selected:
                error.name_ref(str(vertex.digest))
            raise
        finally:
            made.discard()
    return Result(outputs)


def _planned(
    vertex: Vertex,
    parent: Callable[[int], str | None],
    trees: Sequence[SourceTree | None],
    env: SolveEnv,
    stack: ExitStack,
    reporter: Reporter,
) -> str | None:
    """The snapshot of a result that is only packed, never written; None when it has to be written."""
    op = vertex.op
    assert isinstance(op, FileOp)
    outputs = sum(item.output != EMPTY for item in op.actions)
    if env.direct is None or outputs != 1 or branches(op, len(vertex.inputs)):
        return None
    from builder.cache.layer import BECAME_SHORTER
    from builder.cache.plannedtree import NotPlanned, PlannedTree

    bases: list[tuple[str | None, View]] = []

    def start(position: int) -> PlannedTree:
        snapshot = parent(position)
        layers = env.store.snapshots.layers(snapshot) if snapshot is not None else ()
        base = stack.enter_context(View(layers, userxattr=env.store.snapshots.userxattr))
        bases.append((snapshot, base))
        return PlannedTree(base if layers else None)

    remarks: list[str] = []
    try:
        (tree,) = run_file_op(op, trees, start, check=env.cancel.check, remark=remarks.append)
        if len(bases) != 1 or not isinstance(tree, PlannedTree):
            return None
        snapshot = env.direct(*bases[0], tree, vertex.name)
    except NotPlanned:
        return None
    except TreeError as error:
        if error.code != BECAME_SHORTER:
            raise
        return None
    except PathNotFound as error:
        if error.selected:
            error.name_ref(str(vertex.digest))
        raise
    for text in remarks:
        reporter.say(f"{text}\n")
    env.hold.snapshot(snapshot)
    return snapshot


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

    def commit(self, done: TreeSink) -> str:
        """The snapshot of what was written, and of nothing that is written later."""
        known = self._committed.get(id(done))
        if known is None:
            known = self._store.commit(self._active[id(done)], description=self._description).id
            del self._active[id(done)]
            self._committed[id(done)] = known
            self._env.hold.snapshot(known)
        return known

    def freeze(self, writer: TreeSink) -> None:
        self.commit(writer)

    def tree(self, frozen: TreeSink) -> SourceTree:
        layers = self._store.layers(self._committed[id(frozen)])
        return self._stack.enter_context(View(layers, userxattr=self._store.userxattr))

    def writer(self, frozen: TreeSink) -> TreeSink:
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
