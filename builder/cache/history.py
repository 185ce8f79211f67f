"""The record of every build (HSY-01) and the log of events."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from builder.cache.db import Database, Row
from builder.cache.staging import Owner
from builder.errors import StoreError

BuildStatus = Literal["running", "completed", "error", "canceled"]
MAX_BUILDS = 50
MAX_AGE_NS = 48 * 3600 * 1_000_000_000
MAX_EVENTS = 20_000
_TRIM_EVERY = 500
_POLL_S = 0.1
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
    """The builds of one state directory. One whose process died while running counts as canceled."""

    def __init__(self, db: Database, owner: Owner) -> None:
        self._db = db
        self._owner = owner

    def add(self, build_id: str, data: dict[str, Any]) -> None:
        """A build starts."""
        owner = self._owner.name()
        self._db.run(
            "INSERT OR REPLACE INTO builds(id, created_ns, status, owner, data) VALUES(?,?,'running',?,?)",
            (build_id, time.time_ns(), owner, json.dumps(data)),
        )

    def finish(self, build_id: str, status: BuildStatus, data: dict[str, Any] | None = None) -> None:
        """A build ended; ``data`` replaces what was kept. Old records go (HSY-05)."""
        now = time.time_ns()
        with self._db.write() as tx:
            tx.execute(
                "UPDATE builds SET status=?, completed_ns=?, owner=NULL, data=coalesce(?, data) WHERE id=?",
                (status, now, None if data is None else json.dumps(data), build_id),
            )
            tx.execute(
                "DELETE FROM builds WHERE pinned=0 AND status<>'running' AND created_ns<?"
                " AND id NOT IN (SELECT id FROM builds ORDER BY created_ns DESC LIMIT ?)",
                (now - MAX_AGE_NS, MAX_BUILDS),
            )

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

    def list(self, *, limit: int | None = None) -> tuple[BuildRow, ...]:
        """Running builds first, then the newest (HSY-03)."""
        sql = f"SELECT {_COLUMNS} FROM builds ORDER BY status='running' DESC, created_ns DESC LIMIT ?"  # noqa: S608
        return tuple(_build(row) for row in self._db.all(sql, (-1 if limit is None else limit,)))

    def pin(self, build_id: str, *, pinned: bool = True) -> bool:
        """Keep a record from being removed by age, or no longer."""
        return bool(self._db.run("UPDATE builds SET pinned=? WHERE id=?", (pinned, build_id)))

    def remove(self, build_id: str) -> bool:
        """Forget a build that is not running."""
        return bool(self._db.run("DELETE FROM builds WHERE id=? AND status<>'running'", (build_id,)))


class EventLog:
    """The events of one state directory; the oldest go when there are too many."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, kind: str, action: str, actor: str, attrs: dict[str, str] | None = None) -> None:
        """Something happened just now. Inside a batch it becomes visible with it."""
        with self._db.write() as tx:
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
