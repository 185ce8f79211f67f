"""Finding images in the store, and one platform's manifest behind a name."""

from __future__ import annotations

from dataclasses import dataclass

from builder.cache.store import Store
from builder.cache.types import StoredImage
from builder.errors import InvalidValue, NoSuchImage
from builder.oci.config import MAX_CONFIG_BYTES, ImageConfig
from builder.oci.descriptor import MANIFEST_TYPES, Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Index, Manifest, parse_document
from builder.oci.platform import Platform, best_match, normalize

MAX_INDEX_DEPTH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformManifest:
    """One platform's manifest and its config."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig

    @property
    def config_digest(self) -> Digest:
        """The image id."""
        return self.manifest.config.digest


def find(store: Store, text: str) -> StoredImage:
    """The image that ``text`` names. Raises NoSuchImage, InvalidValue for a prefix of several ids."""
    found = store.images.resolve(text)
    if found is None:
        raise NoSuchImage(f"No such image: {text}", hint="pybuild images lists what is here")
    return found


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether an index entry is a note about an image and not an image (SIM-07)."""
    if any(key == "vnd.docker.reference.type" for key, _ in descriptor.annotations):
        return True
    return descriptor.platform is not None and descriptor.platform.os == "unknown"


def choose(index: Index, platform: Platform, name: str) -> Descriptor:
    """The entry of ``index`` that serves ``platform`` best (SIM-02). Raises NoSuchImage."""
    images = [entry for entry in index.manifests if not is_attestation(entry)]
    typed = [entry for entry in images if entry.platform is not None]
    best = best_match(platform, tuple(entry.platform for entry in typed if entry.platform is not None))
    if best is not None:
        return typed[best]
    untyped = [entry for entry in images if entry.platform is None]
    if len(images) == 1 and untyped:
        return untyped[0]
    offered = sorted({str(normalize(entry.platform)) for entry in typed if entry.platform is not None})
    raise NoSuchImage(
        f"{name}: no match for platform in manifest: {platform}",
        hint=f"it is made for {', '.join(offered[:12])}" if offered else None,
        code="no-match-for-platform",
    )


def document(store: Store, descriptor: Descriptor) -> Manifest | Index:
    """The parsed manifest or index. Raises BlobMissing, InvalidValue."""
    return parse_document(store.blobs.read(descriptor.digest, MAX_DOCUMENT_BYTES), descriptor.media_type)


def read_config(store: Store, manifest: Manifest) -> ImageConfig:
    """The config of a manifest, checked against its layers. Raises BlobMissing, InvalidValue."""
    config = ImageConfig.from_bytes(store.blobs.read(manifest.config.digest, MAX_CONFIG_BYTES))
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidValue(
            f"image {manifest.config.digest} has {len(manifest.layers)} layers but its config names "
            f"{len(config.diff_ids)}"
        )
    return config


def platform_manifest(
    store: Store, root: Descriptor, platform: Platform | None, name: str
) -> PlatformManifest:
    """The manifest behind ``root``: for ``platform``, or the one that the image id stands for.

    A single manifest serves any platform. Raises NoSuchImage, BlobMissing, InvalidValue.
    """
    descriptor = root
    for _ in range(MAX_INDEX_DEPTH):
        found = document(store, descriptor)
        if isinstance(found, Manifest):
            return PlatformManifest(descriptor=descriptor, manifest=found, config=read_config(store, found))
        descriptor = choose(found, platform, name) if platform is not None else _present(store, found, name)
    raise InvalidValue(f"{name}: indexes are nested too deeply")


def _present(store: Store, index: Index, name: str) -> Descriptor:
    """The entry that this machine would use among those that are in the store."""
    from builder.oci.platform import host_platform

    here = tuple(
        entry for entry in index.manifests if store.blobs.has(entry.digest) and not is_attestation(entry)
    )
    if not here:
        raise NoSuchImage(f"{name}: none of its platforms is in the store", hint="pull it again")
    try:
        return choose(Index(manifests=here), host_platform(), name)
    except NoSuchImage:
        return here[0]


def is_complete(store: Store, root: Descriptor) -> bool:
    """Whether everything that ``root`` reaches is in the store."""
    from builder.exporter.archive import reachable

    if not store.blobs.has(root.digest):
        return False
    if root.media_type not in MANIFEST_TYPES:
        children = document(store, root)
        if isinstance(children, Index) and not all(store.blobs.has(c.digest) for c in children.manifests):
            return False
    return all(store.blobs.has(item.digest) for item in reachable(store.blobs, root))


def portable_root(store: Store, image: StoredImage, platform: Platform | None, name: str) -> Descriptor:
    """What to push or save for an image: all of it when all is here, else the one platform that is."""
    if platform is None and is_complete(store, image.manifest):
        return image.manifest
    return platform_manifest(store, image.manifest, platform, name).descriptor
