"""Builds of the history as one archive: an OCI layout in a tar (docs/formats/history.md).

Every build is a manifest whose config is the record as JSON and whose layers are the record in the
reference's wire form (HSY-06), the status stream, the definition, the trace and the provenance.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from builder.build import history
from builder.build.history import BuildRecord
from builder.cache.store import Store
from builder.oci.canonical import canonical_json
from builder.oci.digest import Digest
from builder.solver.protowire import data, number, pairs, text, timestamp

RECORD_TYPE = "application/vnd.buildkit.historyrecord.v0"
RECORD_JSON_TYPE = "application/vnd.pybuild.historyrecord.v0+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
PREDICATE_ANNOTATION = "in-toto.io/predicate-type"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def bundle(store: Store, records: Sequence[BuildRecord], out: BinaryIO) -> None:
    """Write ``records`` to ``out``. Raises StoreError when one is removed meanwhile."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        writer = _Writer(tar)
        writer.file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        manifests = [_add(store, record, writer) for record in records]
        index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests}
        writer.file("index.json", canonical_json(index))


class _Writer:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._written: set[str] = set()

    def file(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o644
        self._tar.addfile(info, io.BytesIO(content))

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = Digest.of(content)
        if str(digest) not in self._written:
            self._written.add(str(digest))
            self.file(f"blobs/{digest.algorithm}/{digest.hex}", content)
        return {"mediaType": media_type, "digest": str(digest), "size": len(content)}


def _add(store: Store, record: BuildRecord, writer: _Writer) -> dict[str, Any]:
    record = history.finalized(store, record)
    attached = [item for item in history.attachments(store, record) if item.path]
    found = {item.media_type: item for item in attached}
    layers: list[dict[str, Any]] = []
    logs = None
    if history.STATUS_TYPE in found:
        content = history.attachment_bytes(store, found[history.STATUS_TYPE])
        logs = writer.blob(content, history.STATUS_TYPE)
        layers.append(logs)
    if history.DEFINITION_TYPE in found:
        content = history.attachment_bytes(store, found[history.DEFINITION_TYPE])
        layers.append(writer.blob(content, history.DEFINITION_TYPE.removesuffix("+zlib")))
    trace = None
    if history.TRACE_TYPE in found:
        trace = writer.blob(history.attachment_bytes(store, found[history.TRACE_TYPE]), history.TRACE_TYPE)
        layers.append(trace)
    provenance = [_provenance(store, item, writer) for item in attached if item.predicate]
    layers += [item for _, item in provenance]
    wire = writer.blob(record_message(record, logs, trace, provenance), RECORD_TYPE)
    config = writer.blob(canonical_json(as_json(record)), RECORD_JSON_TYPE)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "artifactType": RECORD_TYPE,
        "config": config,
        "layers": [wire, *layers],
    }
    return {
        **writer.blob(canonical_json(manifest), _MANIFEST_TYPE),
        "artifactType": RECORD_TYPE,
        "annotations": {"vnd.buildkit.history.reference": record.ref},
    }


def _provenance(store: Store, item: history.Attachment, writer: _Writer) -> tuple[str, dict[str, Any]]:
    """The platform and the descriptor of a document."""
    descriptor = writer.blob(history.attachment_bytes(store, item), item.media_type)
    return item.platform, {**descriptor, "annotations": {PREDICATE_ANNOTATION: item.predicate}}


def as_json(record: BuildRecord) -> dict[str, Any]:
    """A record with all that is kept of it."""
    return {
        "ref": record.ref,
        "status": record.status,
        "createdNs": record.created_ns,
        "completedNs": record.completed_ns,
        "pinned": record.pinned,
        **record.data,
    }


def record_message(
    record: BuildRecord,
    logs: dict[str, Any] | None = None,
    trace: dict[str, Any] | None = None,
    provenance: Sequence[tuple[str, dict[str, Any]]] = (),
) -> bytes:
    """The reference's BuildHistoryRecord. The others describe blobs, ``provenance`` by platform."""
    about = record.data
    result = (about.get("response") or {}).get("containerimage.descriptor")
    return b"".join(
        (
            text(1, record.ref),
            text(2, str(about.get("frontend", ""))),
            pairs(3, about.get("attrs") or {}),
            *(
                data(4, text(1, item["Type"]) + pairs(2, item["Attrs"]))
                for item in about.get("exporters") or ()
            ),
            _error(about),
            timestamp(6, record.created_ns),
            timestamp(7, record.completed_ns),
            _descriptor(8, logs),
            pairs(9, dict(_response(about))),
            *_results(about, result, provenance),
            number(12, int(about.get("generation", 1))),
            _descriptor(13, trace),
            number(14, record.pinned),
            number(15, record.count("cached")),
            number(16, record.count("total")),
            number(17, record.count("completed")),
            number(19, record.count("warnings")),
        )
    )


def _error(about: dict[str, Any]) -> bytes:
    if not about.get("error"):
        return b""
    return data(5, number(1, int(about.get("status_code", 2))) + text(2, str(about["error"])))


def _descriptor(field: int, value: dict[str, Any] | None) -> bytes:
    if not value:
        return b""
    kind, digest = text(1, str(value.get("mediaType", ""))), text(2, str(value.get("digest", "")))
    notes = pairs(5, value.get("annotations") or {})
    return data(field, kind + digest + number(3, int(value.get("size", 0))) + notes)


def _results(
    about: dict[str, Any], result: dict[str, Any] | None, provenance: Sequence[tuple[str, dict[str, Any]]]
) -> Iterator[bytes]:
    """``BuildResultInfo``, alone and in a map by platform; with several only the whole has a descriptor."""
    platforms: list[str] = about.get("platforms") or []
    single = len(platforms) < 2
    own = [_descriptor(2, item) for _, item in provenance] if single else []
    whole = b"".join((_descriptor(1, result), *own))
    if whole:
        yield data(10, whole)
    if single:
        if whole and platforms:
            yield data(11, text(1, str(platforms[0])) + data(2, whole))
        return
    for platform, item in provenance:
        yield data(11, text(1, platform) + data(2, _descriptor(2, item)))


def _response(about: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in (about.get("response") or {}).items():
        yield key, value if isinstance(value, str) else json.dumps(value)
