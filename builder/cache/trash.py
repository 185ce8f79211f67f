"""The second half of every removal: rows went first and left a note in ``trash``; here files follow and the
note goes.

Callers hold the gate (``Gate.removing``), so nobody publishes under the same name meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from builder.cache.db import Database
from builder.cache.faults import point
from builder.cache.names import blob_path, snapshot_path
from builder.cache.problems import translated
from builder.cache.staging import token
from builder.errors import PybuildError


def trash_blobs(tx: sqlite3.Connection, digests: Sequence[str]) -> None:
    """Unlink the rows of blobs, with the layer entries that name them."""
    for digest in digests:
        tx.execute("DELETE FROM snapshot_layers WHERE digest=?", (digest,))
        if tx.execute("DELETE FROM blobs WHERE digest=?", (digest,)).rowcount:
            tx.execute("INSERT OR IGNORE INTO trash(path) VALUES(?)", (blob_path(digest),))


def trash_snapshots(tx: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Unlink the rows of snapshots, with the records, layer entries and flattened copies that name them."""
    pending = list(ids)
    while pending:
        snapshot = pending.pop()
        row = tx.execute("SELECT flat, driver FROM snapshots WHERE id=?", (snapshot,)).fetchone()
        if row is None:
            continue
        if row[0] is not None:
            pending.append(row[0])
        for (key,) in tx.execute("SELECT key FROM record_outputs WHERE snapshot=?", (snapshot,)).fetchall():
            forget_record(tx, key)
        if row[1] == "lazy":
            tx.execute("DELETE FROM lazy_snapshots WHERE snapshot=?", (snapshot,))
        tx.execute("DELETE FROM snapshot_layers WHERE snapshot=?", (snapshot,))
        tx.execute("DELETE FROM snapshots WHERE id=?", (snapshot,))
        tx.execute("INSERT OR IGNORE INTO trash(path) VALUES(?)", (snapshot_path(snapshot),))


def forget_record(tx: sqlite3.Connection, key: str) -> None:
    """Unlink a record with everything that hangs on it."""
    tx.execute("DELETE FROM record_outputs WHERE key=?", (key,))
    tx.execute("DELETE FROM record_parts WHERE key=?", (key,))
    tx.execute("DELETE FROM records WHERE key=?", (key,))


def empty_trash(db: Database, root: str) -> list[str]:
    """Move what the notes name into ``tmp/`` and drop the notes; returns what is left to remove."""
    rows = db.all("SELECT path FROM trash")
    gone: list[str] = []
    with translated("remove"):
        for (path,) in rows:
            target = f"{root}/tmp/gone-{token()}"
            try:
                os.rename(f"{root}/{path}", target)
            except FileNotFoundError:
                continue
            gone.append(target)
            point("trash.renamed")
    with db.write() as tx:
        tx.executemany("DELETE FROM trash WHERE path=?", rows)
    point("trash.forgotten")
    return gone


def discard_noted(db: Database, root: str, path: str) -> None:
    """Remove one thing whose row is gone and whose note is there, and then the note.

    Needs no gate when the name is never used again; else the caller keeps others from using it.
    """
    from builder.cache.removal import discard_path

    discard_path(f"{root}/{path}", f"{root}/tmp")
    db.run("DELETE FROM trash WHERE path=?", (path,))


@contextmanager
def placing(db: Database, root: str, path: str) -> Iterator[None]:
    """What is made at ``path`` inside goes again when that fails, or when the process dies: a note covers it
    until the transaction of its row drops the note (``placed``). The caller passes the gate.
    """
    db.run("INSERT OR IGNORE INTO trash(path) VALUES(?)", (path,))
    try:
        yield
    except BaseException:
        with suppress(PybuildError):  # then the note stays, for the next opening
            if db.one("SELECT 1 FROM trash WHERE path=?", (path,)) is not None:
                discard_noted(db, root, path)
        raise


def placed(tx: sqlite3.Connection, path: str) -> None:
    """The row of what is at ``path`` is written."""
    tx.execute("DELETE FROM trash WHERE path=?", (path,))


def remove_gone(paths: Iterable[str]) -> None:
    """Remove what ``empty_trash`` moved away; needs no lock."""
    from builder.cache.removal import remove_tree

    for path in paths:
        remove_tree(path)
