"""Image manifests and indexes (OCI image-spec, manifest.md and image-index.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass

from builder.errors import InvalidValue
from builder.oci.canonical import document_json
from builder.oci.descriptor import (
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Larger manifests and indexes are refused (OCI distribution-spec: registries take at least 4 MiB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform: a config and its layers, lowest first.

    An artifact has an ``artifact_type``; ``subject`` is the manifest that it says something about.
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""
    subject: Descriptor | None = None

    def to_bytes(self) -> bytes:
        """The published form (EXP-06)."""
        out: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            **({"artifactType": self.artifact_type} if self.artifact_type else {}),
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.subject is not None:
            out["subject"] = self.subject.to_json()
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        return document_json(out)

    @property
    def is_docker(self) -> bool:
        """Whether this is the Docker v2 schema 2 form."""
        return self.media_type == DOCKER_MANIFEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A list of manifests, usually one per platform."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: tuple[tuple[str, str], ...] = ()

    def to_bytes(self) -> bytes:
        """The published form (EXP-06)."""
        out: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        return document_json(out)


def parse_document(data: bytes, media_type: str = "") -> Manifest | Index:
    """Read a manifest or index; raises InvalidValue.

    ``media_type`` is what the carrier said (descriptor or Content-Type); a document that says otherwise, or
    that is valid as both kinds, is refused (the ambiguity of CVE-2021-41190).
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidValue(f"manifest of {len(data)} bytes is larger than the limit of {MAX_DOCUMENT_BYTES}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"manifest is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidValue("manifest must be a JSON object")
    if value.get("schemaVersion") != 2:
        raise InvalidValue(
            f"manifest schema version {value.get('schemaVersion')!r} is not supported",
            hint="schema 1 images are obsolete: push the image again with a current tool",
        )
    own_type = str(value.get("mediaType") or "")
    if own_type and media_type and own_type != media_type:
        raise InvalidValue(f"manifest says it is {own_type} but was served as {media_type}")
    if ("manifests" in value) and ("layers" in value or "config" in value):
        raise InvalidValue("document is both an index and a manifest")
    kind = own_type or media_type or (OCI_INDEX if "manifests" in value else OCI_MANIFEST)
    annotations = value.get("annotations") or {}
    pairs = tuple((str(k), str(v)) for k, v in annotations.items()) if isinstance(annotations, dict) else ()
    if kind in INDEX_TYPES:
        return Index(manifests=_descriptors(value, "manifests"), media_type=kind, annotations=pairs)
    if kind in MANIFEST_TYPES:
        return Manifest(
            config=Descriptor.from_json(value.get("config")),
            layers=_descriptors(value, "layers"),
            media_type=kind,
            annotations=pairs,
            artifact_type=str(value.get("artifactType") or ""),
            subject=Descriptor.from_json(value["subject"]) if value.get("subject") else None,
        )
    raise InvalidValue(f"unsupported manifest media type {kind!r}")


def _descriptors(value: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    items = value.get(key)
    if not isinstance(items, list):
        raise InvalidValue(f"manifest needs a list {key!r}")
    return tuple(Descriptor.from_json(item) for item in items)
