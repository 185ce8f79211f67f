"""Vertices and definitions: the immutable graph that a solver takes (rows DIG-01…07)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, assert_never

from builder.errors import GraphError
from builder.llb.ops import (
    EMPTY,
    Action,
    BuildOp,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    Op,
    Pairs,
    PassthroughOp,
    Rm,
    SourceOp,
)
from builder.oci.canonical import canonical_json
from builder.oci.digest import Digest
from builder.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Edge:
    """One result of a vertex."""

    digest: Digest
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRange:
    """Lines of a source file that a vertex comes from, 1-based and inclusive."""

    filename: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxResources:
    """Limits on a step's cgroup; 0 or empty = unset. Never part of identity (DIG-03)."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexMeta:
    """What people see and options that are not part of identity (DIG-03).

    ``fallback`` is shown when there is no ``name`` and the op alone does not give one; ``description`` holds
    what others say of the vertex; ``arguments`` are the variables of its environment that ARG sets.
    """

    name: str = ""
    fallback: str = ""
    command: str = ""
    arguments: tuple[str, ...] = ()
    description: Pairs = ()
    ignore_cache: bool = False
    export_cache: bool = True
    progress_group: str = ""
    progress_weak: bool = False
    progress_group_name: str = ""
    source: SourceRange | None = None
    resources: LinuxResources | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """An operation with its inputs; named by the digest of both. ``constraints`` choose between workers of
    which there is one here.
    """

    op: Op
    inputs: tuple[Edge, ...] = ()
    platform: Platform | None = None
    constraints: tuple[str, ...] = ()
    meta: VertexMeta = field(default=VertexMeta(), compare=False)
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        body = {
            "op": encode_op(self.op),
            "inputs": [[str(edge.digest), edge.index] for edge in self.inputs],
            "platform": str(self.platform) if self.platform else "",
        }
        if self.constraints:
            body["constraints"] = list(self.constraints)
        object.__setattr__(self, "digest", Digest.of(canonical_json(body)))

    @property
    def name(self) -> str:
        """What to call the vertex on a screen (DIG-06)."""
        return self.meta.name or self.meta.fallback or describe(self.op)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A graph: inputs come before their users, ``head`` is the wanted result; None = an empty tree."""

    vertices: tuple[Vertex, ...] = ()
    head: Edge | None = None

    def __post_init__(self) -> None:
        seen: set[Digest] = set()
        for vertex in self.vertices:
            for position, edge in enumerate(vertex.inputs):
                if edge.digest not in seen:
                    raise GraphError(f"invalid missing input digest {edge.digest}")
                if edge.index < 0:
                    raise GraphError(f"invalid input {position} output index {edge.index}")
            check_op(vertex.op, len(vertex.inputs))
            seen.add(vertex.digest)
        if self.head is not None and self.head.digest not in seen:
            raise GraphError(f"invalid missing input digest {self.head.digest}")

    def by_digest(self) -> dict[Digest, Vertex]:
        """Every vertex under its digest."""
        return {vertex.digest: vertex for vertex in self.vertices}

    @classmethod
    def of(cls, vertices: dict[Digest, Vertex], head: Edge | None) -> Definition:
        """Only what ``head`` reaches, in dependency order."""
        if head is None:
            return cls()
        order: list[Vertex] = []
        done: set[Digest] = set()
        stack: list[tuple[Digest, bool]] = [(head.digest, False)]
        while stack:
            digest, expanded = stack.pop()
            if digest in done:
                continue
            vertex = vertices.get(digest)
            if vertex is None:
                raise GraphError(f"invalid missing input digest {digest}")
            if expanded:
                done.add(digest)
                order.append(vertex)
                continue
            stack.append((digest, True))
            stack.extend((edge.digest, False) for edge in reversed(vertex.inputs) if edge.digest not in done)
        return cls(vertices=tuple(order), head=head)


def encode_op(op: Op) -> dict[str, Any]:
    """The op as JSON-ready data: its kind, and every field that differs from its default."""
    return {type(op).__name__: _encode(op)}


_FIELDS: dict[type, tuple[tuple[str, Any], ...]] = {}


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if not is_dataclass(value):
        raise TypeError(f"not part of an op: {value!r}")
    kind = type(value)
    known = _FIELDS.get(kind)
    if known is None:
        known = _FIELDS[kind] = tuple((f.name, f.default) for f in fields(value))
    out: dict[str, Any] = {}
    for name, default in known:
        item = getattr(value, name)
        if item != default:
            encoded = _encode(item)
            out[name] = {type(item).__name__: encoded} if name == "action" else encoded
    return out


def check_op(op: Op, inputs: int) -> None:
    """The rules of OPM-12; raises GraphError."""
    match op:
        case ExecOp():
            if not op.meta.args:
                raise GraphError("invalid exec op with no args")
            if not op.mounts:
                raise GraphError("invalid exec op with no mounts")
            if not any(mount.dest == "/" for mount in op.mounts):
                raise GraphError("invalid exec op with no rootfs")
            positions = [mount.input for mount in op.mounts]
        case FileOp():
            if not op.actions:
                raise GraphError("invalid file op with no actions")
            positions = []
            for index, action in enumerate(op.actions):
                limit = inputs + index
                named = (action.input, action.secondary, *_owner_inputs(action.action))
                if not all(EMPTY <= position < limit for position in named):
                    raise GraphError(f"invalid file op: action {index} names a later result")
        case MergeOp():
            positions = list(op.inputs)
        case DiffOp():
            positions = [op.lower, op.upper]
        case SourceOp():
            positions = []
        case BuildOp():
            positions = [position for _, position in op.inputs]
        case PassthroughOp():
            if not op.id:
                raise GraphError("invalid passthrough op with no id")
            if not op.outputs:
                raise GraphError("invalid passthrough op with no outputs")
            if min(op.outputs) < 0:
                raise GraphError(f"invalid input position {min(op.outputs)} of {inputs}")
            positions = list(op.outputs)
        case _:
            assert_never(op)
    least = 0 if isinstance(op, (MergeOp, BuildOp)) else EMPTY
    for position in positions:
        if not least <= position < inputs:
            raise GraphError(f"invalid input position {position} of {inputs}")


def _owner_inputs(action: Action) -> tuple[int, ...]:
    """The positions of the trees in which an action's owner is looked up by name."""
    owner = None if isinstance(action, Rm) else action.owner
    if owner is None:
        return ()
    return tuple(who.input for who in (owner.user, owner.group) if who is not None and who.name)


def describe(op: Op) -> str:
    """The display name of an op that has none of its own (DIG-06)."""
    match op:
        case SourceOp():
            return op.identifier
        case ExecOp():
            return " ".join(op.meta.args)
        case FileOp():
            return ", ".join(_describe_action(action.action) for action in op.actions)
        case MergeOp():
            return f"merge ({', '.join(str(i) for i in op.inputs)})"
        case DiffOp():
            return f"diff ({op.lower}) -> ({op.upper})"
        case BuildOp():
            return "build"
        case PassthroughOp():
            return f"passthrough {op.id}"


def _describe_action(action: Any) -> str:
    kind = type(action).__name__.lower()
    if kind == "copy":
        return f"copy {action.src} {action.dest}"
    if kind == "symlink":
        return f"symlink {action.new_path} -> {action.old_path}"
    return f"{kind} {action.path}"
