"""The one door to SQLite: connections, transactions, waiting for other processes, and the map of errors.

WAL with ``synchronous=NORMAL``: a commit is atomic and ordered, and costs no fsync. A connection is used by
one thread at a time; a thread inside ``write()`` sees its own changes in every read it makes.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType

from builder.cache.faults import point
from builder.cache.problems import from_os, from_sqlite, is_busy
from builder.errors import StoreBusy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")
    Row = tuple[Any, ...]
else:  # typing would take a millisecond of every start
    Row = tuple

WAIT_S = 30.0
_CHECKPOINT_PAGES = 500
_F_OFD_SETLK = 37
# The byte range that SQLite read-locks while a connection is open and write-locks to tidy up at the last
# close (sqlite: src/os.h, PENDING_BYTE and SHARED_FIRST).
_SHARED_RANGE = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0x40000002, 510, 0)


class Database:
    """A database file that any number of threads and processes may use."""

    def __init__(self, path: str, *, wait_s: float = WAIT_S) -> None:
        self.path = path
        self._wait_s = wait_s
        self._idle: list[sqlite3.Connection] = []
        self._writer = threading.Lock()
        self._local = _Local()
        self._closed = False
        try:
            self._anchor = _anchor(path)
        except OSError as error:
            raise from_os(error, "open the database") from error

    def close(self) -> None:
        """Close every idle connection; the database must not be used afterwards."""
        if self._closed:
            return
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        _release_anchor(self._anchor)

    def one(self, sql: str, args: tuple[Any, ...] = ()) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._read(lambda c: c.execute(sql, args).fetchone())
        return row

    def all(self, sql: str, args: tuple[Any, ...] = ()) -> list[Row]:
        """Every row."""
        return self._read(lambda c: c.execute(sql, args).fetchall())

    @property
    def in_write(self) -> bool:
        """Whether this thread is inside ``write()``."""
        return self._local.connection is not None

    def write(self) -> Transaction:
        """``with db.write() as tx: tx.execute(...)``: all or nothing.

        Inside another ``write()`` of the same thread it joins that one, so callers may batch many changes.
        """
        return Transaction(self)

    def run(self, sql: str, args: tuple[Any, ...] = ()) -> int:
        """One statement as a transaction; returns the number of rows changed."""
        with self.write() as tx:
            return tx.execute(sql, args).rowcount

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        own = self._local.connection
        if own is not None:
            return self._attempt(own, work)
        connection = self._take()
        try:
            return self._attempt(connection, work)
        finally:
            self._give(connection)

    def _attempt(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work``, again and again while others are in the way; StoreBusy after the wait."""
        try:
            return work(connection)
        except sqlite3.Error as error:
            first = error
        return self._wait(lambda: work(connection), first)

    def _wait(self, work: Callable[[], T], error: sqlite3.Error) -> T:
        deadline = time.monotonic() + self._wait_s
        delay = 0.0005
        while True:
            if not is_busy(error):
                raise from_sqlite(error, "use the database", self.path) from error
            if time.monotonic() >= deadline:
                raise StoreBusy(
                    f"other processes use {self.path} for more than {self._wait_s:g} seconds",
                    hint="try again when they are done",
                ) from error
            time.sleep(delay * (0.5 + _jitter()))
            delay = min(delay * 1.5, 0.008)
            try:
                return work()
            except sqlite3.Error as again:
                error = again

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return self._connect()
        except sqlite3.Error as error:
            return self._wait(self._connect, error)

    def _give(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=0.02, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection


def create_database(path: str, schema: str) -> None:
    """Make the file and its tables, again if need be; nobody else may have it open.

    Write-ahead logging is a property of the file from here on. Later connections could not switch it on:
    that takes an exclusive lock, which the anchors of other processes keep away.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise from_os(error, "make the database") from error
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            connection.executescript(f"BEGIN IMMEDIATE; {schema} COMMIT;")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise from_sqlite(error, "make the database", path) from error


class Transaction:
    """A write transaction of one thread (see ``Database.write``)."""

    __slots__ = ("_db",)

    def __init__(self, db: Database) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        db = self._db
        local = db._local
        if local.connection is not None:
            local.depth += 1
            return local.connection
        if not db._writer.acquire(timeout=db._wait_s):
            raise StoreBusy(f"another thread is writing to {db.path} for more than {db._wait_s:g} seconds")
        try:
            connection = db._take()
            try:
                db._attempt(connection, _begin)
            except BaseException:
                _rollback(connection)
                db._give(connection)
                raise
        except BaseException:
            db._writer.release()
            raise
        local.connection, local.depth = connection, 1
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        db = self._db
        local = db._local
        connection = local.connection
        assert connection is not None
        local.depth -= 1
        if local.depth == 0:
            try:
                if error is None:
                    db._attempt(connection, _commit)
                    point("db.committed")
            finally:
                _rollback(connection)
                local.connection = None
                db._give(connection)
                db._writer.release()
        if isinstance(error, sqlite3.Error):
            raise from_sqlite(error, "change the database", db.path) from error


class _Local(threading.local):
    connection: sqlite3.Connection | None = None
    depth = 0


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")


def _commit(connection: sqlite3.Connection) -> None:
    point("db.commit")
    connection.execute("COMMIT")


def _rollback(connection: sqlite3.Connection) -> None:
    """Nothing to do after a commit; a rollback that fails leaves the same state as one that works."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass


def _jitter() -> float:
    return ((time.monotonic_ns() >> 4) ^ (os.getpid() * 2654435761)) % 1009 / 1009


_AnchorKey = tuple[int, int]
_anchors: dict[_AnchorKey, list[int]] = {}
_anchors_lock = threading.Lock()


def _anchor(path: str) -> _AnchorKey:
    """Keep the last close of a connection from writing the whole log back, with its two fsyncs and an unlink.

    The log is folded into the database every ``_CHECKPOINT_PAGES`` pages by whoever commits; a short
    command that wrote three rows need not do it. SQLite offers a switch for this only from Python 3.12 on,
    so a read lock is held on the range that it wants to write-lock then: an open-file-description lock,
    which conflicts with the process's own POSIX locks. Closing any descriptor of the file drops the POSIX
    locks of the whole process, so there is one anchor per file and it is closed when the process has no
    connection to it any more.
    """
    with _anchors_lock:
        status = os.stat(path)
        key = (status.st_dev, status.st_ino)
        held = _anchors.get(key)
        if held is not None:
            held[1] += 1
            return key
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, _SHARED_RANGE)
        except OSError:
            pass  # an old kernel, or a last close elsewhere this instant: only the saving is lost
        _anchors[key] = [fd, 1]
        return key


def _release_anchor(key: _AnchorKey) -> None:
    with _anchors_lock:
        held = _anchors[key]
        held[1] -= 1
        if held[1] == 0:
            os.close(held[0])
            del _anchors[key]
