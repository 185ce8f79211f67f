"""How large layers are when unpacked: remembered from unpacking, read from a gzip's end, or the blob's
size."""

from __future__ import annotations

import os

from builder.cache.store import Store
from builder.cache.unpack import SIZE_DOC
from builder.images.select import PlatformManifest
from builder.oci.descriptor import Descriptor, layer_compression
from builder.oci.digest import DiffId


def layer_sizes(store: Store, image: PlatformManifest) -> tuple[int, ...]:
    """Bytes of each layer's tar, lowest first."""
    pairs = zip(image.manifest.layers, image.config.diff_ids, strict=True)
    return tuple(_layer_size(store, layer, diff_id) for layer, diff_id in pairs)


def _layer_size(store: Store, layer: Descriptor, diff_id: DiffId) -> int:
    known = store.doc(SIZE_DOC, str(diff_id))
    if known is not None and known.isdigit():
        return int(known)
    if layer_compression(layer.media_type) != "gzip" or not store.blobs.has(layer.digest):
        return layer.size
    with store.blobs.open(layer.digest) as file:
        if layer.size < 18:
            return layer.size
        file.seek(-4, os.SEEK_END)
        size = int.from_bytes(file.read(4), "little")  # modulo 4 GiB: good enough for a column
    return max(size, layer.size if size < layer.size // 4 else size)
