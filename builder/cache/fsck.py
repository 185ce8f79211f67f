"""Checks a state directory and changes nothing: rows against files, files against their digests, and what
refers to what.

The directory is not opened as commands open it, since that already puts things in order. Other processes may
be at work. Whatever does not agree is looked at again after a moment, and told only if it still does not.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.cache.create import DIRECTORIES
from builder.cache.db import Database
from builder.cache.locks import Gate
from builder.cache.schema import VERSION
from builder.errors import StoreError

Kind = Literal["damage", "rubbish"]
_AGAIN_S = (0.1, 0.3, 0.9)
_FILES = frozenset(
    {
        *("VERSION", "db.sqlite", "db.sqlite-wal", "db.sqlite-shm", "gate.lock", "gc.lock", "git"),
        *("lost+found", "reserve"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One thing that does not agree.

    ``path`` is relative to the state directory, or names a row (``db:TABLE/KEY``). ``rubbish`` is what a
    process that died left behind: the next command removes it.
    """

    code: str
    path: str
    message: str
    kind: Kind = "damage"


Found = Iterator[Finding]


def check(
    root: Path, *, fast: bool = False, on_progress: Callable[[str], None] | None = None
) -> tuple[Finding, ...]:
    """Everything that is wrong with the state directory at ``root``. ``fast`` reads no blob.

    Raises StoreError when there is no state directory.
    """
    path = os.path.abspath(root)
    if not os.path.isdir(path):
        raise StoreError(f"there is no state directory at {path}", hint="name one with --root")
    tell = on_progress or _silent
    tell("layout")
    broken = list(_layout(path)) or list(_integrity(path, fast))
    if broken:
        return tuple(sorted(broken))
    db = Database(f"{path}/db.sqlite")
    try:
        found = _lasting(db, path, tell)
        if not fast:
            from builder.cache.fsckcontent import contents

            found |= set(contents(db, path, tell))
    finally:
        db.close()
    return tuple(sorted(found))


def _lasting(db: Database, root: str, tell: Callable[[str], None]) -> set[Finding]:
    """What is wrong each time somebody looks."""
    tell("rows and files")
    found = set(_quick(db, root))
    for pause_s in _AGAIN_S:
        if not found:
            break
        time.sleep(pause_s)
        found &= set(_quick(db, root))
    return found


def _quick(db: Database, root: str) -> Found:
    """One look. Where files must agree with rows exactly, nobody publishes or removes meanwhile."""
    from builder.cache import fsckcontent, fsckrows

    with Gate(root).removing():
        yield from fsckcontent.blobs(db, root)
        yield from fsckrows.snapshots(db, root)
        yield from fsckrows.directories(db, root)
    yield from fsckcontent.images(db, root)
    yield from fsckrows.references(db)
    yield from fsckrows.leftovers(db, root)
    yield from fsckrows.histories(db, root)


def _layout(root: str) -> Found:
    try:
        with open(f"{root}/VERSION", "rb") as file:
            text = file.read(64)
    except OSError as error:
        yield Finding(code="version", path="VERSION", message=f"cannot be read: {error.strerror}")
        return
    if not text.strip().isdigit() or int(text) > VERSION:
        message = f"holds {text[:20]!r}, this pybuild knows {VERSION}"
        yield Finding(code="version", path="VERSION", message=message)
    for name in DIRECTORIES:
        if not os.path.isdir(f"{root}/{name}") or os.path.islink(f"{root}/{name}"):
            yield Finding(code="no-directory", path=name, message="is not a directory")
    known = _FILES | {name for name in DIRECTORIES if "/" not in name}
    for name in sorted(set(os.listdir(root)) - known):
        yield Finding(code="foreign", path=name, message="is nothing of a state directory", kind="rubbish")


def _integrity(root: str, fast: bool) -> Found:
    """What SQLite itself says."""
    path = f"{root}/db.sqlite"
    try:
        db = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=30)
    except sqlite3.Error as error:
        yield Finding(code="database", path="db.sqlite", message=str(error))
        return
    try:
        for (line,) in db.execute(f"PRAGMA {'quick_check' if fast else 'integrity_check'}(20)"):
            if line != "ok":
                yield Finding(code="database", path="db.sqlite", message=str(line))
        from builder.cache.schema import SCHEMA

        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        for name in _tables(SCHEMA):
            if name not in tables and not _made_later(db, name):
                yield Finding(code="database", path="db.sqlite", message=f"has no table {name}")
    except sqlite3.Error as error:
        yield Finding(code="database", path="db.sqlite", message=str(error))
    finally:
        db.close()


def _made_later(db: sqlite3.Connection, table: str) -> bool:
    """Whether a table may be missing: a state directory from before it gets it with its first row."""
    return (
        table == "lazy_snapshots"
        and db.execute("SELECT 1 FROM snapshots WHERE driver='lazy' LIMIT 1").fetchone() is None
    )


def _tables(schema: str) -> list[str]:
    lead = "CREATE TABLE IF NOT EXISTS "
    return [part.partition("(")[0].strip() for part in schema.split(lead)[1:]]


def _silent(_: str) -> None:
    pass
