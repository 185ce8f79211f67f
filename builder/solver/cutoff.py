"""Early cut-off: a step whose inputs were made anew, but with the same content, needs not run again.

Records of the same operation are compared input by input: equal keys, the same snapshot, or trees whose
selected parts have the same content digest (times left out). Content digests are made only when such a record
exists,
and kept per snapshot, so a first build pays nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.cache.store import Store
from builder.cache.tree import View
from builder.cache.types import CacheRecord
from builder.errors import PathNotFound
from builder.llb.ops import Copy, FileOp
from builder.oci.canonical import canonical_json
from builder.oci.digest import Digest
from builder.solver.planning import Node, copies_of, selected_paths


def equal_record(node: Node, snapshots: Mapping[int, str | None], store: Store) -> CacheRecord | None:
    """The newest stored record of ``node``'s operation whose inputs had the content that they have now."""
    for record in store.records.near(node.op, node.vertex.name):
        if record.op != node.op:
            continue  # only called the same, or for another platform
        stored = record.parts.get("inputs") or []
        if len(stored) == len(node.inputs) and all(
            _same_input(node, position, stored[position], snapshots.get(position), store)
            for position in range(len(stored))
        ):
            return record
    return None


def _same_input(
    node: Node, position: int, stored: dict[str, str], snapshot: str | None, store: Store
) -> bool:
    part = node.inputs[position]
    if part.content:
        return stored.get("content") == part.content
    if stored.get("selector", "") != part.selector:
        return False
    before = stored.get("snapshot") or None
    if before == snapshot:
        return True
    if before is None or snapshot is None or store.snapshots.get(before) is None:
        return False
    if _is_whole(node, position):
        return tree_digest(store, before) == tree_digest(store, snapshot)
    return _selection_digest(node, position, before, store) == _selection_digest(
        node, position, snapshot, store
    )


def _is_whole(node: Node, position: int) -> bool:
    """Whether the step sees the whole input: as its root, or as the base of a file operation."""
    if isinstance(node.vertex.op, FileOp):
        return any(item.input == position for item in node.vertex.op.actions) or not copies_of(
            node.vertex, position
        )
    return not selected_paths(node.vertex, position)


def _selection_digest(node: Node, position: int, snapshot: str, store: Store) -> str:
    copies = copies_of(node.vertex, position)
    name = str(Digest.of(canonical_json([_selector(copy) for copy in copies])))
    memo = f"{snapshot}:{name}"
    known = store.doc("content", memo)
    if known is not None:
        return known.decode()
    from builder.cache.contenthash import ContentHasher

    try:
        digest = str(
            ContentHasher(View(store.snapshots.layers(snapshot), userxattr=store.snapshots.userxattr))
            .select(copies)
            .digest
        )
    except PathNotFound:
        return f"missing in {snapshot}"
    store.put_doc("content", memo, digest.encode())
    return digest


def _selector(copy: Copy) -> list[object]:
    return [
        copy.src,
        copy.dir_contents,
        copy.follow_symlink,
        copy.allow_wildcard,
        copy.attempt_unpack,
        list(copy.include_patterns),
        list(copy.exclude_patterns),
        list(copy.required_paths),
    ]


def tree_digest(store: Store, snapshot: str) -> str:
    """Content digest of a snapshot as a chain of differences down to an image layer's chain id."""
    from builder.cache.contenthash import ContentHasher

    digest = ""
    for info in reversed(store.snapshots.chain(snapshot)):
        known = store.snapshots.content_digest(info.id)
        if known is None:
            if info.chain_id is not None:
                known = Digest.of(f"chain {info.chain_id}".encode())
            else:
                own, _ = store.snapshots.diff_dir(info.id)
                entries = ContentHasher(View((own,), raw=True, userxattr=store.snapshots.userxattr)).tree()
                known = Digest.of(f"{digest} {entries}".encode())
            store.snapshots.set_content_digest(info.id, known)
        digest = str(known)
    return digest
