"""Makes a definition that others wrote into one that runs here: the same results by steps of our kind.

A context is read in place and never written to, so where it is used as a tree it is copied first; file
operations that go on from one result twice become one operation each; a repository gets its transport.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from builder.llb.definition import Definition, Edge, Vertex, VertexMeta
from builder.llb.ops import (
    EMPTY,
    ChownOpt,
    Copy,
    ExecOp,
    FileAction,
    FileOp,
    MkDir,
    MkFile,
    Rm,
    SourceOp,
    Symlink,
    UserOpt,
)
from builder.oci.digest import Digest


def runnable(definition: Definition) -> Definition:
    """The definition that gives the same head; unchanged vertices keep their digests."""
    return _Rewriting(definition).run()


class _Rewriting:
    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._made: dict[Digest, Vertex] = {}
        self._edges: dict[Edge, Edge] = {}
        self._used: dict[Digest, set[int]] = {}
        heads = (definition.head,) if definition.head is not None else ()
        for edge in (*heads, *(edge for vertex in definition.vertices for edge in vertex.inputs)):
            self._used.setdefault(edge.digest, set()).add(edge.index)

    def run(self) -> Definition:
        head = self._definition.head
        if head is None:
            return self._definition
        for vertex in self._definition.vertices:
            self._vertex(vertex)
        return Definition.of(self._made, self._tree(self._edge(head)))

    def _edge(self, edge: Edge) -> Edge:
        return self._edges.get(edge, edge)

    def _put(self, vertex: Vertex) -> Edge:
        self._made.setdefault(vertex.digest, vertex)
        return Edge(vertex.digest)

    def _tree(self, edge: Edge) -> Edge:
        """``edge`` as a tree that can be built on: of a context, a copy."""
        source = self._made[edge.digest]
        if not _is_local(source):
            return edge
        copy = Copy(src="/", dest="/", dir_contents=True, create_dest_path=True)
        action = FileAction(action=copy, secondary=0, output=0)
        return self._put(
            Vertex(op=FileOp(actions=(action,)), inputs=(edge,), meta=VertexMeta(name="copy files"))
        )

    def _vertex(self, vertex: Vertex) -> None:
        inputs = tuple(map(self._edge, vertex.inputs))
        op = vertex.op
        match op:
            case SourceOp():
                op = _with_transport(op)
            case ExecOp():
                op = _with_absolute_mounts(op)
            case FileOp():
                inputs = tuple(
                    self._tree(edge) if any(item.input == position for item in op.actions) else edge
                    for position, edge in enumerate(inputs)
                )
                if _branches(op, len(inputs)):
                    self._split(vertex, op, inputs)
                    return
            case _:
                inputs = tuple(map(self._tree, inputs))
        if op is not vertex.op or inputs != vertex.inputs:
            changed = replace(vertex, op=op, inputs=inputs)
            self._edges.update(
                (Edge(vertex.digest, index), Edge(changed.digest, index))
                for index in self._used[vertex.digest]
            )
            vertex = changed
        self._made.setdefault(vertex.digest, vertex)

    def _split(self, vertex: Vertex, op: FileOp, inputs: tuple[Edge, ...]) -> None:
        """One vertex for each action; outputs are those of their actions."""
        results: list[Edge] = []
        for item in op.actions:
            own: list[Edge] = []

            def place(position: int, own: list[Edge] = own) -> int:
                if position < 0:
                    return EMPTY
                count = len(inputs)
                edge = inputs[position] if position < count else results[position - count]
                if edge not in own:
                    own.append(edge)
                return own.index(edge)

            action = item.action if isinstance(item.action, Rm) else _moved_owner(item.action, place)
            one = FileAction(
                action=action, input=place(item.input), secondary=place(item.secondary), output=0
            )
            made = replace(vertex, op=FileOp(actions=(one,)), inputs=tuple(own))
            results.append(self._put(made))
            if item.output >= 0:
                self._edges[Edge(vertex.digest, item.output)] = results[-1]


def _is_local(vertex: Vertex) -> bool:
    return isinstance(vertex.op, SourceOp) and vertex.op.identifier.startswith("local://")


def _branches(op: FileOp, count: int) -> bool:
    """Whether a result is built on twice, or is both an output and built on."""
    used: set[int] = set()
    for item in op.actions:
        index = item.input - count
        if index >= 0 and (index in used or op.actions[index].output != EMPTY):
            return True
        if index >= 0:
            used.add(index)
    return False


def _moved_owner(
    action: Copy | MkFile | MkDir | Symlink, place: Callable[[int], int]
) -> Copy | MkFile | MkDir | Symlink:
    def moved(who: UserOpt | None) -> UserOpt | None:
        return who if who is None or not who.name else replace(who, input=place(who.input))

    if action.owner is None:
        return action
    return replace(action, owner=ChownOpt(user=moved(action.owner.user), group=moved(action.owner.group)))


def _with_transport(op: SourceOp) -> SourceOp:
    if not op.identifier.startswith("git://") or op.attr("git.fullurl"):
        return op
    url = "https://" + op.identifier.removeprefix("git://").partition("#")[0]
    return replace(op, attrs=(*op.attrs, ("git.fullurl", url)))


def _with_absolute_mounts(op: ExecOp) -> ExecOp:
    if all(mount.dest.startswith("/") for mount in op.mounts):
        return op
    return replace(op, mounts=tuple(replace(mount, dest="/" + mount.dest.lstrip("/")) for mount in op.mounts))
