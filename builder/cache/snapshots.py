"""File trees by id: rows here, directories made by the overlay or the native snapshotter.

An active snapshot belongs to the process that prepared it (or to a container) and takes changes; a
committed one never changes. Ids are short counters and are never used twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from builder.cache.boot import note_running
from builder.cache.db import Database
from builder.cache.faults import point
from builder.cache.locks import NamedLock
from builder.cache.names import base36, from_base36
from builder.cache.snapshotrows import COLUMNS, info_of, recipe_of, with_chain
from builder.cache.stacks import LayerStacks, snapshot_gone
from builder.cache.staging import Owner
from builder.cache.types import Active, Driver, Recipe, SnapshotInfo
from builder.errors import BlobMissing, StoreFull
from builder.oci.descriptor import Descriptor
from builder.oci.digest import ChainId, DiffId, Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.protocols import Snapshotter

MAX_LAYERS = 400
"""A taller stack is flattened at its bottom: the kernel takes 500 lower directories, mount options fewer."""
_KEEP_LAYERS = 64


class SnapshotStore:
    """The snapshots of one state directory; safe for many threads and processes.

    ``published`` is called with an id before it can be pruned, so that whoever holds things can hold it.
    """

    def __init__(
        self,
        db: Database,
        root: str,
        owner: Owner,
        boot: Callable[[], str],
        choose: Callable[[], Snapshotter],
        *,
        published: Callable[[str], None] | None = None,
        touched: Callable[[str, str], None] | None = None,
        realise: Callable[[str], None] | None = None,
        max_layers: int = MAX_LAYERS,
    ) -> None:
        self._db = db
        self._root = root
        self._directory = f"{root}/snapshots"
        self._tmp = f"{root}/tmp"
        self._owner = owner
        self._boot = boot
        self._choose = choose
        self._published = published
        self._touched = touched
        self._max_layers = max_layers
        self._snapshotter: Snapshotter | None = None
        self._stacks = LayerStacks(db, self._fs, realise)

    @property
    def driver(self) -> Driver:
        """``overlay`` or ``native``."""
        return self._engine().driver

    @property
    def userxattr(self) -> bool:
        """Whether overlays here need the mount option of that name (and keep opaque marks in user
        attributes).
        """
        return self._engine().userxattr

    def prepare(self, parent: str | None, *, description: str = "", record_type: str = "regular") -> Active:
        """A new tree on top of ``parent`` that takes changes. StoreError when ``parent`` is gone or not
        committed.
        """
        engine = self._engine()
        number = self._insert(parent, engine.driver, description, record_type)
        point("snapshot.claimed")
        try:
            layers = self._stack(from_base36(parent)) if parent is not None else ()
            engine.make(self._path(number), layers, stacked=bool(layers))
        except BaseException:
            self._drop(number)
            raise
        point("snapshot.made")
        return self._active(number, parent, engine.driver, engine.userxattr, layers)

    def reopen(self, snapshot_id: str) -> Active:
        """An active snapshot that was prepared earlier: the writable tree of a container."""
        info = self.get(snapshot_id)
        if info is None or info.kind != "active":
            raise snapshot_gone(snapshot_id)
        layers = self._stack(from_base36(info.parent)) if info.parent is not None else ()
        driver: Driver = "overlay" if info.driver == "overlay" else "native"
        userxattr = driver == "overlay" and self._engine().userxattr
        return self._active(from_base36(info.id), info.parent, driver, userxattr, layers)

    def commit(
        self,
        active: Active,
        *,
        chain_id: ChainId | None = None,
        description: str = "",
        record_type: str = "regular",
    ) -> SnapshotInfo:
        """Freeze it. When the store has a snapshot with this chain id already, that one is returned
        instead.
        """
        number = from_base36(active.id)
        if active.work is not None:
            from builder.cache.overlay import OverlaySnapshotter

            OverlaySnapshotter().settle(self._path(number))
        self.published(active.id)
        point("snapshot.settled")
        existing = self._freeze(number, chain_id, description, record_type)
        point("snapshot.committed")
        if existing is not None:
            self._drop(number)
            number = existing
        info = self.get(base36(number))
        if info is None:
            raise snapshot_gone(active.id)
        return info

    def discard(self, active: Active) -> None:
        """Remove an active snapshot; one that is gone already is fine.

        On a full disk its files go before its row, so that there is room to write that it is gone; dying in
        between leaves an active snapshot without an owner, which the next opening removes.
        """
        number = from_base36(active.id)
        try:
            self._drop(number)
        except StoreFull:
            from builder.cache.removal import remove_tree

            remove_tree(self._path(number))
            self._drop(number)

    def get(self, snapshot_id: str) -> SnapshotInfo | None:
        """What is known about a snapshot."""
        row = self._db.one(
            f"SELECT {COLUMNS} FROM snapshots WHERE id=?",  # noqa: S608 (constant columns)
            (from_base36(snapshot_id),),
        )
        return None if row is None else info_of(row)

    def by_chain(self, chain_id: ChainId) -> SnapshotInfo | None:
        """The committed snapshot that holds this stack of layers."""
        return with_chain(self._db, chain_id)

    def list(self) -> tuple[SnapshotInfo, ...]:
        """Every snapshot, oldest first."""
        rows = self._db.all(f"SELECT {COLUMNS} FROM snapshots ORDER BY id")  # noqa: S608
        return tuple(info_of(row) for row in rows)

    def touch(self, snapshot_id: str) -> None:
        """Note that it was used; written when the store is closed."""
        if self._touched is not None:
            self._touched("snapshot", snapshot_id)

    def chain(self, snapshot_id: str) -> tuple[SnapshotInfo, ...]:
        """The snapshot, its parent, and so on down to the bottom; StoreError when it is gone."""
        rows = self._db.all(
            "WITH RECURSIVE up(n, depth) AS (SELECT ?, 0 UNION ALL"  # noqa: S608
            " SELECT s.parent, depth + 1 FROM snapshots s JOIN up ON s.id = n WHERE s.parent IS NOT NULL)"
            f" SELECT {COLUMNS} FROM up JOIN snapshots ON id = n ORDER BY depth",
            (from_base36(snapshot_id),),
        )
        if not rows:
            raise snapshot_gone(snapshot_id)
        return tuple(info_of(row) for row in rows)

    def layers(self, snapshot_id: str | None) -> tuple[Path, ...]:
        """The directories of the whole tree, topmost first, at most ``MAX_LAYERS``; () for the empty tree."""
        if not snapshot_id:
            return ()
        return tuple(Path(layer) for layer in self._stack(from_base36(snapshot_id)))

    def diff_dir(self, snapshot_id: str) -> tuple[Path, tuple[Path, ...]]:
        """The snapshot's own directory, and its parent's layers.

        An overlay one holds only its changes, a native one the whole tree (compare it with the parent's).
        """
        info = self.get(snapshot_id)
        if info is None:
            raise snapshot_gone(snapshot_id)
        if info.driver == "lazy":
            self.layers(snapshot_id)
        return Path(self._fs(from_base36(info.id))), self.layers(info.parent)

    def recipe(self, snapshot_id: str) -> Recipe | None:
        """What a lazy snapshot is made of; None for one that has its directory."""
        info = self.get(snapshot_id)
        lazy = info is not None and info.driver == "lazy"
        return recipe_of(self._db, from_base36(snapshot_id)) if lazy else None

    def set_layer(
        self, snapshot_id: str, *, compression: str, diff_id: DiffId, descriptor: Descriptor
    ) -> None:
        """Remember the layer blob that was made from this snapshot; BlobMissing when it is not in the
        store.
        """
        number = from_base36(snapshot_id)
        text = json.dumps(descriptor.to_json(), separators=(",", ":"))
        with self._db.write() as tx:
            if not tx.execute("SELECT 1 FROM snapshots WHERE id=?", (number,)).fetchone():
                raise snapshot_gone(snapshot_id)
            if not tx.execute("SELECT 1 FROM blobs WHERE digest=?", (str(descriptor.digest),)).fetchone():
                raise BlobMissing(f"blob {descriptor.digest} is not in the store")
            tx.execute(
                "INSERT OR REPLACE INTO snapshot_layers(snapshot, compression, diff_id, digest, descriptor)"
                " VALUES(?,?,?,?,?)",
                (number, compression, str(diff_id), str(descriptor.digest), text),
            )

    def layer(self, snapshot_id: str, compression: str) -> tuple[DiffId, Descriptor] | None:
        """The layer blob made from this snapshot, as long as it is in the store."""
        row = self._db.one(
            "SELECT diff_id, descriptor FROM snapshot_layers WHERE snapshot=? AND compression=?",
            (from_base36(snapshot_id), compression),
        )
        if row is None:
            return None
        return DiffId(Digest.parse(row[0])), Descriptor.from_json(json.loads(row[1]))

    def any_layer(self, snapshot_id: str) -> tuple[DiffId, Descriptor] | None:
        """A layer blob of this snapshot in whatever compression there is."""
        row = self._db.one(
            "SELECT diff_id, descriptor FROM snapshot_layers WHERE snapshot=? ORDER BY compression LIMIT 1",
            (from_base36(snapshot_id),),
        )
        if row is None:
            return None
        return DiffId(Digest.parse(row[0])), Descriptor.from_json(json.loads(row[1]))

    def share_layers(self, snapshot_id: str, other_id: str) -> None:
        """``other_id`` makes the same changes as ``snapshot_id``: the layer blobs of the one are the
        other's.
        """
        self._db.run(
            "INSERT OR IGNORE INTO snapshot_layers(snapshot, compression, diff_id, digest, descriptor)"
            " SELECT ?, compression, diff_id, digest, descriptor FROM snapshot_layers WHERE snapshot=?",
            (from_base36(other_id), from_base36(snapshot_id)),
        )

    def set_content_digest(self, snapshot_id: str, digest: Digest) -> None:
        """Remember the digest of the tree's content."""
        self._db.run(
            "UPDATE snapshots SET content_digest=? WHERE id=?", (str(digest), from_base36(snapshot_id))
        )

    def content_digest(self, snapshot_id: str) -> Digest | None:
        """The digest of the tree's content, if somebody worked it out."""
        row = self._db.one("SELECT content_digest FROM snapshots WHERE id=?", (from_base36(snapshot_id),))
        return None if row is None or row[0] is None else Digest.parse(row[0])

    def _engine(self) -> Snapshotter:
        if self._snapshotter is None:
            self._snapshotter = self._choose()
        return self._snapshotter

    def _path(self, number: int) -> str:
        return f"{self._directory}/{base36(number)}"

    def _fs(self, number: int) -> str:
        return f"{self._directory}/{base36(number)}/fs"

    def published(self, snapshot_id: str) -> None:
        """Have this process's open holds name it; for who has the transaction that makes or finds it."""
        if self._published is not None:
            self._published(snapshot_id)

    def _active(
        self, number: int, parent: str | None, driver: Driver, userxattr: bool, layers: tuple[str, ...]
    ) -> Active:
        stacked = driver == "overlay" and bool(layers)
        return Active(
            id=base36(number),
            parent=parent,
            lowers=tuple(Path(layer) for layer in layers) if stacked else (),
            upper=Path(self._fs(number)),
            work=Path(f"{self._path(number)}/work") if stacked else None,
            driver=driver,
            userxattr=userxattr,
        )

    def _insert(self, parent: str | None, driver: Driver, description: str, record_type: str) -> int:
        """The row comes before the directory: an active one that has none is rubbish, never a result."""
        owner, now = self._owner.name(), time.time_ns()
        above = None if parent is None else from_base36(parent)
        with self._db.write() as tx:
            if parent is not None:
                row = tx.execute("SELECT kind FROM snapshots WHERE id=?", (above,)).fetchone()
                if row is None or row[0] != "committed":
                    raise snapshot_gone(parent)
            done = tx.execute(
                "INSERT INTO snapshots(parent, kind, driver, created_ns, last_used_ns, description,"
                " record_type, owner, boot) VALUES(?, 'active', ?, ?, ?, ?, ?, ?, ?)",
                (above, driver, now, now, description, record_type, owner, self._boot()),
            )
            assert done.lastrowid is not None
            return done.lastrowid

    def _freeze(
        self, number: int, chain_id: ChainId | None, description: str, record_type: str
    ) -> int | None:
        """Make the row committed, unless another one has the chain id: then that one's number."""
        with self._db.write() as tx:
            if chain_id is not None:
                row = tx.execute("SELECT id FROM snapshots WHERE chain_id=?", (str(chain_id),)).fetchone()
                if row is not None:
                    self.published(base36(row[0]))  # nothing is pruned while this transaction lasts
                    return int(row[0])
            changed = tx.execute(
                "UPDATE snapshots SET kind='committed', owner=NULL, chain_id=?, boot=?, committed_mono_ns=?,"
                " description=CASE ? WHEN '' THEN description ELSE ? END,"
                " record_type=CASE ? WHEN 'regular' THEN record_type ELSE ? END"
                " WHERE id=? AND kind='active'",
                (
                    None if chain_id is None else str(chain_id),
                    self._boot(),
                    time.monotonic_ns(),
                    description,
                    description,
                    record_type,
                    record_type,
                    number,
                ),
            ).rowcount
            if not changed:
                raise snapshot_gone(base36(number))
            note_running(tx, self._boot())
        return None

    def _drop(self, number: int) -> None:
        """Row first, then the directory; a note in ``trash`` covers the time between."""
        from builder.cache.names import snapshot_path
        from builder.cache.trash import discard_noted, trash_snapshots

        with self._db.write() as tx:
            row = tx.execute("SELECT kind FROM snapshots WHERE id=?", (number,)).fetchone()
            if row is None or row[0] != "active":
                return
            trash_snapshots(tx, (number,))
        point("snapshot.unlinked")
        discard_noted(self._db, self._root, snapshot_path(number))

    def _stack(self, number: int) -> tuple[str, ...]:
        """The layer directories of a tree, topmost first."""
        stack = self._stacks.walk(number)
        if len(stack) > self._max_layers:
            self._flatten(stack[min(_KEEP_LAYERS, self._max_layers // 2) :])
            self._stacks.forget()
            stack = self._stacks.walk(number)
        return stack

    def _flatten(self, layers: tuple[str, ...]) -> None:
        """Merge the bottom of a stack that is too tall into one directory, with hard links to its files."""
        from builder.cache.copytree import merge_trees
        from builder.cache.problems import translated

        node = from_base36(layers[0].split("/")[-2])
        with NamedLock(self._tmp, f"flatten/{base36(node)}"):
            row = self._db.one("SELECT flat FROM snapshots WHERE id=?", (node,))
            if row is None or row[0] is not None:
                return
            flat = self._insert(None, "native", f"flattened {base36(node)}", "internal")
            try:
                with translated("flatten a stack of layers"):
                    os.makedirs(self._fs(flat), 0o700)
                    merge_trees(layers, self._fs(flat), link=True)
                with self._db.write() as tx:
                    self._freeze(flat, None, "", "internal")
                    tx.execute("UPDATE snapshots SET flat=? WHERE id=?", (flat, node))
            except BaseException:
                self._drop(flat)
                raise
