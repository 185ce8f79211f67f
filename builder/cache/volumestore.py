"""Volumes by name: a row and the directory ``volumes/<directory>/_data``."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.cache.db import Database, Row
from builder.cache.faults import point
from builder.cache.locks import Gate, NamedLock
from builder.cache.problems import translated
from builder.errors import InvalidValue

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}\Z")


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """A volume; ``path`` is the directory that containers see."""

    name: str
    created_ns: int
    anonymous: bool
    data: dict[str, Any]
    path: Path


class VolumeStore:
    """The volumes of one state directory."""

    def __init__(self, db: Database, gate: Gate, root: str) -> None:
        self._db = db
        self._gate = gate
        self._root = root

    def create(self, name: str | None = None, *, data: dict[str, Any] | None = None) -> VolumeRow:
        """Make a volume, or return the one that has the name already; without a name it is anonymous.

        InvalidValue when the name is not made of letters, digits and ``_.-``.
        """
        anonymous = name is None
        if name is None:
            name = hashlib.sha256(os.urandom(32)).hexdigest()
        if not _NAME.match(name):
            raise InvalidValue(
                f"invalid volume name {name[:80]!r}", hint="letters, digits, '_', '.' and '-' are allowed"
            )
        found = self.get(name)
        if found is not None:
            return found
        with translated("make a volume"), self._lock(name), self._gate.passing():
            self._make(name, anonymous=anonymous, data=data or {})
        found = self.get(name)
        assert found is not None
        return found

    def get(self, name: str) -> VolumeRow | None:
        """By name."""
        row = self._db.one("SELECT name, created_ns, anonymous, data FROM volumes WHERE name=?", (name,))
        return None if row is None else self._row(row)

    def list(self) -> tuple[VolumeRow, ...]:
        """Every volume, by name."""
        rows = self._db.all("SELECT name, created_ns, anonymous, data FROM volumes ORDER BY name")
        return tuple(self._row(row) for row in rows)

    def remove(self, name: str) -> bool:
        """Remove it with what is in it; the caller knows that no container uses it. False when there is
        none.
        """
        from builder.cache.trash import discard_noted

        with self._lock(name):
            with self._db.write() as tx:
                if not tx.execute("DELETE FROM volumes WHERE name=?", (name,)).rowcount:
                    return False
                tx.execute("INSERT OR IGNORE INTO trash(path) VALUES(?)", (f"volumes/{name}",))
            point("volume.unlinked")
            discard_noted(self._db, self._root, f"volumes/{name}")
        return True

    def _make(self, name: str, *, anonymous: bool, data: dict[str, Any]) -> None:
        """What a removal did not finish goes first: a new volume is empty."""
        from builder.cache.trash import discard_noted, placed, placing

        if self.get(name) is not None:
            return
        path = f"volumes/{name}"
        discard_noted(self._db, self._root, path)
        with placing(self._db, self._root, path):
            os.makedirs(self._path(name), 0o755)
            point("volume.made")
            with self._db.write() as tx:
                placed(tx, path)
                tx.execute(
                    "INSERT INTO volumes(name, created_ns, anonymous, data) VALUES(?,?,?,?)",
                    (name, time.time_ns(), anonymous, json.dumps(data)),
                )

    def _lock(self, name: str) -> NamedLock:
        return NamedLock(f"{self._root}/tmp", f"volume/{name}")

    def _path(self, name: str) -> str:
        return f"{self._root}/volumes/{name}/_data"

    def _row(self, row: Row) -> VolumeRow:
        return VolumeRow(row[0], row[1], bool(row[2]), json.loads(row[3]), Path(self._path(row[0])))
