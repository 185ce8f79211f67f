"""Which cache key led to which snapshots, with the parts of every key (so that a miss can be explained)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from builder.cache.db import Database
from builder.cache.names import from_base36
from builder.cache.types import CacheRecord
from builder.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NEAR_LIMIT = 20
_EMPTY = "-"
_REST_NS = 3600 * 10**9
_MAX_PARTS = 16 << 20


class RecordStore:
    """The cache records of one state directory. A record that is found has all its snapshots."""

    def __init__(self, db: Database, *, touched: Callable[[str, str], None] | None = None) -> None:
        self._db = db
        self._touched = touched

    def lookup(self, key: str, *, parts: bool = False) -> CacheRecord | None:
        """The record of ``key``, or None; its ``parts`` are read only when asked for.

        Its use is noted when the store is closed.
        """
        row = self._db.one("SELECT op, outputs, name, created_ns FROM records WHERE key=?", (key,))
        if row is None:
            return None
        if self._touched is not None:
            self._touched("record", key)
        found = self.parts(key) if parts else {}
        return CacheRecord(key, row[0], decode_outputs(row[1]), row[2], row[3], found)

    def outputs(self, keys: Sequence[str]) -> dict[str, str]:
        """What the records of a few hundred keys lead to, as texts to compare (``joined``).

        Unlike with ``lookup``, only a use that follows a long rest is noted.
        """
        marks = ",".join("?" * len(keys))
        rows = self._db.all(
            f"SELECT key, outputs, last_used_ns FROM records WHERE key IN ({marks})",  # noqa: S608
            tuple(keys),
        )
        rested = time.time_ns() - _REST_NS
        for key, _, used_ns in rows:
            if used_ns < rested and self._touched is not None:
                self._touched("record", key)
        return {key: outputs for key, outputs, _ in rows}

    def save(self, record: CacheRecord) -> None:
        """Store or replace; StoreError when a snapshot it names is not committed and present."""
        now = time.time_ns()
        numbers = sorted({from_base36(output) for output in record.outputs if output is not None})
        outputs = joined(record.outputs)
        parts = _pack(record.parts)
        with self._db.write() as tx:
            for number in numbers:
                row = tx.execute("SELECT kind FROM snapshots WHERE id=?", (number,)).fetchone()
                if row is None or row[0] != "committed":
                    raise StoreError("a cache record names a snapshot that is gone", code="snapshot-missing")
            tx.execute("DELETE FROM record_outputs WHERE key=?", (record.key,))
            tx.execute(
                "INSERT OR REPLACE INTO records(key, op, name, outputs, created_ns, last_used_ns)"
                " VALUES(?,?,?,?,?,?)",
                (record.key, record.op, record.name, outputs, record.created_ns or now, now),
            )
            tx.execute("INSERT OR REPLACE INTO record_parts(key, parts) VALUES(?,?)", (record.key, parts))
            tx.executemany(
                "INSERT INTO record_outputs(snapshot, key) VALUES(?,?)",
                [(number, record.key) for number in numbers],
            )

    def near(self, op: str, name: str) -> tuple[CacheRecord, ...]:
        """Records that a missed key may be compared with, with parts: same operation first, newest first."""
        sql = (
            "SELECT key, op, outputs, name, created_ns, parts FROM records JOIN record_parts USING(key)"
            " WHERE {} ORDER BY created_ns DESC LIMIT ?"
        )
        rows = self._db.all(sql.format("op=?"), (op, NEAR_LIMIT))
        if len(rows) < NEAR_LIMIT and name:
            rows += self._db.all(sql.format("name=? AND op<>?"), (name, op, NEAR_LIMIT - len(rows)))
        return tuple(
            CacheRecord(key, own, decode_outputs(outputs), title, created, _unpack(parts))
            for key, own, outputs, title, created, parts in rows
        )

    def forget(self, key: str) -> None:
        """Drop a record; its snapshots stay."""
        from builder.cache.trash import forget_record

        with self._db.write() as tx:
            forget_record(tx, key)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Saves inside become one transaction. Keep it short: other writers wait."""
        with self._db.write():
            yield

    def parts(self, key: str) -> dict[str, Any]:
        """The parts of a key, without noting a use; {} when there is no such record."""
        row = self._db.one("SELECT parts FROM record_parts WHERE key=?", (key,))
        return {} if row is None else _unpack(row[0])


def joined(outputs: Sequence[str | None]) -> str:
    """Snapshot ids as one text."""
    return ",".join(_EMPTY if output is None else output for output in outputs)


def decode_outputs(text: str) -> tuple[str | None, ...]:
    """The snapshot ids in such a text; None stands for the empty tree."""
    if not text:
        return ()
    return tuple(None if item == _EMPTY else item for item in text.split(","))


def _pack(parts: dict[str, Any]) -> bytes:
    """Large ones (the files of a context) are compressed."""
    data = json.dumps(parts, separators=(",", ":")).encode("ascii")
    if len(data) < 4096:
        return data
    import zlib

    return b"z" + zlib.compress(data, 1)


def _unpack(data: bytes) -> dict[str, Any]:
    if data[:1] == b"z":
        import zlib

        data = zlib.decompressobj().decompress(data[1:], _MAX_PARTS)
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
