"""BuildKit's protobuf ``Definition`` read back (DIG-01…07). Nothing in it is trusted (OPM-12, OPM-13).

Only what the last op reaches is looked at. Every fault is a GraphError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from builder.errors import GraphError
from builder.llb import wire_caps
from builder.llb import wire_schema as schema
from builder.llb.definition import (
    Definition,
    Edge,
    LinuxResources,
    SourceRange,
    Vertex,
    VertexMeta,
)
from builder.llb.ops import BuildOp, DiffOp, ExecOp, MergeOp, Op, SourceOp, output_count
from builder.llb.wire_encode import COMMAND_KEY, NAME_KEY
from builder.llb.wire_ops import read_op
from builder.oci.digest import Digest
from builder.oci.platform import Platform, host_platform, normalize

MAX_BYTES = 64 << 20
MAX_OPS = 100_000
_MAX_NAME = 1000
_MAX_NAMES = 20
_MAX_LINE = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """A file that vertices come from: what its lines are is what ``SourceRange`` counts."""

    filename: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A definition and the texts that it was made from."""

    definition: Definition
    files: tuple[SourceText, ...] = ()


def parse_definition(data: bytes) -> Any:
    """The ``Definition`` message in ``data``. Raises GraphError."""
    if len(data) > MAX_BYTES:
        raise GraphError(f"a definition of {len(data)} bytes is too large", hint=f"at most {MAX_BYTES}")
    message = _parse("Definition", data, "not an LLB definition")
    if len(getattr(message, "def")) > MAX_OPS:
        raise GraphError(f"a definition of {len(getattr(message, 'def'))} ops is too large")
    return message


def parse_ops(message: Any) -> dict[str, Any]:
    """The ``Op`` messages of a definition by digest, in its order; the last one is the sentinel."""
    found: dict[str, Any] = {}
    for data in getattr(message, "def"):
        digest = str(Digest.of(data))
        found.pop(digest, None)
        found[digest] = _parse("Op", data, "failed to parse llb proto op")
    return found


def decode(data: bytes, platform: Platform | None = None) -> Loaded:
    """The definition in ``data``, normalised (DIG-04): ``platform`` (this machine's) is that of sources and
    commands that name none. Raises GraphError.
    """
    message = parse_definition(data)
    ops = parse_ops(message)
    if not ops:
        raise GraphError("invalid empty definition")
    if len(ops) < 2:
        raise GraphError(f"invalid LLB with {len(ops)} vertexes")
    _, sentinel = ops.popitem()
    if not sentinel.inputs:
        raise GraphError("invalid LLB with no inputs on last vertex")
    return _Reader(message, ops, platform or host_platform()).read(sentinel.inputs[0])


def _parse(kind: str, data: bytes, problem: str) -> Any:
    from google.protobuf.message import DecodeError

    message = schema.messages()[kind]()
    try:
        message.ParseFromString(data)
    except (DecodeError, UnicodeError) as error:
        raise GraphError(
            f"{problem}: {error}", hint="a definition in BuildKit's protobuf form is wanted"
        ) from error
    return message


class _Reader:
    def __init__(self, message: Any, ops: dict[str, Any], platform: Platform) -> None:
        self._message = message
        self._ops = ops
        self._platform = platform
        self._made: dict[str, Vertex] = {}

    def read(self, head: Any) -> Loaded:
        stack: list[str] = [head.digest]
        while stack:
            digest = stack[-1]
            if digest in self._made:
                stack.pop()
                continue
            op = self._ops.get(digest)
            if op is None:
                raise GraphError(f"invalid missing input digest {digest[:100]}")
            missing = [item.digest for item in op.inputs if item.digest not in self._made]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            self._made[digest] = self._vertex(digest, op)
        vertices = {vertex.digest: vertex for vertex in self._made.values()}
        files = tuple(
            SourceText(filename=info.filename, data=info.data) for info in self._message.Source.infos
        )
        return Loaded(definition=Definition.of(vertices, self._edge(0, head)), files=files)

    def _edge(self, position: int, item: Any) -> Edge:
        vertex = self._made[item.digest]
        if not 0 <= item.index < output_count(vertex.op):
            raise GraphError(f"invalid input {position} output index {item.index}")
        return Edge(vertex.digest, item.index)

    def _vertex(self, digest: str, message: Any) -> Vertex:
        op = read_op(message)
        inputs = tuple(self._edge(position, item) for position, item in enumerate(message.inputs))
        return Vertex(
            op=op,
            inputs=inputs,
            platform=self._platform_of(op, message),
            constraints=tuple(message.constraints.filter),
            meta=self._meta(digest, op, message),
        )

    def _platform_of(self, op: Op, message: Any) -> Platform | None:
        """DIG-04; a directory, a repository and a URL are the same for every platform unless it is said."""
        if not isinstance(op, (SourceOp, ExecOp, BuildOp)):
            return None
        if not message.HasField("platform"):
            has_one = isinstance(op, ExecOp) or (
                isinstance(op, SourceOp) and op.identifier.startswith(("docker-image", "oci-layout"))
            )
            return self._platform if has_one else None
        said = message.platform
        return normalize(
            Platform(said.OS, said.Architecture, said.Variant, said.OSVersion, tuple(said.OSFeatures))
        )

    def _meta(self, digest: str, op: Op, message: Any) -> VertexMeta:
        fallback = self._name(op, message)
        if digest not in self._message.metadata:
            return VertexMeta(fallback=fallback, source=self._source(digest))
        said = self._message.metadata[digest]
        for name, wanted in sorted(said.caps.items()):
            if wanted and name not in wire_caps.KNOWN:
                raise GraphError(
                    f"{name[:100]} is not supported: unknown capability",
                    hint="the definition was made for a newer builder",
                    code="unknown-capability",
                )
        about = dict(said.description)
        group = said.progress_group
        return VertexMeta(
            name=about.pop(NAME_KEY, ""),
            command=about.pop(COMMAND_KEY, ""),
            fallback=fallback,
            description=tuple(sorted(about.items())),
            ignore_cache=said.ignore_cache,
            export_cache=not said.HasField("export_cache") or said.export_cache.Value,
            progress_group=group.id,
            progress_group_name=group.name if group.name != group.id else "",
            progress_weak=group.weak,
            source=self._source(digest),
            resources=_resources(said) if said.HasField("linux_resources") else None,
        )

    def _name(self, op: Op, message: Any) -> str:
        """DIG-06 for what is named after its inputs; empty where the op itself says enough."""

        def name(position: int) -> str:
            return self._made[message.inputs[position].digest].name[:_MAX_NAME]

        match op:
            case MergeOp():
                names = [name(position) for position in op.inputs[:_MAX_NAMES]]
                more = ", ..." if len(op.inputs) > _MAX_NAMES else ""
                text = f"merge ({', '.join(names)}{more})"
            case DiffOp():
                sides = ["scratch" if side < 0 else f"({name(side)})" for side in (op.lower, op.upper)]
                text = f"diff {' -> '.join(sides)}"
            case _:
                return ""
        return text[:_MAX_NAME]

    def _source(self, digest: str) -> SourceRange | None:
        """The lines of the first place that a vertex comes from."""
        source = self._message.Source
        if digest not in source.locations:
            return None
        for place in source.locations[digest].locations:
            if 0 <= place.sourceIndex < len(source.infos) and place.ranges:
                first, last = place.ranges[0].start.line, place.ranges[-1].end.line
                if 0 < first <= last <= _MAX_LINE:
                    name = source.infos[place.sourceIndex].filename
                    return SourceRange(filename=name, start=first, end=last)
        return None


def _resources(said: Any) -> LinuxResources:
    limits = said.linux_resources
    return LinuxResources(
        memory_bytes=limits.memory,
        memory_swap_bytes=limits.memorySwap,
        cpu_shares=limits.cpuShares,
        cpu_period=limits.cpuPeriod,
        cpu_quota=limits.cpuQuota,
        cpuset_cpus=limits.cpusetCpus,
        cpuset_mems=limits.cpusetMems,
    )
