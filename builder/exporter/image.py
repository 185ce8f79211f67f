"""Configs, manifests and indexes of built images, written into the store (EXP-05…EXP-12)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from builder.errors import ExportError
from builder.exporter.history import clamp, normalize
from builder.exporter.times import rfc3339
from builder.exporter.types import Annotation, ImageResult, LayerRef, Pairs
from builder.oci.config import ImageConfig
from builder.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    distributable,
    to_docker,
    to_oci,
)
from builder.oci.digest import Digest
from builder.oci.manifest import Index, Manifest
from builder.oci.platform import Platform
from builder.oci.platform import normalize as normalize_platform

_INTERNAL = ("containerd.io/uncompressed", "buildkit/", "containerd.io/distribution.source.")


class BlobSink(Protocol):
    """Where documents go."""

    def put_many(self, items: Sequence[bytes]) -> tuple[Digest, ...]: ...


class HasBlobs(Protocol):
    """A store, as far as this room needs it."""

    @property
    def blobs(self) -> BlobSink: ...


def assemble(
    store: HasBlobs,
    config: ImageConfig,
    layers: Sequence[LayerRef],
    *,
    oci: bool = True,
    annotations: Iterable[Annotation] = (),
    epoch: int | None = None,
    base_history: int = 0,
    now_ns: int | None = None,
    inline_cache: str | None = None,
    nondist: bool = False,
) -> ImageResult:
    """Make config and manifest for ``layers`` (lowest first) and put both into ``store.blobs``.

    The config's diff ids, history and times are patched (EXP-07, EXP-08); ``inline_cache`` is the JSON text
    of ``moby.buildkit.cache.v0``; ``nondist`` keeps non-distributable layers what they are. Raises
    ExportError for a config without os or architecture.
    """
    patched = patch_config(config, layers, epoch=epoch, base_history=base_history, now_ns=now_ns)
    if inline_cache is not None:
        patched = replace(patched, extra=(*patched.extra, ("moby.buildkit.cache.v0", inline_cache)))
    data = patched.to_bytes()
    descriptor = Descriptor(
        media_type=OCI_CONFIG if oci else DOCKER_CONFIG, digest=Digest.of(data), size=len(data)
    )
    chosen = for_platform(annotations, patched.platform)
    manifest = Manifest(
        config=descriptor,
        layers=tuple(clean_layer(layer.descriptor, oci=oci, nondist=nondist) for layer in layers),
        media_type=OCI_MANIFEST if oci else DOCKER_MANIFEST,
        annotations=pairs_of(chosen, "manifest"),
    )
    document = manifest.to_bytes()
    digest = store.blobs.put_many((data, document))[1]
    return ImageResult(
        manifest=Descriptor(
            media_type=manifest.media_type,
            digest=digest,
            size=len(document),
            annotations=pairs_of(chosen, "manifest-descriptor"),
        ),
        config=descriptor,
        image_config=patched,
        layers=tuple(layers),
    )


def assemble_index(
    store: HasBlobs,
    images: Sequence[ImageResult],
    *,
    oci: bool = True,
    annotations: Iterable[Annotation] = (),
    attestations: Sequence[Descriptor] = (),
) -> Descriptor:
    """An index over ``images`` in the order given, attestation manifests last (EXP-05)."""
    asked = tuple(annotations)
    entries = [replace(image.manifest, platform=normalize_platform(image.platform)) for image in images]
    index = Index(
        manifests=(*entries, *attestations),
        media_type=OCI_INDEX if oci else DOCKER_INDEX,
        annotations=pairs_of(asked, "index"),
    )
    data = index.to_bytes()
    (digest,) = store.blobs.put_many((data,))
    return Descriptor(
        media_type=index.media_type,
        digest=digest,
        size=len(data),
        annotations=pairs_of(asked, "index-descriptor"),
    )


def patch_config(
    config: ImageConfig,
    layers: Sequence[LayerRef],
    *,
    epoch: int | None = None,
    base_history: int = 0,
    now_ns: int | None = None,
) -> ImageConfig:
    """``config`` as it will be published: diff ids, history, creation time. Raises ExportError."""
    for missing in ("os", "architecture"):
        if not getattr(config.platform, missing):
            raise ExportError(f"invalid image config for export: missing {missing}")
    now = rfc3339(time.time_ns() if now_ns is None else now_ns)
    if epoch is not None:
        now = clamp(now, epoch * 1_000_000_000)
    history = normalize(config.history, layers, now=now, epoch=epoch, base_history=base_history)
    created = history[-1].created if history else config.created
    if epoch is not None:
        created = clamp(created, epoch * 1_000_000_000)
    return replace(
        config,
        diff_ids=tuple(layer.diff_id for layer in layers),
        history=history,
        created=created or now,
    )


def clean_layer(descriptor: Descriptor, *, oci: bool, nondist: bool = False) -> Descriptor:
    """The layer as a manifest names it: type of the right family, our own annotations gone (CMPR-02,
    CMPR-03).

    Without ``nondist`` a layer that was not to be distributed becomes an ordinary one and is pushed.
    """
    kept = tuple((key, value) for key, value in descriptor.annotations if not key.startswith(_INTERNAL))
    media_type, urls = descriptor.media_type, descriptor.urls
    if not nondist:
        media_type, urls = distributable(media_type), ()
    media_type = to_oci(media_type) if oci else to_docker(media_type)
    return replace(descriptor, media_type=media_type, annotations=kept, urls=urls, platform=None)


def for_platform(annotations: Iterable[Annotation], platform: Platform) -> tuple[Annotation, ...]:
    """The annotations that concern one platform."""
    own = normalize_platform(platform)
    return tuple(
        item for item in annotations if item.platform is None or normalize_platform(item.platform) == own
    )


def pairs_of(annotations: Iterable[Annotation], target: str) -> Pairs:
    """Keys and values for one target, later ones winning, sorted by key."""
    return tuple(sorted({item.key: item.value for item in annotations if item.target == target}.items()))


def check_annotations(
    annotations: Sequence[Annotation], platforms: Sequence[Platform], *, indexed: bool
) -> None:
    """Raise ExportError when an annotation has nowhere to go (EXP-10, EXP-11)."""
    known = {normalize_platform(platform) for platform in platforms}
    for item in annotations:
        if item.platform is not None and normalize_platform(item.platform) not in known:
            raise ExportError(f"invalid annotation: no platform {item.platform} found in source")
        if item.target.startswith("index") and not indexed:
            raise ExportError("index annotations not supported for single platform export")
