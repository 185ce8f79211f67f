"""Early cut-off: a step whose inputs were made anew, but with the same content, needs not run again.

Records of the same operation are compared input by input: equal keys, the same snapshot, or trees whose
selected parts have the same content digest (times left out). Content digests are made only when such a record
exists,
and kept per snapshot, so a first build pays nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from builder.cache.holds import Hold
from builder.cache.keys import KEY_VERSION
from builder.cache.store import Store
from builder.cache.tree import View
from builder.cache.types import CacheRecord
from builder.errors import PathNotFound
from builder.llb.ops import Copy, FileOp
from builder.oci.canonical import canonical_json
from builder.oci.digest import Digest
from builder.solver.planning import Node, copies_of, selected_paths

_OF_RECORD = "content-of-record"
_TO_RECORD = "record-by-content"


def equal_record(
    node: Node, snapshots: Mapping[int, str | None], store: Store, hold: Hold
) -> CacheRecord | None:
    """The stored record of ``node``'s operation whose inputs had the content that they have now.

    Each record is read once, then found by a key made of contents, however many there are (CKY-12).
    """
    records = [record for record in store.records.near(node.op, node.vertex.name) if record.op == node.op]
    if not records:
        return None
    for record in records:
        if store.doc(_OF_RECORD, record.key) is None:
            inputs = [_Content.of(item) for item in record.parts.get("inputs") or ()]
            key = _content_key(node, inputs, store, hold)
            store.put_doc(_OF_RECORD, record.key, key.encode())
            if key:
                store.put_doc(_TO_RECORD, key, record.key.encode())
    now = [
        _Content(part.content, part.selector, snapshots.get(position))
        for position, part in enumerate(node.inputs)
    ]
    found = store.doc(_TO_RECORD, _content_key(node, now, store, hold))
    return store.records.lookup(found.decode()) if found is not None else None


class _Content(NamedTuple):
    """What counts of an input: a digest of its content, or the snapshot that it is taken from."""

    content: str
    selector: str
    snapshot: str | None

    @classmethod
    def of(cls, stored: Mapping[str, str]) -> _Content:
        """As it stands in a record's parts."""
        return cls(stored.get("content", ""), stored.get("selector", ""), stored.get("snapshot") or None)


def is_same_input(node: Node, position: int, before: str, now: str | None, store: Store, hold: Hold) -> bool:
    """Whether what ``node`` reads of an input was the same in another snapshot; no, too, when one is gone."""
    if now is None or not (hold.snapshot(before) and hold.snapshot(now)):
        return False
    if before == now:
        return True
    if _is_whole(node, position):
        return tree_digest(store, before) == tree_digest(store, now)
    return selection_digest(node, position, before, store) == selection_digest(node, position, now, store)


def _content_key(node: Node, inputs: Sequence[_Content], store: Store, hold: Hold) -> str:
    """The digest of ``node``'s operation on inputs of this content; empty when a snapshot is gone."""
    if len(inputs) != len(node.inputs):
        return ""
    parts: list[list[str]] = []
    for position, (content, selector, snapshot) in enumerate(inputs):
        if content or snapshot is None:
            parts.append(["content", content, selector])
        elif not hold.snapshot(snapshot):
            return ""
        elif _is_whole(node, position):
            parts.append(["tree", tree_digest(store, snapshot), selector])
        else:
            parts.append(["selection", selection_digest(node, position, snapshot, store), selector])
    return str(Digest.of(canonical_json([node.op, parts])))


def _is_whole(node: Node, position: int) -> bool:
    """Whether the step sees the whole input: as its root, or as the base of a file operation."""
    if isinstance(node.vertex.op, FileOp):
        return any(item.input == position for item in node.vertex.op.actions) or not copies_of(
            node.vertex, position
        )
    return not selected_paths(node.vertex, position)


def selection_digest(node: Node, position: int, snapshot: str, store: Store) -> str:
    """Content digest of what ``node`` reads of an input; a text that is no digest when it is not there."""
    copies = copies_of(node.vertex, position)
    name = str(Digest.of(canonical_json([KEY_VERSION, *map(_selector, copies)])))
    memo = f"{snapshot}:{name}"
    known = store.doc("content", memo)
    if known is not None:
        return known.decode()
    from builder.cache.contenthash import ContentHasher

    try:
        view = View(store.snapshots.layers(snapshot), userxattr=store.snapshots.userxattr)
        digest = ContentHasher(view).select(copies).key
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
    from builder.cache.restack import read_list

    digest = ""
    for info in reversed(store.snapshots.chain(snapshot)):
        known = store.snapshots.content_digest(info.id)
        if known is None:
            if info.chain_id is not None:
                known = Digest.of(f"chain {info.chain_id}".encode())
            elif (recipe := store.snapshots.recipe(info.id)) is not None:
                sources = [tree_digest(store, item) if item else "" for item in (recipe.lower, recipe.source)]
                known = Digest.of(f"{digest} {recipe.kind} {sources}".encode())
            else:
                own, _ = store.snapshots.diff_dir(info.id)
                entries = ContentHasher(View((own,), raw=True, userxattr=store.snapshots.userxattr)).tree()
                known = Digest.of(f"{digest} {entries}".encode() + (read_list(own) or b""))
            store.snapshots.set_content_digest(info.id, known)
        digest = str(known)
    return digest
