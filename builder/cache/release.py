"""Frees what only a removed image needed, at once: its content, and the trees that were unpacked from it.

What a build made of it is build cache, and stays until that is pruned; so does what another image, a
container, a live process or a tree on top of it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.cache.names import base36
from builder.cache.trash import empty_trash, remove_gone, trash_blobs, trash_snapshots
from builder.cache.usage import Kept, blob_closure, look

if TYPE_CHECKING:
    from builder.cache.store import Store


def content_of(store: Store, manifests: Sequence[str]) -> tuple[set[str], set[str]]:
    """The blobs that images need and the chain ids of their layers; asked for before they are removed."""
    chains: set[str] = set()
    return blob_closure(store, manifests, chains), chains


def release(store: Store, content: tuple[set[str], set[str]]) -> None:
    """Remove those of ``content`` that nothing needs any more."""
    blobs, chains = content
    with store.gate.removing():
        with store.db.write() as tx:
            kept = look(store)
            numbers = _trees(store, kept, chains)
            doomed = set(blobs)
            for number in numbers:
                for digest in kept.layers.get(number, ()):
                    kept.layer_users[digest] -= 1
                    doomed.add(digest)
            needed = {digest for digest, users in kept.layer_users.items() if users}
            trash_snapshots(tx, numbers)
            trash_blobs(tx, sorted(doomed - needed - kept.image_blobs - kept.held_blobs))
        gone = empty_trash(store.db, str(store.root))
    remove_gone(gone)


def _trees(store: Store, kept: Kept, chains: set[str]) -> list[int]:
    """Unpacked layers that no image has, no cache record names and nothing stands on, topmost first."""
    found: list[int] = []
    children = dict(kept.children)
    free = {row.id for row in kept.rows if row.kind == "snapshot" and not (row.in_use or row.shared)}
    rows = store.db.all(
        "SELECT id, chain_id FROM snapshots WHERE chain_id IS NOT NULL"
        " AND id NOT IN (SELECT snapshot FROM record_outputs) ORDER BY id DESC"
    )
    for number, chain in rows:
        if chain not in chains or children.get(number) or base36(number) not in free:
            continue
        found.append(number)
        for parent in kept.parents.get(number, ()):
            children[parent] -= 1
    return found
