"""Small valid images, as blobs in a store."""

from __future__ import annotations

from dataclasses import dataclass

from builder.cache.protocols import Blobs
from builder.oci.config import ImageConfig
from builder.oci.descriptor import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor
from builder.oci.digest import DiffId, Digest
from builder.oci.manifest import Index, Manifest
from builder.oci.platform import Platform, host_platform


@dataclass(frozen=True)
class MadeImage:
    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]


def make_image(blobs: Blobs, *layers: bytes, env: str = "A=1", platform: Platform | None = None) -> MadeImage:
    """An image whose layers are these bytes (they need not be tars)."""
    described = tuple(Descriptor(media_type=OCI_LAYER, digest=blobs.put(d), size=len(d)) for d in layers)
    config = ImageConfig(
        platform=platform or host_platform(), env=(env,), diff_ids=tuple(DiffId(d.digest) for d in described)
    ).to_bytes()
    config_blob = Descriptor(media_type=OCI_CONFIG, digest=blobs.put(config), size=len(config))
    manifest = Manifest(config=config_blob, layers=described).to_bytes()
    descriptor = Descriptor(media_type=OCI_MANIFEST, digest=blobs.put(manifest), size=len(manifest))
    return MadeImage(descriptor, config_blob, described)


def make_index(blobs: Blobs, *items: tuple[Descriptor, Platform]) -> Descriptor:
    """An index over manifests, some of which may not be in the store."""
    data = Index(
        manifests=tuple(
            Descriptor(media_type=d.media_type, digest=d.digest, size=d.size, platform=p) for d, p in items
        )
    ).to_bytes()
    return Descriptor(media_type=OCI_INDEX, digest=blobs.put(data), size=len(data))


def absent(text: bytes) -> Descriptor:
    """A manifest that nobody has."""
    return Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(text), size=len(text))
