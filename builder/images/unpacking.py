"""Layers into snapshots (SIM-05, LAY-09, LAY-10): in order, each once, each checked against its diff id."""

from __future__ import annotations

from collections.abc import Sequence

from builder.cache.estargz import SIZE_ANNOTATION, TOC_ANNOTATION
from builder.cache.holds import Hold
from builder.cache.lazy import add
from builder.cache.store import Store
from builder.cache.types import Recipe, SnapshotInfo, StoredImage
from builder.cache.unpack import apply_layer
from builder.errors import BlobMissing
from builder.exporter.steps import Steps
from builder.images.select import platform_manifest
from builder.oci.descriptor import Descriptor, layer_compression
from builder.oci.digest import ChainId, DiffId, chain_ids
from builder.oci.platform import Platform
from builder.solver.progress import OnEvent

_KEPT = (TOC_ANNOTATION, SIZE_ANNOTATION)
"""Annotations of a layer that hold for its blob wherever it goes (CMPR-01)."""


def unpack(
    store: Store,
    image: Descriptor | StoredImage,
    hold: Hold,
    on_event: OnEvent | None = None,
    *,
    platform: Platform | None = None,
    vertex: str = "",
) -> str | None:
    """The committed snapshot of an image's tree, held by ``hold``; None for an image without layers (SIM-07).

    ``image`` is a stored image, a manifest or an index; its layer blobs must be in the store. Raises
    DigestMismatch when a layer is not what the config says, BlobMissing, BadArchive.
    """
    root = image.manifest if isinstance(image, StoredImage) else image
    found = platform_manifest(store, root, platform, str(root.digest))
    return unpack_layers(store, found.manifest.layers, found.config.diff_ids, hold, on_event, vertex=vertex)


def unpack_layers(
    store: Store,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[DiffId],
    hold: Hold,
    on_event: OnEvent | None = None,
    *,
    vertex: str = "",
) -> str | None:
    """The same for layers (lowest first) whose diff ids are known."""
    chains = chain_ids(tuple(diff_ids))
    known, done = _topmost(store, chains, hold, lazy=False)
    steps = Steps(on_event, vertex)
    parent = known
    for index in range(done):
        _remember_layer(store, chains[index], diff_ids[index], layers[index])
    for index in range(done, len(chains)):
        parent = _unpack_one(store, layers[index], diff_ids[index], chains[index], parent, hold, steps)
    return parent


def promise_layers(
    store: Store, layers: Sequence[Descriptor], diff_ids: Sequence[DiffId], hold: Hold
) -> str | None:
    """A snapshot of these layers that is unpacked when somebody mounts it (SLV-09); their blobs are here."""
    chains = chain_ids(tuple(diff_ids))
    parent, done = _topmost(store, chains, hold, lazy=True)
    for index in range(done):
        _remember_layer(store, chains[index], diff_ids[index], layers[index])
    for index in range(done, len(chains)):
        description = f"layer {layers[index].digest}"
        with store.db.write():
            parent = add(store, parent, Recipe("image"), description=description, chain_id=chains[index])
            _set_layer(store, parent, diff_ids[index], layers[index])
        hold.snapshot(parent)
    return parent


def _topmost(store: Store, chains: Sequence[ChainId], hold: Hold, *, lazy: bool) -> tuple[str | None, int]:
    """The highest stack that is unpacked already (or ``lazy``), and how many layers it has."""
    for count in range(len(chains), 0, -1):
        info = store.snapshots.by_chain(chains[count - 1])
        if info is not None and (lazy or info.driver != "lazy") and hold.snapshot(info.id):
            store.snapshots.touch(info.id)
            return info.id, count
    return None, 0


def _unpack_one(
    store: Store,
    layer: Descriptor,
    diff_id: DiffId,
    chain: ChainId,
    parent: str | None,
    hold: Hold,
    steps: Steps,
) -> str:
    with store.lock(f"unpack {chain}"):
        info = store.snapshots.by_chain(chain)  # another process may have done it while we waited
        if info is not None and hold.snapshot(info.id):
            if info.driver == "lazy":
                with steps.step(f"extracting {layer.digest}", layer.size):
                    store.snapshots.layers(info.id)
            return info.id
        if not store.blobs.has(layer.digest):
            raise BlobMissing(f"layer {layer.digest} is not in the store", hint="pull the image again")
        with steps.step(f"extracting {layer.digest}", layer.size):
            info = _applied(store, layer, diff_id, chain, parent)
    hold.snapshot(info.id)
    _set_layer(store, info.id, diff_id, layer)
    return info.id


def _remember_layer(store: Store, chain: ChainId, diff_id: DiffId, layer: Descriptor) -> None:
    """A snapshot outlives the blob that it came from, and the process that was to note it: note it again.

    Without the note its layer would be packed anew, and need not come out as it was.
    """
    info = store.snapshots.by_chain(chain)
    if info is not None and store.snapshots.any_layer(info.id) is None and store.blobs.has(layer.digest):
        _set_layer(store, info.id, diff_id, layer)


def _set_layer(store: Store, snapshot: str, diff_id: DiffId, layer: Descriptor) -> None:
    store.snapshots.set_layer(
        snapshot,
        compression=layer_compression(layer.media_type),
        diff_id=diff_id,
        descriptor=Descriptor(
            media_type=layer.media_type,
            digest=layer.digest,
            size=layer.size,
            urls=layer.urls,
            annotations=tuple(pair for pair in layer.annotations if pair[0] in _KEPT),
        ),
    )


def _applied(
    store: Store, layer: Descriptor, diff_id: DiffId, chain: ChainId, parent: str | None
) -> SnapshotInfo:
    active = store.snapshots.prepare(parent, description=f"pulled from {layer.digest}")
    try:
        apply_layer(store, active, layer, diff_id)
        return store.snapshots.commit(active, chain_id=chain, description=f"layer {layer.digest}")
    except BaseException:
        store.snapshots.discard(active)
        raise
