"""What the base images of a build say about their layers (EXP-14), and which trees here are images' trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.build.sources import BaseImage
from builder.cache.snapshotrows import BUILT_AS, CHAIN_OF
from builder.cache.store import Store
from builder.oci.descriptor import Descriptor
from builder.oci.digest import ChainId, DiffId, chain_ids

Original = tuple[DiffId, Descriptor]


@dataclass(slots=True)
class BaseLayers:
    """The layers of the images in ``images``, which may grow, by the snapshots of their trees."""

    store: Store
    images: Mapping[str, BaseImage]
    _known: dict[ChainId, Original] = field(default_factory=dict)
    _seen: int = 0

    def original(self, snapshot: str) -> Original | None:
        """The layer that a base image has for this snapshot; None for a snapshot of another origin."""
        if len(self.images) != self._seen:
            self._look()
        if not self._known:
            return None
        info = self.store.snapshots.get(snapshot)
        chain = info.chain_id if info is not None else None
        if chain is None:
            chain = built_chain(self.store, snapshot)
        return self._known.get(chain) if chain is not None else None

    def _look(self) -> None:
        images = list(self.images.values())
        self._seen = len(images)
        for image in images:
            layers, diff_ids = image.layers
            for chain, diff_id, layer in zip(chain_ids(diff_ids), diff_ids, layers, strict=False):
                self._known.setdefault(chain, (diff_id, layer))


def built_chain(store: Store, snapshot: str) -> ChainId | None:
    """The chain id of an image that was built here, by the snapshot of its tree."""
    from builder.oci.digest import Digest

    found = store.doc(CHAIN_OF, snapshot)
    return ChainId(Digest.parse(found.decode("ascii"))) if found is not None else None


def note_built(store: Store, snapshots: Mapping[ChainId, str]) -> None:
    """Remember trees of images that were built here, so that these need not be unpacked (LCS-04)."""
    from builder.cache.names import from_base36

    new = {
        chain: snapshot
        for chain, snapshot in snapshots.items()
        if store.doc(CHAIN_OF, snapshot) != str(chain).encode() or store.snapshots.by_chain(chain) is None
    }
    if not new:
        return
    with store.db.write():
        for chain, snapshot in new.items():
            store.put_doc(BUILT_AS, str(chain), str(from_base36(snapshot)).encode())
            store.put_doc(CHAIN_OF, snapshot, str(chain).encode())
