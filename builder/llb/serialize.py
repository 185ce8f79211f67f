"""Definitions in wire form as JSON and as drawings (OPJ-01, OPJ-02)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from builder.errors import GraphError
from builder.llb.definition import Definition
from builder.llb.opjson import decode_op
from builder.llb.wire_decode import parse_definition, parse_ops
from builder.llb.wire_encode import Digests, encode, metadata_message, op_message
from builder.oci.digest import Digest

__all__ = ["decode_op", "dump_json", "dump_lines", "graph_json", "op_json", "summary", "to_dot"]

_SHAPES = {
    "source": "ellipse",
    "exec": "box",
    "build": "box3d",
    "merge": "invtriangle",
    "diff": "doublecircle",
    "file": "note",
}
_GROUPS = {"Op": "Op", "FileAction": "Action", "UserOpt": "User"}
"""Under which name the JSON of a message has its one of several."""
_ALWAYS = {"FileAction": ("input", "secondaryInput", "output")}
_RENAMED = {"byID": "byId"}


def dump_json(definition: Definition) -> Iterator[str]:
    """One JSON object per vertex; bytes that are no text are shown as U+FFFD."""
    digests: Digests = {}
    for vertex in definition.vertices:
        shown = vertex
        try:
            message = op_message(vertex, digests)
        except GraphError:
            shown = replace(vertex, op=_printable(vertex.op), meta=_printable(vertex.meta))
            message = op_message(shown, digests)
        digests[vertex.digest] = digest = str(Digest.of(message.SerializeToString(deterministic=True)))
        yield json.dumps(
            {"Op": op_json(message), "Digest": digest, "OpMetadata": op_json(metadata_message(shown))}
        )


def dump_lines(data: bytes) -> Iterator[str]:
    """One JSON object per op of the definition ``data``, the sentinel last. Raises GraphError."""
    message = parse_definition(data)
    for digest, op in _ops(message):
        said = message.metadata.get(digest)
        yield json.dumps(
            {"Op": op_json(op), "Digest": digest, "OpMetadata": {} if said is None else op_json(said)}
        )


def graph_json(definition: Definition) -> dict[str, Any]:
    """A whole definition as one value: operations, what is said of them, where they come from (SUB-06)."""
    message = parse_definition(encode(definition))
    return {
        "def": {digest: op_json(op) for digest, op in parse_ops(message).items()},
        "metadata": {key: op_json(message.metadata[key]) for key in sorted(message.metadata)},
        "source": op_json(message.Source),
    }


def op_json(message: Any) -> dict[str, Any]:
    """The JSON of an ``Op`` or a message in it: the protobuf names, no zero values, bytes in base64."""
    kind = message.DESCRIPTOR
    out: dict[str, Any] = {}
    if kind.name in _GROUPS:
        out[_GROUPS[kind.name]] = {}
    for name in _ALWAYS.get(kind.name, ()):
        out[name] = getattr(message, name)
    for field, value in message.ListFields():
        name = _RENAMED.get(field.name, field.name)
        place = out[_GROUPS[kind.name]] if field.containing_oneof is not None else out
        place[name] = _json(field, value)
    return out


def to_dot(data: bytes) -> str:
    """The definition ``data`` in DOT: shapes by kind of op, edges from input to user. Raises GraphError."""
    lines = ["digraph {"]
    edges = []
    for digest, op in _ops(parse_definition(data)):
        kind = op.WhichOneof("op") or ""
        lines.append(f'  "{digest}" [label={_quote(summary(op))} shape="{_SHAPES.get(kind, "plaintext")}"];')
        for position, item in enumerate(op.inputs):
            label = _edge_label(op, position)
            suffix = f" [label={_quote(label)}]" if label else ""
            edges.append(f'  {_quote(item.digest)} -> "{digest}"{suffix};')
    return "\n".join([*lines, *edges, "}"]) + "\n"


def summary(op: Any) -> str:
    """What an op does in a few words, of itself alone (DIG-06); the sentinel is the result."""
    kind = op.WhichOneof("op")
    match kind:
        case "source":
            return str(op.source.identifier)
        case "exec":
            return " ".join(op.exec.meta.args)
        case "file":
            return ", ".join(map(_action_summary, op.file.actions))
        case "passthrough":
            return f"passthrough {op.passthrough.id}"
        case None:
            return "result"
        case _:
            return str(kind)


def _ops(message: Any) -> Iterator[tuple[str, Any]]:
    found = parse_ops(message)
    if not found:
        raise GraphError("invalid empty definition")
    yield from found.items()


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, tuple):
        return tuple(map(_printable, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: _printable(getattr(value, item.name)) for item in fields(value)})
    return value


def _json(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _json_item(entry, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_json_item(field, item) for item in value]
    return _json_item(field, value)


def _json_item(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return op_json(value)
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _action_summary(item: Any) -> str:
    kind = item.WhichOneof("action")
    if kind is None:
        return "?"
    action = getattr(item, kind)
    match kind:
        case "copy":
            return f"copy {action.src} {action.dest}"
        case "symlink":
            return f"symlink {action.newpath} -> {action.oldpath}"
        case _:
            return f"{kind} {action.path}"


def _edge_label(op: Any, position: int) -> str:
    if op.WhichOneof("op") != "exec":
        return ""
    return ", ".join(m.dest for m in op.exec.mounts if m.input == position and m.dest != "/")


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
