"""The document that describes an exported cache: layers, and records that lead to them (RCH-01…RCH-03).

``builder.cache.cachegraph`` makes and searches it, ``builder.cache.cacheread`` reads it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from builder.oci.canonical import compact_json
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest

MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
MAX_JSON_BYTES = 1 << 20
MAX_CHAIN = 500
"""More layers on each other than any kernel mounts."""
DIFF_ID_ANNOTATION = "containerd.io/uncompressed"
CREATED_ANNOTATION = "buildkit/createdat"
DESCRIPTION_ANNOTATION = "buildkit/description"
MOUNT_ANNOTATION = "pybuild/cachemount"
_ZERO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayer:
    """A layer blob and the layer that it lies on (-1 = none).

    ``descriptor`` has the blob's media type and size, and in its annotations the diff id, when the layer was
    made and by which step; it is None where only the blob's digest is known.
    """

    blob: Digest
    parent: int = -1
    descriptor: Descriptor | None = None


@dataclass(frozen=True, slots=True, order=True)
class CacheResult:
    """A stack of layers, lowest first, by their numbers; ``created_ns`` says when the step gave it."""

    layers: tuple[int, ...]
    created_ns: int = 0


@dataclass(frozen=True, slots=True, order=True)
class CacheLink:
    """An input of a record: another record by its number, "" or the digest of the part that counts."""

    link: int
    selector: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecordNode:
    """One key: ``digest`` is ``basekeys.root_key`` of the operation; per input the alternatives that lead to
    it. Without inputs it stands for a source or for content.
    """

    digest: str
    inputs: tuple[tuple[CacheLink, ...], ...] = ()
    results: tuple[CacheResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMountBlob:
    """The content of a cache mount, as a layer tar. Readers other than pybuild pass it over."""

    id: str
    descriptor: Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """An exported cache."""

    layers: tuple[CacheLayer, ...] = ()
    records: tuple[CacheRecordNode, ...] = ()
    mounts: tuple[CacheMountBlob, ...] = ()

    def to_bytes(self, *, details: bool = False) -> bytes:
        """The document. ``details`` writes each layer's descriptor into it, for places that keep no manifest
        beside the blobs.
        """
        value: dict[str, Any] = {
            "layers": [_layer_json(layer, details) for layer in self.layers],
            "records": self.records_json(),
        }
        if self.mounts:
            value["mounts"] = [
                {"id": mount.id, **_details(mount.descriptor), "blob": str(mount.descriptor.digest)}
                for mount in self.mounts
            ]
        return compact_json(value)

    def records_json(self) -> list[dict[str, Any]]:
        """The records alone, as an inline cache has them."""
        parents = [layer.parent for layer in self.layers]
        return [_record_json(record, parents) for record in self.records]

    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that the document names, each once, in its order."""
        found = {layer.blob: layer.descriptor for layer in self.layers}
        found |= {mount.descriptor.digest: mount.descriptor for mount in self.mounts}
        return tuple(descriptor for descriptor in found.values() if descriptor is not None)

    @property
    def is_empty(self) -> bool:
        """Whether it leads to nothing."""
        return not self.mounts and not any(record.results for record in self.records)


def _layer_json(layer: CacheLayer, details: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"blob": str(layer.blob)}
    if layer.parent:
        value["parent"] = layer.parent
    if details and layer.descriptor is not None:
        value["annotations"] = _details(layer.descriptor)
    return value


def _details(descriptor: Descriptor) -> dict[str, Any]:
    known = dict(descriptor.annotations)
    value: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "diffID": known.get(DIFF_ID_ANNOTATION, ""),
        "size": descriptor.size,
    }
    if known.get(CREATED_ANNOTATION):
        value["createdAt"] = known[CREATED_ANNOTATION]
    if known.get(DESCRIPTION_ANNOTATION):
        value["description"] = known[DESCRIPTION_ANNOTATION]
    return value


def _record_json(record: CacheRecordNode, parents: Sequence[int]) -> dict[str, Any]:
    value: dict[str, Any] = {"digest": record.digest}
    single: list[dict[str, Any]] = []
    chains: list[dict[str, Any]] = []
    for result in record.results:
        created = {"createdAt": time_text(result.created_ns)}
        if _ancestry(result.layers[-1], parents) == result.layers:
            single.append({"layer": result.layers[-1], **created})
        else:
            chains.append({"layers": list(result.layers), **created})
    if single:
        value["layers"] = single
    if chains:
        value["chains"] = chains
    if record.inputs:
        value["inputs"] = [
            [{**({"selector": link.selector} if link.selector else {}), "link": link.link} for link in links]
            for links in record.inputs
        ]
    return value


def _ancestry(layer: int, parents: Sequence[int]) -> tuple[int, ...]:
    found: list[int] = []
    while layer >= 0 and len(found) <= MAX_CHAIN:
        found.append(layer)
        layer = parents[layer]
    return tuple(reversed(found))


def time_text(ns: int) -> str:
    """A time as the document has it."""
    if ns <= 0:
        return _ZERO_TIME
    seconds, rest = divmod(ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


def time_ns(text: str) -> int:
    """The other way; 0 for what is no time."""
    body, dot, fraction = text.removesuffix("Z").partition(".")
    if len(text) > 40 or (dot and not (fraction.isascii() and fraction.isdigit())):
        return 0
    try:
        seconds = int(datetime.strptime(body, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        return 0
    found = seconds * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    return found if 0 < found < 1 << 63 else 0
