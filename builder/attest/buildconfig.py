"""The steps of a build as provenance shows them in mode max (ATT-08)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from builder.frontend.redact import redact, redact_values
from builder.llb.definition import Definition, Vertex
from builder.llb.ops import SourceOp
from builder.llb.serialize import dump_json
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest

Steps = dict[Digest, str]
Usage = Mapping[Digest, Sequence[Mapping[str, Any]]]


def step_names(definition: Definition) -> Steps:
    """Every vertex's name in the document: ``step0``, ``step1``…, inputs first."""
    return {vertex.digest: f"step{number}" for number, vertex in enumerate(definition.vertices)}


def build_config(definition: Definition, usage: Usage | None = None) -> dict[str, Any]:
    """The operations of a definition and which digest each has; credentials in URLs are masked.

    ``usage`` are the samples of steps that ran.
    """
    names = step_names(definition)
    steps: list[dict[str, Any]] = []
    for vertex, line in zip(definition.vertices, dump_json(definition), strict=False):
        op = json.loads(line)["Op"]
        op.pop("inputs", None)
        step: dict[str, Any] = {"id": names[vertex.digest], "op": redact_values(op)}
        if vertex.inputs:
            step["inputs"] = [f"{names[edge.digest]}:{edge.index}" for edge in vertex.inputs]
        if usage and vertex.digest in usage:
            step["resourceUsage"] = {"samples": [dict(sample) for sample in usage[vertex.digest]]}
        steps.append(step)
    return {
        "llbDefinition": steps,
        "digestMapping": {str(digest): name for digest, name in names.items()},
    }


def source_map(definition: Definition, filename: str, data: bytes, origin: str) -> dict[str, Any]:
    """Which lines of the Dockerfile each step stands for, and the file; ``origin`` is the source it is of."""
    names = step_names(definition)
    locations: dict[str, Any] = {}
    for vertex in definition.vertices:
        span = vertex.meta.source
        if span is not None:
            lines = {"start": {"line": span.start}, "end": {"line": span.end}}
            locations[names[vertex.digest]] = {"locations": [{"sourceIndex": 0, "ranges": [lines]}]}
    attrs = (("local.followpaths", json.dumps([filename])),) if origin.startswith("local://") else ()
    loaded = Vertex(op=SourceOp(identifier=redact(origin), attrs=attrs))
    text = redact(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    info = {
        "filename": filename,
        "language": "Dockerfile",
        "data": base64.b64encode(text).decode("ascii"),
        **build_config(Definition(vertices=(loaded,))),
    }
    return {"locations": locations, "infos": [info]}


def layer_map(
    definition: Definition, depths: Mapping[Digest, Mapping[int, int]], layers: Sequence[Descriptor]
) -> dict[str, Any]:
    """The layers of each step's result: ``depths`` says of how many of ``layers`` an output is made."""
    names = step_names(definition)
    found: dict[str, Any] = {}
    for vertex in definition.vertices:
        for index, depth in sorted(depths.get(vertex.digest, {}).items()):
            if 0 < depth <= len(layers):
                found[f"{names[vertex.digest]}:{index}"] = [[layer.to_json() for layer in layers[:depth]]]
    return found
