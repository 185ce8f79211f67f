"""Caches as images: a manifest or an index that names a cache document and its blobs (RCH-05, RCH-06)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from builder.cache.cacheconfig import (
    CREATED_ANNOTATION,
    DIFF_ID_ANNOTATION,
    MAX_JSON_BYTES,
    MEDIA_TYPE,
    MOUNT_ANNOTATION,
    CacheConfig,
)
from builder.cache.cacheread import from_inline, from_json
from builder.errors import InvalidValue, UsageError
from builder.oci.config import MAX_CONFIG_BYTES
from builder.oci.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    to_docker,
)
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Index, Manifest, parse_document
from builder.remotecache.backend import Say
from builder.remotecache.spec import CacheSpec

INLINE_KEY = "moby.buildkit.cache.v0"
_MAX_IMAGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestForm:
    """In which form the manifest is written."""

    image: bool = True
    oci: bool = True

    @classmethod
    def of(cls, spec: CacheSpec) -> ManifestForm:
        """What the attributes ask for. Raises UsageError."""
        oci = spec.on("oci-mediatypes", default=True)
        image = spec.on("image-manifest", default=oci)
        if image and not oci:
            raise UsageError(
                "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache"
                " format"
            )
        return cls(image=image, oci=oci)


class Reader(Protocol):
    """Where documents are read from."""

    def manifest(self, wanted: Descriptor | None) -> tuple[Descriptor, bytes]:
        """A manifest by its descriptor; None is the one that the cache is called by."""
        ...

    def small(self, blob: Descriptor) -> bytes:
        """A blob of at most ``blob.size`` bytes, verified."""
        ...


def read(reader: Reader, name: str, say: Say) -> tuple[CacheConfig, ...]:
    """The caches that a manifest leads to: a cache document, or what image configs carry.

    Raises InvalidValue and what the reader raises.
    """
    root, data = reader.manifest(None)
    document = parse_document(data, root.media_type)
    if not _says_its_type(data):
        say(f"inferred cache manifest type: {document.media_type}")
    if isinstance(document, Manifest):
        entries = (document.config, *document.layers)
    else:
        entries = document.manifests
    for entry in entries:
        if entry.media_type == MEDIA_TYPE:
            return (_document(reader, entry, entries, name),)
    return tuple(_inline_caches(reader, document, name))


def write(
    config: CacheConfig, form: ManifestForm, put: Callable[[Descriptor, bytes, str], None]
) -> tuple[Descriptor, bytes]:
    """The manifest of ``config``; its document is given to ``put`` with its descriptor and step name."""
    data = config.to_bytes()
    if len(data) > MAX_JSON_BYTES:
        raise InvalidValue(
            f"the cache document of {len(data)} bytes is larger than readers take ({MAX_JSON_BYTES})",
            hint="use mode=min, or export to another place",
        )
    document = Descriptor(media_type=MEDIA_TYPE, digest=Digest.of(data), size=len(data))
    put(document, data, f"writing config {document.digest}")
    mounts = {mount.descriptor.digest: mount.id for mount in config.mounts}
    blobs = tuple(_labelled(blob, mounts, form) for blob in config.blobs())
    manifest: Manifest | Index
    if form.image:
        media_type = OCI_MANIFEST
        manifest = Manifest(config=document, layers=blobs, media_type=media_type)
    else:
        media_type = OCI_INDEX if form.oci else DOCKER_INDEX
        manifest = Index(manifests=(*blobs, document), media_type=media_type)
    body = manifest.to_bytes()
    return Descriptor(media_type=media_type, digest=Digest.of(body), size=len(body)), body


def status_name(form: ManifestForm, digest: Digest) -> str:
    """How the writing of the manifest is called (RCH-08)."""
    kind = "cache image manifest" if form.image else "cache manifest"
    return f"writing {kind} {digest}"


def _labelled(blob: Descriptor, mounts: dict[Digest, str], form: ManifestForm) -> Descriptor:
    annotations = blob.annotations
    if blob.digest in mounts:
        annotations = (*annotations, (MOUNT_ANNOTATION, mounts[blob.digest]))
    media_type = blob.media_type if form.oci else to_docker(blob.media_type)
    return replace(blob, media_type=media_type, annotations=annotations)


def _says_its_type(data: bytes) -> bool:
    return bool(json.loads(data).get("mediaType"))


def _document(reader: Reader, entry: Descriptor, entries: tuple[Descriptor, ...], name: str) -> CacheConfig:
    if entry.size > MAX_JSON_BYTES:
        raise InvalidValue(f"blob {entry.digest} is too large ({entry.size} > {MAX_JSON_BYTES})")
    known = {blob.digest: blob for blob in entries}
    return from_json(reader.small(entry), known, name=name)


def _inline_caches(reader: Reader, document: Manifest | Index, name: str) -> Iterator[CacheConfig]:
    for manifest in _images(reader, document):
        config = manifest.config
        if config.size > MAX_CONFIG_BYTES:
            raise InvalidValue(f"blob {config.digest} is too large ({config.size} > {MAX_CONFIG_BYTES})")
        try:
            found = _inline_cache(json.loads(reader.small(config)), manifest, name)
        except (ValueError, RecursionError, AttributeError, TypeError) as error:
            raise InvalidValue(f"{name}: malformed image config: {error}") from error
        if found is not None:
            yield found


def _images(reader: Reader, document: Manifest | Index) -> Iterator[Manifest]:
    if isinstance(document, Manifest):
        yield document
        return
    children = [entry for entry in document.manifests if entry.media_type in MANIFEST_TYPES | INDEX_TYPES]
    for entry in children[:_MAX_IMAGES]:
        if entry.platform is not None and entry.platform.os == "unknown":
            continue  # an attestation
        if entry.size > MAX_DOCUMENT_BYTES:
            raise InvalidValue(f"manifest {entry.digest} is too large")
        found = parse_document(reader.manifest(entry)[1], entry.media_type)
        if isinstance(found, Manifest):
            yield found


def _inline_cache(config: Any, manifest: Manifest, name: str) -> CacheConfig | None:
    text = config.get(INLINE_KEY)
    if not text:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidValue(f"{name}: the inline cache is not base64") from error
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    if len(diff_ids) != len(manifest.layers):
        raise InvalidValue(f"{name}: {len(manifest.layers)} layers with {len(diff_ids)} diff ids")
    history = [entry for entry in config.get("history") or [] if not entry.get("empty_layer")]
    layers = []
    for number, (layer, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True)):
        entry = history[number] if number < len(history) else {}
        made = str(entry.get("created") or "")
        annotations = [(DIFF_ID_ANNOTATION, str(Digest.parse(str(diff_id))))]
        if made:
            annotations.append((CREATED_ANNOTATION, made[:40]))
        layers.append(replace(layer, annotations=tuple(annotations)))
    return from_inline(data, layers, name=name)


def is_manifest(media_type: str) -> bool:
    """Whether a registry keeps what has this type among its manifests."""
    return media_type in MANIFEST_TYPES | INDEX_TYPES | {DOCKER_MANIFEST}
