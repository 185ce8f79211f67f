"""Base images: a name to a config now, its layers later (SIM-01…SIM-07).

``resolve_image`` fetches no more than manifests and the config; ``ensure_layers`` brings the layers when
somebody needs the tree. An image that was fetched whole keeps its name in the store, so that the next build
asks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from builder.cache.store import Store
from builder.cache.types import StoredImage
from builder.errors import (
    BlobMissing,
    DigestMismatch,
    InvalidValue,
    NoSuchImage,
    NotFoundInRegistry,
    RegistryError,
)
from builder.exporter.sources import mount_sources, record_source
from builder.exporter.steps import Steps
from builder.images.progress import transfers
from builder.images.select import PlatformManifest, choose, document, platform_manifest, read_config
from builder.oci.config import MAX_CONFIG_BYTES, ImageConfig
from builder.oci.descriptor import Descriptor
from builder.oci.digest import ChainId, Digest, chain_ids
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest, parse_document
from builder.oci.platform import Platform, host_platform
from builder.oci.reference import Reference
from builder.registry.client import RegistryClient, client_for
from builder.registry.hosts import RegistryConfig
from builder.registry.progress import OnTransfer
from builder.registry.pull import fetch_blobs
from builder.solver.progress import OnEvent

Mode = Literal["default", "pull", "local"]
_NO_REGISTRIES = RegistryConfig()
_MIN_ID_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedBase:
    """A base image for one platform. ``digest`` is that of ``root``, which the name stands for; manifest and
    config are in the store, layers may not be.
    """

    digest: Digest
    root: Descriptor
    manifest: Descriptor
    layers: tuple[Descriptor, ...]
    config: ImageConfig
    config_digest: Digest
    platform: Platform
    source: Literal["store", "registry", "layout", "archive"]
    ref: str = ""
    registry: RegistryConfig = field(default=_NO_REGISTRIES, repr=False, compare=False)
    path: Path | None = None

    @property
    def chain_id(self) -> ChainId | None:
        """Chain id of all its layers; None without any."""
        return chain_ids(self.config.diff_ids)[-1] if self.config.diff_ids else None


def resolve_image(
    store: Store,
    ref_text: str,
    platform: Platform | None = None,
    mode: Mode = "default",
    registry_config: RegistryConfig = _NO_REGISTRIES,
    on_event: OnEvent | None = None,
    *,
    vertex: str = "",
) -> ResolvedBase:
    """What ``ref_text`` is for ``platform`` (default: this machine's).

    ``default`` and ``local`` take the store's image when it has the name (and the platform), else ask the
    registry; ``pull`` always asks. A reference with a digest that is in the store never asks. Raises
    NoSuchImage, RegistryError, InvalidValue, DigestMismatch.
    """
    wanted = platform or host_platform()
    steps = Steps(on_event, vertex)
    if mode != "pull":
        found = stored_image(store, ref_text, wanted, registry_config)
        if found is not None:
            return found
    ref = Reference.parse(ref_text).with_default_tag()
    client = client_for(registry_config)
    with steps.step(f"resolve {ref}"):
        try:
            root, chosen = fetch_documents(store, client, ref, wanted)
        except NotFoundInRegistry as error:
            raise NotFoundInRegistry(
                f"{ref}: not found", request=error.request, status=error.status, context=(error.message,)
            ) from error
    return _resolved(root, chosen, wanted, "registry", ref=str(ref), registry=registry_config)


def ensure_layers(
    store: Store, resolved: ResolvedBase, on_event: OnEvent | None = None, *, vertex: str = ""
) -> None:
    """Bring the layers of ``resolved`` into the store; nothing happens when they are here.

    Raises RegistryError, DigestMismatch, BlobMissing.
    """
    missing = [layer for layer in resolved.layers if not store.blobs.has(layer.digest)]
    if missing and resolved.path is not None:
        from builder.images.layout import open_layout

        with open_layout(resolved.path) as layout:
            for layer in missing:
                layout.copy(layer, store.blobs)
    elif missing:
        if not resolved.ref:
            raise BlobMissing(
                f"layer {missing[0].digest} is not in the store", hint="load or pull the image again"
            )
        ref = Reference.parse(resolved.ref)
        moved = transfers(Steps(on_event, vertex))
        fetch_layers(store, client_for(resolved.registry), ref, missing, moved)
    if resolved.source == "registry":
        store.images.tag(resolved.ref, resolved.root)


def fetch_layers(
    store: Store, client: RegistryClient, ref: Reference, layers: list[Descriptor], on_transfer: OnTransfer
) -> None:
    """Fetch layer blobs in parallel, each by one process at a time, and note where they came from."""
    fetch_blobs(
        client,
        ref,
        layers,
        store.blobs,
        on_transfer=on_transfer,
        guard=lambda digest: store.lock(f"blob {digest}"),
    )
    for layer in layers:
        record_source(store, layer.digest, ref)


def fetch_documents(
    store: Store, client: RegistryClient, ref: Reference, platform: Platform
) -> tuple[Descriptor, PlatformManifest]:
    """Bring what ``ref`` names, the manifest for ``platform`` and its config into the store."""
    root = _fetch_document(store, client, ref)
    descriptor = root
    for _ in range(4):
        found = document(store, descriptor)
        if isinstance(found, Manifest):
            _fetch_config(store, client, ref, found.config)
            return root, PlatformManifest(
                descriptor=descriptor, manifest=found, config=read_config(store, found)
            )
        child = choose(found, platform, str(ref))
        fetched = _fetch_document(store, client, ref.with_digest(child.digest))
        if fetched.size != child.size:
            raise DigestMismatch(f"{ref}: manifest {child.digest} does not have the size that the index says")
        descriptor = child
    raise NoSuchImage(f"{ref}: indexes are nested too deeply")


def _fetch_document(store: Store, client: RegistryClient, ref: Reference) -> Descriptor:
    """A manifest or index by tag or digest. A tag costs a HEAD when its document is here already."""
    if ref.digest is not None and store.blobs.has(ref.digest):
        data = store.blobs.read(ref.digest, MAX_DOCUMENT_BYTES)
        return Descriptor(media_type=parse_document(data).media_type, digest=ref.digest, size=len(data))
    if ref.digest is None:
        named = client.resolve(ref)
        if store.blobs.has(named.digest):
            return named
        ref = ref.with_digest(named.digest)
    descriptor, data = client.manifest(ref)
    with store.blobs.writer(expected=descriptor.digest, size=descriptor.size) as writer:
        writer.write(data)
        writer.commit()
    return descriptor


def _fetch_config(store: Store, client: RegistryClient, ref: Reference, config: Descriptor) -> None:
    if config.size > MAX_CONFIG_BYTES:
        raise RegistryError(f"{ref}: image config of {config.size} bytes is too large")
    fetch_blobs(client, ref, (config,), store.blobs)
    if str(ref.name) not in {source.name for source in mount_sources(store, config.digest)}:
        record_source(store, config.digest, ref)


def stored_image(
    store: Store, text: str, platform: Platform, registry: RegistryConfig = _NO_REGISTRIES
) -> ResolvedBase | None:
    """The store's image of that name or id, if it has this platform; never a short id prefix."""
    image = store.images.resolve(text)
    if image is None:
        return None
    ref = _named(image, text)
    if not ref and len(text.removeprefix("sha256:")) < _MIN_ID_DIGITS:
        return None  # "cafe" is a name that the store does not have, not the beginning of an id
    try:
        chosen = platform_manifest(store, image.manifest, platform, text)
    except (NoSuchImage, BlobMissing):
        return None
    return _resolved(image.manifest, chosen, platform, "store", ref=ref, registry=registry)


def _named(image: StoredImage, text: str) -> str:
    """``text`` as a full reference when it is one of the image's names, else ""."""
    try:
        ref = Reference.parse(text).with_default_tag()
    except InvalidValue:
        return ""
    if str(ref) in image.names or (ref.digest is not None and ref.digest == image.manifest.digest):
        return str(ref)
    return ""


def _resolved(
    root: Descriptor,
    chosen: PlatformManifest,
    platform: Platform,
    source: Literal["store", "registry", "layout", "archive"],
    *,
    ref: str = "",
    registry: RegistryConfig = _NO_REGISTRIES,
    path: Path | None = None,
) -> ResolvedBase:
    return ResolvedBase(
        digest=root.digest,
        root=root,
        manifest=chosen.descriptor,
        layers=chosen.manifest.layers,
        config=chosen.config,
        config_digest=chosen.config_digest,
        platform=chosen.config.platform if chosen.config.platform.os else platform,
        source=source,
        ref=ref,
        registry=registry,
        path=path,
    )


def resolved_from(
    root: Descriptor,
    chosen: PlatformManifest,
    platform: Platform | None,
    source: Literal["layout", "archive"],
    path: Path | None = None,
) -> ResolvedBase:
    """A base that came from a file."""
    return _resolved(root, chosen, platform or host_platform(), source, path=path)
