"""One layer blob into a snapshot, checked against its diff id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cache.extract import apply
from builder.cache.problems import translated
from builder.cache.treewriter import Writer
from builder.errors import DigestMismatch, PybuildError

if TYPE_CHECKING:
    from builder.cache.store import Store
    from builder.cache.types import Active
    from builder.oci.descriptor import Descriptor
    from builder.oci.digest import DiffId

SIZE_DOC = "layer-size"
"""Documents under a diff id: the bytes of the files in the layer."""


def apply_layer(store: Store, active: Active, layer: Descriptor, diff_id: DiffId) -> None:
    """Make the layer's changes to the tree of ``active``. Raises DigestMismatch, StoreError, BadArchive."""
    writer = Writer(active.upper, active.lowers, userxattr=active.userxattr)
    with store.blobs.open(layer.digest) as blob, writer, translated(f"unpack layer {layer.digest}"):
        try:
            result = apply(blob, writer)
        except PybuildError as error:
            error.context = (*error.context, f"while unpacking layer {layer.digest}")
            raise
    if result.diff_id != diff_id:
        raise DigestMismatch(
            f"layer {layer.digest} unpacks to {result.diff_id}, but the image config says {diff_id}"
        )
    store.put_doc(SIZE_DOC, str(diff_id), str(result.size).encode())
