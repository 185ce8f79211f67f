"""``--squash``: what a build added to its base as one layer."""

from __future__ import annotations

from dataclasses import replace

from builder.cache.differ import compare, root_change
from builder.cache.pack import pack_changes
from builder.cache.store import Store
from builder.cache.tree import View
from builder.exporter.types import BuiltImage, LayerRef, OutputSpec
from builder.oci.config import History


def squashed(store: Store, image: BuiltImage, spec: OutputSpec) -> BuiltImage:
    """``image`` with one layer in the place of all that are not its base's. Raises StoreError."""
    kept = tuple(layer for layer in image.layers if layer.base)
    merged = image.layers[len(kept) :]
    if len(merged) < 2 or image.snapshot is None:
        return image
    snapshots = store.snapshots
    chain = tuple(reversed(snapshots.chain(image.snapshot)))
    base = chain[len(kept) - 1].id if kept else None
    exact = spec.buildkit_layers
    with (
        View(snapshots.layers(base), userxattr=snapshots.userxattr) as before,
        View(snapshots.layers(image.snapshot), userxattr=snapshots.userxattr) as after,
    ):
        packed = pack_changes(
            store.blobs,
            [*([] if exact else root_change(before, after)), *compare(before, after)],
            after,
            compression=spec.compression,
            level=spec.compression_level,
            clamp_s=spec.epoch if spec.rewrite_timestamp else None,
            user_xattrs=not exact,
        )
    layer = LayerRef(diff_id=packed.diff_id, descriptor=packed.descriptor, created=merged[-1].created)
    history = [
        entry if number < image.base_history else replace(entry, empty_layer=True)
        for number, entry in enumerate(image.config.history)
    ]
    history.append(History(created=merged[-1].created, comment=f"merge of {len(merged)} layers"))
    return replace(image, layers=(*kept, layer), config=replace(image.config, history=tuple(history)))
