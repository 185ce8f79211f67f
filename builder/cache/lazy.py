"""Trees that are made when somebody looks at them (MRG-03, SLV-09).

A lazy snapshot is a committed row without a directory; its row in ``lazy_snapshots`` says what its layer is.
It can be exported, merged and compared again. Whoever needs its directory makes it, once for all processes:
in an active snapshot, which then takes its place.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from builder.cache.boot import boot_id, note_running
from builder.cache.faults import point
from builder.cache.names import base36, from_base36, snapshot_path
from builder.cache.problems import translated
from builder.cache.removal import discard_path
from builder.cache.restack import layer_changes, restack
from builder.cache.stacks import snapshot_gone
from builder.cache.tree import View
from builder.cache.types import Active, Recipe, SnapshotInfo
from builder.errors import BlobMissing

if TYPE_CHECKING:
    from builder.cache.store import Store
    from builder.oci.digest import ChainId

TABLE = (
    "CREATE TABLE IF NOT EXISTS lazy_snapshots("
    "snapshot INTEGER PRIMARY KEY, kind TEXT NOT NULL, source INTEGER, lower INTEGER)"
)
_COLUMNS = (
    "parent, kind, chain_id, driver, created_ns, last_used_ns, description, record_type, boot,"
    " committed_mono_ns"
)


def add(
    store: Store,
    parent: str | None,
    recipe: Recipe,
    *,
    description: str,
    chain_id: ChainId | None = None,
) -> str:
    """A new lazy snapshot on ``parent``, held by this process's open holds.

    When the store has one with this chain id already, that one is the answer. StoreError when something that
    it is made of is gone.
    """
    now = time.time_ns()
    made_of = [item for item in (parent, recipe.source, recipe.lower) if item is not None]
    with store.db.write() as tx:
        for item in made_of:
            row = tx.execute("SELECT kind FROM snapshots WHERE id=?", (from_base36(item),)).fetchone()
            if row is None or row[0] != "committed":
                raise snapshot_gone(item)
        if chain_id is not None:
            row = tx.execute("SELECT id FROM snapshots WHERE chain_id=?", (str(chain_id),)).fetchone()
            if row is not None:
                store.snapshots.published(base36(row[0]))
                return base36(row[0])
        tx.execute(TABLE)  # state directories from before there were lazy snapshots
        chain = None if chain_id is None else str(chain_id)
        values = (
            _number(parent), "committed", chain, "lazy", now, now, description, "regular", boot_id(),
            time.monotonic_ns(),
        )  # fmt: skip
        marks = ",".join("?" * len(values))
        done = tx.execute(f"INSERT INTO snapshots({_COLUMNS}) VALUES({marks})", values)
        assert done.lastrowid is not None
        tx.execute(
            "INSERT INTO lazy_snapshots(snapshot, kind, source, lower) VALUES(?,?,?,?)",
            (done.lastrowid, recipe.kind, _number(recipe.source), _number(recipe.lower)),
        )
        store.snapshots.published(base36(done.lastrowid))
        note_running(tx, boot_id())
    return base36(done.lastrowid)


def realise(store: Store, snapshot: str) -> None:
    """Make the directory of a lazy snapshot whose parent has one; others that want it wait.

    Raises StoreError, BlobMissing, DigestMismatch, OSError; it stays lazy then.
    """
    with store.lock(f"realise/{snapshot}"):
        info = store.snapshots.get(snapshot)
        if info is None:
            raise snapshot_gone(snapshot)
        if info.driver != "lazy":
            return
        active = store.snapshots.prepare(
            info.parent, description=f"tree of {snapshot}", record_type="internal"
        )
        try:
            _fill(store, info, active)
            _settle(active)
            point("lazy.made")
            _publish(store, snapshot, active)
        except BaseException:
            store.snapshots.discard(active)
            raise


def _fill(store: Store, info: SnapshotInfo, active: Active) -> None:
    recipe = store.snapshots.recipe(info.id)
    if recipe is None:
        raise snapshot_gone(info.id)
    if recipe.kind != "image":
        with (
            translated("make the tree of a merge"),
            layer_changes(store.snapshots, info.id, mounted=True) as (found, tree),
        ):
            assert isinstance(tree, View)
            restack(found, tree, active)
        if recipe.kind == "layer" and recipe.source is not None:
            store.snapshots.share_layers(recipe.source, info.id)
        return
    from builder.cache.unpack import apply_layer

    layer = store.snapshots.any_layer(info.id)
    if layer is None or not store.blobs.has(layer[1].digest):
        raise BlobMissing(
            f"the layer of snapshot {info.id} is not in the store",
            hint="pull the image again, or build with --no-cache",
        )
    apply_layer(store, active, layer[1], layer[0])


def _settle(active: Active) -> None:
    if active.work is not None:
        from builder.cache.overlay import OverlaySnapshotter

        OverlaySnapshotter().settle(str(active.upper.parent))


def _publish(store: Store, snapshot: str, active: Active) -> None:
    """The tree of ``active`` becomes that of ``snapshot``.

    From before the rename until the row says that it is there, a note in ``trash`` has it removed by whoever
    opens the store after us; nobody looks at notes while the gate is passed.
    """
    path, number = snapshot_path(from_base36(snapshot)), from_base36(snapshot)
    with store.gate.passing():
        store.db.run("INSERT OR IGNORE INTO trash(path) VALUES(?)", (path,))
        point("lazy.noted")
        discard_path(
            f"{store.root}/{path}", f"{store.root}/tmp"
        )  # of a process that died between these lines
        with translated("put a tree in its place"):
            os.rename(active.upper.parent, f"{store.root}/{path}")
        point("lazy.placed")
        with store.db.write() as tx:
            changed = tx.execute(
                "UPDATE snapshots SET driver=?, size=-1, boot=?, committed_mono_ns=?"
                " WHERE id=? AND driver='lazy'",
                (active.driver, boot_id(), time.monotonic_ns(), number),
            ).rowcount
            if not changed:
                raise snapshot_gone(snapshot)
            tx.execute("DELETE FROM lazy_snapshots WHERE snapshot=?", (number,))
            tx.execute("DELETE FROM snapshots WHERE id=?", (from_base36(active.id),))
            tx.execute("DELETE FROM trash WHERE path=?", (path,))
            note_running(tx, boot_id())
    point("lazy.committed")


def _number(snapshot: str | None) -> int | None:
    return None if snapshot is None else from_base36(snapshot)
