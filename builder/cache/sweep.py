"""Removes what dead processes left: everything in ``tmp/`` that nobody holds, and what its owners had
begun.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from builder.cache.faults import point
from builder.cache.locks import names_fd, try_flock
from builder.cache.problems import translated
from builder.cache.trash import empty_trash, remove_gone, trash_snapshots
from builder.errors import InvalidValue
from builder.oci.digest import Digest

if TYPE_CHECKING:
    from builder.cache.store import Store


def sweep(store: Store, names: list[str] | None = None) -> None:
    """One look at every entry of ``tmp/`` (or at those given) and at the notes in ``trash``."""
    tmp = f"{store.root}/tmp"
    with translated("tidy up the state directory"):
        for name in os.listdir(tmp) if names is None else names:
            _entry(store, tmp, name)
        if store.db.one("SELECT 1 FROM trash LIMIT 1") is not None:
            with store.gate.removing():
                gone = empty_trash(store.db, str(store.root))
            remove_gone(gone)


def _entry(store: Store, tmp: str, name: str) -> None:
    path = f"{tmp}/{name}"
    if name.startswith("gone-"):
        _remove(path)
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError:
        if stat.S_ISLNK(os.lstat(path).st_mode):  # nothing of ours is a link
            os.unlink(path)
        return
    try:
        if not try_flock(fd) or not names_fd(path, fd):
            return
        if name.startswith("own-"):
            disown(store, name)
        elif name.startswith("pub-"):
            _finish(store, path, name)
            return
        point("sweep.entry")
        _remove(path)
    finally:
        os.close(fd)


def disown(store: Store, owner: str) -> None:
    """Drop what a dead process had begun: its active snapshots; its builds are marked as broken off."""
    with store.db.write() as tx:
        rows = tx.execute("SELECT id FROM snapshots WHERE owner=? AND kind='active'", (owner,)).fetchall()
        trash_snapshots(tx, [row[0] for row in rows])
        broken_off = tx.execute(
            "SELECT id, created_ns, data FROM builds WHERE owner=? AND status='running'", (owner,)
        ).fetchall()
        if broken_off:
            from builder.cache.history import break_off

            for build_id, created_ns, data in broken_off:
                break_off(tx, str(store.root), build_id, created_ns, data)


def _finish(store: Store, path: str, name: str) -> None:
    """A blob that was complete and verified: give it its row."""
    _, algorithm, hexpart, *_ = (*name.split("-", 3), "", "", "")
    try:
        digest = Digest(algorithm, hexpart)
    except InvalidValue:
        _remove(path)
        return
    store.blobs.finish_published(path, digest)


def _remove(path: str) -> None:
    from builder.cache.removal import remove_tree
    from builder.errors import StoreError

    try:
        remove_tree(path)
    except StoreError as error:
        if error.code not in ("store-mounted", "store-permission"):
            raise
        # It stays rubbish: whoever mounted it or owns it must let go first.
