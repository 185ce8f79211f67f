"""Containers by name and id: rows, and where a directory is. What is in it and what runs is the runtime's,
their tree a snapshot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from builder.cache.db import Database, Row
from builder.cache.faults import point
from builder.cache.locks import Gate
from builder.cache.names import base36, from_base36, snapshot_path
from builder.errors import InvalidValue, StoreError
from runtime.errors import NoSuchContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = "id, name, image_id, snapshot, created_ns, data"


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """A container as the store knows it; ``data`` is whatever its makers want to keep (JSON-able)."""

    id: str
    name: str
    image_id: str
    snapshot: str | None
    created_ns: int
    data: dict[str, Any]


class ContainerStore:
    """The containers of one state directory."""

    def __init__(self, db: Database, gate: Gate, root: str) -> None:
        self._db = db
        self._gate = gate
        self._root = root

    @contextmanager
    def placing(self, container_id: str) -> Iterator[None]:
        """Inside, its directory is there to be filled; ``create`` makes it stay. Be quick: the gate is
        passed.
        """
        from builder.cache.trash import placing

        path = _place(container_id)
        with self._gate.passing(), placing(self._db, self._root, path):
            os.mkdir(f"{self._root}/{path}", 0o700)
            point("container.made")
            yield

    def create(self, row: ContainerRow) -> None:
        """Add one. Its active snapshot belongs to it from now on instead of to this process.

        StoreError ``name-in-use`` when another container has the name.
        """
        from builder.cache.trash import placed

        number = None if row.snapshot is None else from_base36(row.snapshot)
        with self._db.write() as tx:
            other = tx.execute(
                "SELECT id FROM containers WHERE name=? OR id=?", (row.name, row.id)
            ).fetchone()
            if other is not None:
                raise _name_in_use(row.name, other[0])
            if number is not None:
                changed = tx.execute("UPDATE snapshots SET owner=NULL WHERE id=?", (number,)).rowcount
                if not changed:
                    raise StoreError(
                        f"snapshot {row.snapshot!r} is not in the store", code="snapshot-missing"
                    )
            tx.execute(
                f"INSERT INTO containers({_COLUMNS}) VALUES(?,?,?,?,?,?)",
                (row.id, row.name, row.image_id, number, row.created_ns, json.dumps(row.data)),
            )
            placed(tx, _place(row.id))

    def get(self, ref: str) -> ContainerRow | None:
        """By id, by name, or by the beginning of an id that fits one; InvalidValue when it fits several."""
        name = ref.removeprefix("/")
        sql = f"SELECT {_COLUMNS} FROM containers WHERE "  # noqa: S608 (constant columns)
        found = self._db.one(sql + "id=?", (ref,)) or self._db.one(sql + "name=?", (name,))
        if found is not None:
            return _row(found)
        rows = self._db.all(sql + "substr(id, 1, ?)=? LIMIT 2", (len(ref), ref)) if ref else []
        if len(rows) > 1:
            raise InvalidValue(f"container id {ref!r} is ambiguous", hint="give more digits")
        return _row(rows[0]) if rows else None

    def list(self) -> tuple[ContainerRow, ...]:
        """Every container, newest first."""
        sql = f"SELECT {_COLUMNS} FROM containers ORDER BY created_ns DESC, id"  # noqa: S608
        return tuple(_row(row) for row in self._db.all(sql))

    def update(self, container_id: str, data: dict[str, Any]) -> None:
        """Replace what is kept about one; NoSuchContainer."""
        if not self._db.run("UPDATE containers SET data=? WHERE id=?", (json.dumps(data), container_id)):
            raise NoSuchContainer(f"no such container: {container_id}")

    def rename(self, container_id: str, name: str) -> None:
        """Give it another name; NoSuchContainer, StoreError ``name-in-use``."""
        with self._db.write() as tx:
            other = tx.execute(
                "SELECT id FROM containers WHERE name=? AND id<>?", (name, container_id)
            ).fetchone()
            if other is not None:
                raise _name_in_use(name, other[0])
            done = tx.execute("UPDATE containers SET name=? WHERE id=?", (name, container_id))
            if not done.rowcount:
                raise NoSuchContainer(f"no such container: {container_id}")

    def remove(self, container_id: str) -> bool:
        """Forget it and remove its writable tree and its directory; False when there is none with this id."""
        from builder.cache.trash import discard_noted, trash_snapshots

        dropped: int | None = None
        with self._db.write() as tx:
            row = tx.execute("SELECT snapshot FROM containers WHERE id=?", (container_id,)).fetchone()
            if row is None:
                return False
            tx.execute("DELETE FROM containers WHERE id=?", (container_id,))
            tx.execute("INSERT OR IGNORE INTO trash(path) VALUES(?)", (_place(container_id),))
            if row[0] is not None:
                kind = tx.execute("SELECT kind FROM snapshots WHERE id=?", (row[0],)).fetchone()
                if kind is not None and kind[0] == "active":
                    dropped = int(row[0])
                    trash_snapshots(tx, (dropped,))
        discard_noted(self._db, self._root, _place(container_id))
        if dropped is not None:
            discard_noted(self._db, self._root, snapshot_path(dropped))
        return True


def _place(container_id: str) -> str:
    return f"containers/{container_id}"


def _row(row: Row) -> ContainerRow:
    snapshot = None if row[3] is None else base36(row[3])
    return ContainerRow(row[0], row[1], row[2], snapshot, row[4], json.loads(row[5]))


def _name_in_use(name: str, other: str) -> StoreError:
    return StoreError(
        f"the container name {name!r} is in use by container {other[:12]}",
        hint="remove or rename that container, or choose another name",
        code="name-in-use",
    )
