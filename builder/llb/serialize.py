"""A definition as JSON lines, one vertex each, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from builder.errors import GraphError
from builder.llb import ops
from builder.llb.definition import Definition, Edge, Vertex, VertexMeta, encode_op
from builder.oci.canonical import canonical_json
from builder.oci.digest import Digest
from builder.oci.platform import Platform

_OPS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (ops.SourceOp, ops.ExecOp, ops.FileOp, ops.MergeOp, ops.DiffOp)
}
_ACTIONS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (ops.Copy, ops.MkFile, ops.MkDir, ops.Rm, ops.Symlink)
}
_NESTED: dict[tuple[str, str], type[Any]] = {
    ("ExecOp", "meta"): ops.ExecMeta,
    ("ExecOp", "mounts"): ops.Mount,
    ("ExecOp", "secret_env"): ops.SecretEnv,
    ("ExecMeta", "ulimits"): ops.Ulimit,
    ("FileOp", "actions"): ops.FileAction,
    ("ChownOpt", "user"): ops.UserOpt,
    ("ChownOpt", "group"): ops.UserOpt,
    **{(action, "owner"): ops.ChownOpt for action in ("Copy", "MkFile", "MkDir", "Symlink")},
}


def dump_json(definition: Definition) -> Iterator[str]:
    """One JSON object per vertex (inputs first), then one naming the head."""
    for vertex in definition.vertices:
        yield json.dumps(
            {
                "Op": {
                    "inputs": [{"digest": str(edge.digest), "index": edge.index} for edge in vertex.inputs],
                    **encode_op(vertex.op),
                    **({"platform": str(vertex.platform)} if vertex.platform else {}),
                },
                "Digest": str(vertex.digest),
                "OpMetadata": {"description": {"llb.customname": vertex.meta.name}}
                if vertex.meta.name
                else {},
            }
        )
    if definition.head is not None:
        yield json.dumps({"Head": {"digest": str(definition.head.digest), "index": definition.head.index}})


def graph_json(definition: Definition) -> dict[str, Any]:
    """A whole definition as one value: operations, what is said of them, where they come from (SUB-06)."""
    operations: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    places: dict[str, Any] = {}
    files: list[str] = []
    for vertex, line in zip(definition.vertices, dump_json(definition), strict=False):
        item = json.loads(line)
        digest = str(vertex.digest)
        operations[digest] = item["Op"]
        metadata[digest] = item["OpMetadata"]
        span = vertex.meta.source
        if span is not None:
            if span.filename not in files:
                files.append(span.filename)
            place = {
                "ranges": [{"start": {"line": span.start}, "end": {"line": span.end}}],
                "sourceIndex": files.index(span.filename),
            }
            places[digest] = {"locations": [place]}
    if definition.head is not None:
        head = {"inputs": [{"digest": str(definition.head.digest), "index": definition.head.index}]}
        operations[str(Digest.of(canonical_json(head)))] = head  # CMP-08
    infos = [{"filename": name, "language": "Dockerfile"} for name in files]
    return {"def": operations, "metadata": metadata, "source": {"locations": places, "infos": infos}}


def load_json(lines: Iterator[str]) -> Definition:
    """What ``dump_json`` wrote; every digest is checked. Raises GraphError."""
    vertices: list[Vertex] = []
    head: Edge | None = None
    for line in lines:
        try:
            item = json.loads(line)
            if "Head" in item:
                head = _edge(item["Head"])
            else:
                vertices.append(_vertex(item))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise GraphError(f"not a definition in JSON form: {error}") from error
    return Definition(vertices=tuple(vertices), head=head)


def _vertex(item: dict[str, Any]) -> Vertex:
    body = dict(item["Op"])
    inputs = tuple(_edge(edge) for edge in body.pop("inputs"))
    platform = Platform.parse(body.pop("platform")) if "platform" in body else None
    ((kind, value),) = body.items()
    name = item.get("OpMetadata", {}).get("description", {}).get("llb.customname", "")
    vertex = Vertex(
        op=_build(_OPS[kind], value), inputs=inputs, platform=platform, meta=VertexMeta(name=name)
    )
    if str(vertex.digest) != item["Digest"]:
        raise GraphError(f"vertex {item['Digest']} has the digest {vertex.digest}")
    return vertex


def _edge(value: dict[str, Any]) -> Edge:
    return Edge(Digest.parse(value["digest"]), value["index"])


def _build(kind: type[Any], value: dict[str, Any]) -> Any:
    known = {field.name: field for field in fields(kind)}
    arguments = {name: _decode(kind.__name__, name, item) for name, item in value.items() if name in known}
    lacking = [
        name
        for name, field in known.items()
        if name not in arguments and field.default is MISSING and field.default_factory is MISSING
    ]
    if lacking or len(arguments) != len(value):
        raise GraphError(f"{kind.__name__}: missing {lacking} or unknown fields in {sorted(value)}")
    return kind(**arguments)


def _decode(owner: str, name: str, item: Any) -> Any:
    if name == "action":
        ((kind, value),) = item.items()
        return _build(_ACTIONS[kind], value)
    nested = _NESTED.get((owner, name))
    if nested is not None and is_dataclass(nested):
        return (
            tuple(_build(nested, part) for part in item) if isinstance(item, list) else _build(nested, item)
        )
    if isinstance(item, dict) and set(item) == {"hex"}:
        return bytes.fromhex(item["hex"])
    if isinstance(item, list):
        return tuple(tuple(part) if isinstance(part, list) else part for part in item)
    return item
