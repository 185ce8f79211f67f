"""Which start of the machine this is, and what a new one means for snapshots that may not have reached the
disk.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import time

from builder.cache.names import base36, blob_path, from_base36
from builder.cache.problems import translated
from builder.errors import InvalidValue
from builder.oci.digest import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.db import Database
    from builder.cache.locks import Gate

SETTLE_S = 120
"""A snapshot this old (or four times what the kernel lets dirty pages wait) when the machine was last seen
running has been written back by the kernel.
"""


@functools.cache
def boot_id() -> str:
    """The kernel's name for this start of the machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return f"unknown-{os.stat('/proc').st_ctime_ns}"


def note_running(tx: sqlite3.Connection, boot: str) -> None:
    """The machine is seen running under this boot id, now."""
    seen = f"{boot} {time.monotonic_ns()}"
    tx.execute("INSERT OR REPLACE INTO meta(key, value) VALUES('seen', ?)", (seen,))


def after_restart(db: Database, gate: Gate, root: str, boot: str) -> None:
    """Make rows and files agree again after the machine was started anew.

    Dropped: committed snapshots of an earlier boot that may not have been written back (and what stands on
    them), unless a container needs them; those only stop being a cache. Rows whose files are missing go,
    blobs without a row get one (they were verified and flushed before they got their name), other files
    without rows are removed.
    """
    from builder.cache.trash import empty_trash, remove_gone

    with translated("look through the state directory after a restart"):
        with gate.removing():
            with db.write() as tx:
                if _meta(tx, "boot") == boot:
                    return
                _drop_unsettled(tx, boot, _meta(tx, "seen"))
                _check_snapshots(tx, root)
                _check_blobs(tx, root)
                tx.execute("DELETE FROM meta WHERE key='index_written'")
                tx.execute("INSERT OR REPLACE INTO meta(key, value) VALUES('boot', ?)", (boot,))
                note_running(tx, boot)
            gone = empty_trash(db, root)
        remove_gone(gone)


def _meta(tx: sqlite3.Connection, key: str) -> str:
    row = tx.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
    return "" if row is None else str(row[0])


def _drop_unsettled(tx: sqlite3.Connection, boot: str, seen: str) -> None:
    from builder.cache.trash import forget_record, trash_snapshots

    seen_boot, _, seen_text = seen.rpartition(" ")
    limit = int(seen_text or 0) - _settle_ns()
    rows = tx.execute(
        "SELECT id FROM snapshots WHERE kind='committed' AND boot NOT IN ('', ?)"
        " AND (boot<>? OR committed_mono_ns>?)",
        (boot, seen_boot, limit),
    ).fetchall()
    doomed = {row[0] for row in rows}
    made_of = _lazy_sources(tx)
    for number, parent in tx.execute("SELECT id, parent FROM snapshots ORDER BY id").fetchall():
        if parent in doomed or not doomed.isdisjoint(made_of.get(number, ())):
            doomed.add(number)
    needed = _needed_by_containers(tx)
    for number in doomed & needed:
        for (key,) in tx.execute("SELECT key FROM record_outputs WHERE snapshot=?", (number,)).fetchall():
            forget_record(tx, key)
        tx.execute("DELETE FROM snapshot_layers WHERE snapshot=?", (number,))
        tx.execute("UPDATE snapshots SET chain_id=NULL, content_digest=NULL WHERE id=?", (number,))
    trash_snapshots(tx, sorted(doomed - needed))
    tx.execute("UPDATE snapshots SET boot='' WHERE kind='committed' AND boot<>?", (boot,))


def _lazy_sources(tx: sqlite3.Connection) -> dict[int, tuple[int, ...]]:
    if tx.execute("SELECT 1 FROM snapshots WHERE driver='lazy' LIMIT 1").fetchone() is None:
        return {}
    rows = tx.execute("SELECT snapshot, source, lower FROM lazy_snapshots").fetchall()
    return {row[0]: row[1:] for row in rows}


def _needed_by_containers(tx: sqlite3.Connection) -> set[int]:
    rows = tx.execute(
        "WITH RECURSIVE up(n) AS (SELECT snapshot FROM containers WHERE snapshot IS NOT NULL"
        " UNION SELECT s.parent FROM snapshots s JOIN up ON s.id = n WHERE s.parent IS NOT NULL"
        " UNION SELECT s.flat FROM snapshots s JOIN up ON s.id = n WHERE s.flat IS NOT NULL) SELECT n FROM up"
    ).fetchall()
    return {row[0] for row in rows}


def _settle_ns() -> int:
    waiting = 0
    for name in ("dirty_expire_centisecs", "dirty_writeback_centisecs"):
        try:
            with open(f"/proc/sys/vm/{name}", encoding="ascii") as file:
                waiting += int(file.read())
        except (OSError, ValueError):
            continue
    return max(SETTLE_S, waiting * 4 // 100) * 1_000_000_000


def _check_snapshots(tx: sqlite3.Connection, root: str) -> None:
    from builder.cache.trash import trash_snapshots

    on_disk = set(os.listdir(f"{root}/snapshots"))
    rows = dict(tx.execute("SELECT id, driver FROM snapshots").fetchall())
    with_tree = {base36(number) for number, driver in rows.items() if driver != "lazy"}
    trash_snapshots(tx, [from_base36(name) for name in with_tree - on_disk])
    orphans = [(f"snapshots/{name}",) for name in on_disk - with_tree]
    tx.executemany("INSERT OR IGNORE INTO trash(path) VALUES(?)", orphans)


def _check_blobs(tx: sqlite3.Connection, root: str) -> None:
    known = dict(tx.execute("SELECT digest, size FROM blobs").fetchall())
    trashed = {row[0] for row in tx.execute("SELECT path FROM trash").fetchall()}
    now = time.time_ns()
    present: set[str] = set()
    for algorithm in os.listdir(f"{root}/content/blobs"):
        with os.scandir(f"{root}/content/blobs/{algorithm}") as entries:
            for entry in entries:
                digest = f"{algorithm}:{entry.name}"
                size = entry.stat(follow_symlinks=False).st_size
                if blob_path(digest) in trashed or known.get(digest, size) != size:
                    continue
                present.add(digest)
                if digest not in known and _is_digest(algorithm, entry.name):
                    tx.execute(
                        "INSERT INTO blobs(digest, size, created_ns, last_used_ns) VALUES(?,?,?,?)",
                        (digest, size, now, now),
                    )
    for digest in known.keys() - present:
        tx.execute("DELETE FROM snapshot_layers WHERE digest=?", (digest,))
        tx.execute("DELETE FROM blobs WHERE digest=?", (digest,))
    lost = tx.execute(
        "SELECT manifest FROM images WHERE manifest NOT IN (SELECT digest FROM blobs)"
        " OR id NOT IN (SELECT digest FROM blobs)"
    ).fetchall()
    tx.executemany("DELETE FROM image_names WHERE manifest=?", lost)
    tx.executemany("DELETE FROM images WHERE manifest=?", lost)


def _is_digest(algorithm: str, text: str) -> bool:
    try:
        Digest(algorithm, text)
    except InvalidValue:
        return False
    return True
