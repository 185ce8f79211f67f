"""The provenance of a build on record in mode max, one document for each platform (HSY-02, ATT-05…ATT-09).

It is made of what ``builder.build.inputs`` kept, by the code that makes the provenance of images. The id and
the times are those of the record. A build that a remembered result answered says nothing of a checkout: what
the earlier one saw may have moved on.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from builder.attest.materials import Material, capture, image_material, remote_material, whole
from builder.attest.provenance import Facts, predicate
from builder.attest.request import ProvenanceOptions
from builder.build.history import BuildRecord
from builder.cache.history import INPUTS
from builder.cache.store import Store
from builder.exporter.times import rfc3339
from builder.llb.definition import Definition, Edge, SourceRange, Vertex, VertexMeta
from builder.llb.opjson import decode_op
from builder.llb.ops import Op
from builder.oci.canonical import compact_json
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.platform import Platform

Json = dict[str, Any]


def predicates(store: Store, record: BuildRecord) -> Iterator[tuple[str, bytes]]:
    """The platform and predicate of each result of a build; none when what it was made from is not known."""
    data = store.doc(INPUTS, str(record.data.get("inputs", "")))
    if data is None:
        return
    first, *lines = zlib.decompress(data).decode("utf-8", "surrogateescape").splitlines()
    about = json.loads(first)
    vertices = {vertex.digest: vertex for vertex in map(_vertex, map(json.loads, lines))}
    for image in about["images"]:
        facts = _facts(record, about, image, Definition.of(vertices, _edge(image["head"])))
        layers = [Descriptor.from_json(item) for item in image["layers"]]
        yield image["platform"], compact_json(predicate(facts, ProvenanceOptions(), layers))


def _facts(record: BuildRecord, about: Json, image: Json, definition: Definition) -> Facts:
    context = remote_material(*about["context"]) if about["context"] else None
    pins: dict[Op, str] = {
        vertex.op: about["pins"].get(str(vertex.digest), "") for vertex in definition.vertices
    }
    return Facts(
        definition=definition,
        captured=whole(
            capture(definition, lambda op: pins[op]),
            (_base(*item) for item in image["bases"]),
            context,
            own_dockerfile=about["origin"] == "local://dockerfile",
        ),
        args=tuple(about["args"].items()),
        context=context,
        path=about["path"],
        dockerfile=about["dockerfile"].encode("utf-8", "surrogateescape"),
        dockerfile_version=about["version"],
        origin=about["origin"],
        platform=about["builder"],
        invocation_id=record.ref,
        started=rfc3339(record.created_ns),
        finished=rfc3339(record.completed_ns or record.created_ns),
        vcs=() if record.recalled else tuple((key, value) for key, value in about["vcs"]),
        depths={
            Digest.parse(digest): {int(index): depth for index, depth in found.items()}
            for digest, found in image["depths"].items()
        },
    )


def _base(ref: str, digest: str, platform: str) -> Material:
    return image_material(ref, Digest.parse(digest), _platform(platform))


def _vertex(line: Json) -> Vertex:
    """An operation; its digest stays that of the step, also where something secret was replaced."""
    op: Json = line["Op"]
    inputs = tuple(Edge(Digest.parse(item["digest"]), item["index"]) for item in op.pop("inputs"))
    platform, constraints = op.pop("platform", ""), tuple(op.pop("constraints", ()))
    about = line["OpMetadata"]
    span = about.get("source")
    meta = VertexMeta(
        name=about["description"]["llb.customname"],
        source=SourceRange(filename=span[0], start=span[1], end=span[2]) if span else None,
    )
    made = Vertex(
        op=decode_op(op), inputs=inputs, platform=_platform(platform), constraints=constraints, meta=meta
    )
    object.__setattr__(made, "digest", Digest.parse(line["Digest"]))
    return made


def _edge(head: tuple[str, int] | None) -> Edge | None:
    return None if head is None else Edge(Digest.parse(head[0]), head[1])


def _platform(text: str) -> Platform | None:
    return Platform.parse(text) if text else None
