"""The database door: transactions, waiting, errors."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.db import Database, create_database
from builder.cache.problems import from_os, from_sqlite, translated
from builder.errors import StoreBusy, StoreError, StoreFull


@pytest.fixture
def path(tmp_path: Path) -> str:
    text = str(tmp_path / "db.sqlite")
    create_database(text, "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b TEXT);")
    return text


@pytest.fixture
def db(path: str) -> Iterator[Database]:
    opened = Database(path, wait_s=0.3)
    yield opened
    opened.close()


def test_a_transaction_is_all_or_nothing(db: Database) -> None:
    with pytest.raises(ValueError), db.write() as tx:
        tx.execute("INSERT INTO t VALUES(1, 'x')")
        raise ValueError
    assert db.one("SELECT * FROM t") is None
    with db.write() as tx:
        tx.execute("INSERT INTO t VALUES(1, 'x')")
    assert db.all("SELECT * FROM t") == [(1, "x")]


def test_inner_transactions_join_the_outer_one(db: Database) -> None:
    with pytest.raises(ValueError), db.write():
        db.run("INSERT INTO t VALUES(1, 'x')")
        assert db.one("SELECT b FROM t WHERE a=1") == ("x",)
        raise ValueError
    assert db.all("SELECT * FROM t") == []
    assert not db.in_write


def test_other_threads_see_only_what_is_committed(db: Database) -> None:
    seen: list[object] = []
    with db.write() as tx:
        tx.execute("INSERT INTO t VALUES(1, 'x')")
        thread = threading.Thread(target=lambda: seen.append(db.one("SELECT 1 FROM t")))
        thread.start()
        thread.join()
    assert seen == [None]


def test_a_writer_elsewhere_is_waited_for_and_then_reported(db: Database, path: str) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        db.run("INSERT INTO t VALUES(1, 'x')")
    timer = threading.Timer(0.05, lambda: None)
    timer.start()
    timer.join()
    other.execute("ROLLBACK")
    db.run("INSERT INTO t VALUES(1, 'x')")
    other.close()


def test_many_threads_write_without_an_error(path: str) -> None:
    db = Database(path)

    def work(number: int) -> None:
        for index in range(30):
            db.run("INSERT INTO t(b) VALUES(?)", (f"{number}-{index}",))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.one("SELECT count(*) FROM t") == (240,)
    db.close()


def test_two_openings_in_one_process_do_not_disturb_each_other(path: str) -> None:
    first, second = Database(path), Database(path)
    first.run("INSERT INTO t VALUES(1, 'x')")
    with second.write() as tx:
        tx.execute("INSERT INTO t VALUES(2, 'y')")
        first.close()  # must not drop the lock that the transaction holds
        code = (
            "import sqlite3,sys\n"
            "c=sqlite3.connect(sys.argv[1],timeout=0,isolation_level=None)\n"
            "try: c.execute('BEGIN IMMEDIATE')\n"
            "except sqlite3.OperationalError: sys.exit(7)\n"
        )
        assert subprocess.run(["python3", "-c", code, path]).returncode == 7
    assert second.one("SELECT count(*) FROM t") == (2,)
    second.close()


def test_a_close_keeps_the_log_and_the_next_opening_reads_it(path: str) -> None:
    db = Database(path)
    db.run("INSERT INTO t VALUES(1, 'x')")
    db.close()
    assert os.path.getsize(path + "-wal") > 0
    again = Database(path)
    assert again.one("SELECT b FROM t WHERE a=1") == ("x",)
    again.close()


def test_bad_sql_inside_a_transaction_is_a_store_error(db: Database) -> None:
    with pytest.raises(StoreError), db.write() as tx:
        tx.execute("INSERT INTO nowhere VALUES(1)")
    db.run("INSERT INTO t VALUES(1, 'x')")


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    path.write_bytes(b"this is no database at all" * 100)
    db = Database(str(path))
    with pytest.raises(StoreError) as caught:
        db.one("SELECT 1 FROM t")
    assert caught.value.code == "store-corrupt"
    db.close()


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Database(str(tmp_path / "none"))


def _sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("said sqlite")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        (sqlite3.SQLITE_BUSY, StoreBusy, "store-busy"),
        (sqlite3.SQLITE_BUSY | 2 << 8, StoreBusy, "store-busy"),
        (sqlite3.SQLITE_LOCKED, StoreBusy, "store-busy"),
        (sqlite3.SQLITE_FULL, StoreFull, "store-full"),
        (sqlite3.SQLITE_READONLY, StoreError, "store-read-only"),
        (sqlite3.SQLITE_CANTOPEN, StoreError, "store-permission"),
        (sqlite3.SQLITE_CORRUPT, StoreError, "store-corrupt"),
        (sqlite3.SQLITE_NOTADB, StoreError, "store-corrupt"),
        (sqlite3.SQLITE_IOERR, StoreError, "store-error"),
        (sqlite3.SQLITE_ERROR, StoreError, "store-error"),
    ],
)
def test_sqlite_errors_are_translated(tmp_path: Path, code: int, kind: type[StoreError], name: str) -> None:
    error = from_sqlite(_sqlite_error(code), "test", str(tmp_path / "db.sqlite"))
    assert type(error) is kind
    assert error.code == name
    assert error.hint or name == "store-error"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "store-full"),
        (errno.EDQUOT, "store-full"),
        (errno.EROFS, "store-read-only"),
        (errno.EACCES, "store-permission"),
        (errno.EMFILE, "store-error"),
        (errno.EIO, "store-error"),
    ],
)
def test_kernel_errors_are_translated(number: int, code: str) -> None:
    error = from_os(OSError(number, os.strerror(number), "/some/file"), "write a blob")
    assert error.code == code
    assert "write a blob" in str(error)
    assert "/some/file" in str(error)


def test_translated_leaves_other_exceptions_alone() -> None:
    with pytest.raises(ValueError), translated("do it"):
        raise ValueError
    with pytest.raises(StoreError), translated("do it"):
        raise PermissionError(errno.EACCES, "no")
