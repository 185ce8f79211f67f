"""The graph while it grows: vertices that have no digest yet.

What the build context has to give is known only when every instruction has been read, so its vertex, and with
it the digest of everything built on it, can only be made at the end.
"""

from __future__ import annotations

from builder.llb.definition import Definition, Edge, Vertex, VertexMeta
from builder.llb.ops import EMPTY, Action, FileAction, FileOp, Op, SourceOp
from builder.oci.digest import Digest
from builder.oci.platform import Platform

NO_META = VertexMeta()


class Draft:
    """A vertex to be; ``op`` may be set late. Every draft stands for output 0 of its op."""

    __slots__ = ("inputs", "meta", "op", "platform")

    def __init__(
        self,
        op: Op | None,
        inputs: tuple[Draft, ...] = (),
        meta: VertexMeta = NO_META,
        platform: Platform | None = None,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.meta = meta
        self.platform = platform


Tree = Draft | None
"""A file tree; None is the empty one."""


def marshal(head: Tree) -> Definition:
    """The definition of ``head``: only what it reaches, inputs first."""
    if head is None:
        return Definition()
    made: dict[int, Edge] = {}
    vertices: dict[Digest, Vertex] = {}
    stack = [head]
    while stack:
        draft = stack[-1]
        missing = [item for item in draft.inputs if id(item) not in made]
        if missing:
            stack.extend(reversed(missing))
            continue
        stack.pop()
        if id(draft) in made:
            continue
        assert draft.op is not None, "a draft was left unfinished"
        edges = tuple(made[id(item)] for item in draft.inputs)
        vertex = Vertex(op=draft.op, inputs=edges, platform=draft.platform, meta=draft.meta)
        vertices.setdefault(vertex.digest, vertex)
        made[id(draft)] = Edge(vertex.digest)
    return Definition(vertices=tuple(vertices.values()), head=made[id(head)])


class Inputs:
    """The inputs of one op, each named once; gives positions."""

    def __init__(self) -> None:
        self._drafts: list[Draft] = []

    def position(self, tree: Tree) -> int:
        """Where ``tree`` stands among the inputs; EMPTY for the empty tree."""
        if tree is None:
            return EMPTY
        for index, draft in enumerate(self._drafts):
            if draft is tree or _same_source(draft, tree):
                return index
        self._drafts.append(tree)
        return len(self._drafts) - 1

    def tuple(self) -> tuple[Draft, ...]:
        """The inputs in order."""
        return tuple(self._drafts)


def _same_source(one: Draft, other: Draft) -> bool:
    """Two stages may start from the same image, each with a draft of its own."""
    if one.op is None or one.inputs or other.inputs or not isinstance(one.op, SourceOp):
        return False
    return one.op == other.op and one.platform == other.platform


def file_op(
    onto: Tree, actions: list[tuple[Action, Tree]], inputs: Inputs | None = None
) -> tuple[FileOp, Inputs]:
    """A file op that applies ``actions`` one after the other, each with its secondary tree."""
    inputs = inputs or Inputs()
    current = inputs.position(onto)
    positions = [inputs.position(tree) for _, tree in actions]
    count = len(inputs.tuple())
    last = len(actions) - 1
    made: list[FileAction] = []
    for index, ((action, _), secondary) in enumerate(zip(actions, positions, strict=True)):
        made.append(
            FileAction(
                action=action, input=current, secondary=secondary, output=0 if index == last else EMPTY
            )
        )
        current = count + index
    return FileOp(actions=tuple(made)), inputs
