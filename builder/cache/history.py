"""The record of every build (HSY-01) and the log of events."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from builder.cache.db import Database, Row
from builder.cache.problems import if_writable, translated
from builder.cache.staging import Owner
from builder.errors import StoreError
from builder.oci.digest import sha256_hex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    BuildStatus = Literal["running", "completed", "error", "canceled"]
else:  # typing would take a millisecond of every start
    BuildStatus = str
MAX_BUILDS = 50
MAX_AGE_NS = 48 * 3600 * 1_000_000_000
RECALLED = '{"recalled": true'
"""How the data of a build begin that was answered whole by the result of an earlier one."""
KILLED = "build-killed"
INPUTS = "build-inputs"
"""Documents that say what builds were made from; a record or a remembered result names each (``inputs``)."""
_MEMO = "build-memo"
MAX_EVENTS = 20_000
_TRIM_EVERY = 500
_POLL_S = 0.1
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_COLUMNS = "id, created_ns, completed_ns, status, pinned, data"


@dataclass(frozen=True, slots=True)
class BuildRow:
    """One build; ``data`` is what its maker keeps about it (JSON-able)."""

    id: str
    created_ns: int
    completed_ns: int | None
    status: BuildStatus
    pinned: bool
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a thing: ``kind`` image, container, volume, build; ``action`` tag, start, ..."""

    number: int
    time_ns: int
    kind: str
    action: str
    id: str
    attrs: dict[str, str]


class BuildHistory:
    """The builds of one state directory. One whose process died while running counts as failed.

    A build may have a directory of its own for what is too big for a row: ``directory``.
    """

    def __init__(self, db: Database, owner: Owner, root: str) -> None:
        self._db = db
        self._owner = owner
        self._root = root

    def directory(self, build_id: str) -> str:
        """Where the files of a build are; ids that are no safe file name are replaced by their digest."""
        return f"{self._root}/{history_path(build_id)}"

    def add(self, build_id: str, data: dict[str, Any]) -> None:
        """A build starts. An earlier one of the same id is forgotten. Its directory is made, empty."""
        owner = self._owner.name()
        path = history_path(build_id)
        if os.path.lexists(f"{self._root}/{path}"):
            from builder.cache.removal import discard_path

            discard_path(f"{self._root}/{path}", f"{self._root}/tmp")
        with self._db.write() as tx:
            tx.execute("DELETE FROM trash WHERE path=?", (path,))
            tx.execute(
                "INSERT OR REPLACE INTO builds(id, created_ns, status, owner, data)"
                " VALUES(?,?,'running',?,?)",
                (build_id, time.time_ns(), owner, json.dumps({**data, "generation": 1})),
            )
            EventLog(self._db).add("build", "start", build_id)
        with translated("make the record of a build"):
            os.mkdir(f"{self._root}/{path}", 0o700)

    def finish(
        self,
        build_id: str,
        status: BuildStatus,
        data: dict[str, Any] | None = None,
        *,
        max_builds: int = MAX_BUILDS,
        max_age_ns: int = MAX_AGE_NS,
    ) -> None:
        """A build ended; ``data`` replaces what was kept. Old records go: those that are beyond both limits
        and not pinned (HSY-05).
        """
        now = time.time_ns()
        text = None if data is None else json.dumps({**data, "generation": 2})
        with self._db.write() as tx:
            tx.execute(
                "UPDATE builds SET status=?, completed_ns=?, owner=NULL, data=coalesce(?, data) WHERE id=?",
                (status, now, text, build_id),
            )
            EventLog(self._db).add("build", "complete", build_id, {"status": status})
        if self.forget_old(max_builds, now - max_age_ns):
            with self._db.write() as tx:
                forget_inputs(tx)

    def forget_old(self, max_builds: int, before_ns: int) -> bool:
        """Drop what began before ``before_ns`` and is not among the newest, unless it is pinned (HSY-05).

        Whether there was any. What only they were made from goes when a record is next removed otherwise.
        """
        find = (
            "SELECT id FROM builds WHERE pinned=0 AND status<>'running' AND created_ns<?"
            " AND id NOT IN (SELECT id FROM builds ORDER BY created_ns DESC LIMIT ?)"
        )
        args = (before_ns, max_builds)
        if self._db.one(find, args) is None:
            return False
        with self._db.write() as tx:
            gone = [self._unlink(tx, row[0]) for row in tx.execute(find, args).fetchall()]
        self._discard(gone)
        return True

    def get(self, build_id: str) -> BuildRow | None:
        """By id, or by the beginning of one that fits one; StoreError when it fits several."""
        sql = f"SELECT {_COLUMNS} FROM builds WHERE "  # noqa: S608 (constant columns)
        row = self._db.one(sql + "id=?", (build_id,))
        if row is None and build_id:
            rows = self._db.all(sql + "substr(id, 1, ?)=? LIMIT 2", (len(build_id), build_id))
            if len(rows) > 1:
                raise StoreError(f"build {build_id!r} is ambiguous", hint="give more of its id")
            row = rows[0] if rows else None
        return None if row is None else _build(row)

    def list(self, *, limit: int | None = None, recalled: bool = True) -> tuple[BuildRow, ...]:
        """Running builds first, then the newest (HSY-03). ``recalled``: with those that the result of an
        earlier one answered whole.
        """
        chosen = "" if recalled else f" WHERE substr(data, 1, {len(RECALLED)})<>'{RECALLED}'"
        order = "ORDER BY status='running' DESC, created_ns DESC LIMIT ?"
        sql = f"SELECT {_COLUMNS} FROM builds{chosen} {order}"  # noqa: S608 (constants)
        return tuple(_build(row) for row in self._db.all(sql, (-1 if limit is None else limit,)))

    def pin(self, build_id: str, *, pinned: bool = True) -> bool:
        """Keep a record from being removed by age, or no longer."""
        with self._db.write() as tx:
            row = tx.execute("SELECT data FROM builds WHERE id=?", (build_id,)).fetchone()
            if row is not None:
                text = _changed(row[0])
                tx.execute("UPDATE builds SET pinned=?, data=? WHERE id=?", (pinned, text, build_id))
        return row is not None

    def attach(self, build_id: str, files: dict[str, bytes], **about: Any) -> bool:
        """Give a build that is over files by name, and put ``about`` into its record.

        False when it is gone or still runs; StoreError when a file cannot be written.
        """
        with self._db.write() as tx:  # nobody can remove the build meanwhile
            row = tx.execute(
                "SELECT data FROM builds WHERE id=? AND status<>'running'", (build_id,)
            ).fetchone()
            if row is None:
                return False
            path = self.directory(build_id)
            with translated("add to the record of a build"):
                os.makedirs(path, 0o700, exist_ok=True)
                for name, content in files.items():
                    with open(f"{path}/{name}.part", "wb") as file:
                        file.write(content)
                    os.replace(f"{path}/{name}.part", f"{path}/{name}")
            tx.execute("UPDATE builds SET data=? WHERE id=?", (_changed(row[0], **about), build_id))
        return True

    def remove(self, build_id: str) -> bool:
        """Forget a build that is not running. Who reads its files just then keeps what is open."""
        with self._db.write() as tx:
            gone = self._unlink(tx, build_id)
            if gone:
                EventLog(self._db).add("build", "delete", build_id)
                forget_inputs(tx)
        self._discard([gone])
        return bool(gone)

    def size(self) -> int:
        """Bytes that the files of all builds take on disk."""
        from builder.cache.measure import disk_usage

        return disk_usage(f"{self._root}/history")

    def _unlink(self, tx: sqlite3.Connection, build_id: str) -> str:
        """Drop a row; the path that is to follow, or "" when nothing was dropped."""
        if not tx.execute("DELETE FROM builds WHERE id=? AND status<>'running'", (build_id,)).rowcount:
            return ""
        path = history_path(build_id)
        if os.path.lexists(f"{self._root}/{path}"):
            tx.execute("INSERT OR IGNORE INTO trash(path) VALUES(?)", (path,))
        return path

    def _discard(self, paths: Iterable[str]) -> None:
        there = [path for path in paths if path and os.path.lexists(f"{self._root}/{path}")]
        if there:
            from builder.cache.trash import discard_noted

            for path in there:
                discard_noted(self._db, self._root, path)


def break_off(tx: sqlite3.Connection, root: str, build_id: str, created_ns: int, data: str) -> None:
    """The process of a running build died: the build failed when its log was last written."""
    try:
        ended_ns = max(created_ns, os.stat(f"{root}/{history_path(build_id)}/log").st_mtime_ns)
    except OSError:
        ended_ns = created_ns
    text = _changed(data, error="the process of the build was killed", code=KILLED)
    tx.execute(
        "UPDATE builds SET status='error', owner=NULL, completed_ns=?, data=? WHERE id=?",
        (ended_ns, text, build_id),
    )


def forget_inputs(tx: sqlite3.Connection) -> None:
    """Drop documents about what builds were made from that no record and no remembered result names.

    A build that runs may have written one that nothing names yet; then they wait for the next time.
    """
    tx.execute(
        "DELETE FROM docs WHERE kind=? AND NOT EXISTS (SELECT 1 FROM builds WHERE status='running')"
        " AND key NOT IN"
        " (SELECT coalesce(json_extract(data, '$.inputs'), '') FROM builds) AND key NOT IN"
        " (SELECT coalesce(json_extract(CAST(data AS TEXT), '$.about.inputs'), '') FROM docs WHERE kind=?)",
        (INPUTS, _MEMO),
    )


def _changed(data: str, **more: Any) -> str:
    """The data of a record that is written again: each time is a generation (HSY-01)."""
    found = json.loads(data)
    return json.dumps({**found, **more, "generation": found.get("generation", 1) + 1})


def history_path(build_id: str) -> str:
    """Where the files of a build are below the state directory. Names from outside never become paths."""
    if _SAFE_ID.fullmatch(build_id):
        return f"history/{build_id}"
    return f"history/+{sha256_hex(build_id.encode('utf-8', 'surrogateescape'))[:32]}"


class EventLog:
    """The events of one state directory; the oldest go when there are too many."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, kind: str, action: str, actor: str, attrs: dict[str, str] | None = None) -> None:
        """Something happened just now. Inside a batch it becomes visible with it.

        On a full disk only the note is lost, as what it is about was done; but a batch fails as a whole.
        """
        with nullcontext() if self._db.in_write else if_writable(), self._db.write() as tx:
            done = tx.execute(
                "INSERT INTO events(time_ns, kind, action, actor, attrs) VALUES(?,?,?,?,?)",
                (time.time_ns(), kind, action, actor, json.dumps(attrs or {})),
            )
            number = done.lastrowid or 0
            if number % _TRIM_EVERY == 0:
                tx.execute("DELETE FROM events WHERE id<=?", (number - MAX_EVENTS,))

    def list(self, since_ns: int = 0, until_ns: int | None = None) -> tuple[Event, ...]:
        """Events between two times, both included, oldest first."""
        rows = self._db.all(
            "SELECT id, time_ns, kind, action, actor, attrs FROM events WHERE time_ns>=? AND time_ns<=?"
            " ORDER BY id",
            (since_ns, (1 << 62) if until_ns is None else until_ns),
        )
        return tuple(_event(row) for row in rows)

    def follow(
        self, since_ns: int | None = None, *, until_ns: int | None = None, stop: threading.Event | None = None
    ) -> Iterator[Event]:
        """Events as they happen, from now or from ``since_ns``, until ``until_ns`` or until ``stop`` is
        set.
        """
        if since_ns is None:
            row = self._db.one("SELECT coalesce(max(id), 0) FROM events")
        else:
            row = self._db.one("SELECT coalesce(max(id), 0) FROM events WHERE time_ns<?", (since_ns,))
        last = 0 if row is None else int(row[0])
        wait = stop or threading.Event()
        while True:
            over = until_ns is not None and time.time_ns() > until_ns
            rows = self._db.all(
                "SELECT id, time_ns, kind, action, actor, attrs FROM events WHERE id>? ORDER BY id", (last,)
            )
            for found in rows:
                last = found[0]
                if until_ns is None or found[1] <= until_ns:
                    yield _event(found)
            if over or wait.wait(_POLL_S):
                return


def _build(row: Row) -> BuildRow:
    return BuildRow(row[0], row[1], row[2], row[3], bool(row[4]), json.loads(row[5]))


def _event(row: Row) -> Event:
    return Event(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]))
