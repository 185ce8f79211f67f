"""Directories that steps keep between builds (``RUN --mount=type=cache``), shared between processes.

An id may have several instances: a step that cannot have the first one in its sharing mode takes another. A
lock per instance says who uses it; ids come from Dockerfiles and never become path components.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from builder.cache.db import Database
from builder.cache.locks import Gate, NamedLock
from builder.cache.problems import if_writable, translated
from builder.cache.types import OnWait, Sharing
from builder.errors import StoreError

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class CacheMount:
    """One instance of a cache mount; ``size`` is -1 when it may have changed since it was measured."""

    directory: str
    id: str
    instance: int
    sharing: Sharing
    created_ns: int
    last_used_ns: int
    uses: int
    size: int


class CacheMountStore:
    """The cache mounts of one state directory; safe for many threads and processes."""

    def __init__(self, db: Database, gate: Gate, root: str) -> None:
        self._db = db
        self._gate = gate
        self._root = root
        self._tmp = f"{root}/tmp"

    def acquire(
        self,
        mount_id: str,
        sharing: Sharing,
        *,
        on_wait: OnWait | None = None,
        check: Callable[[], None] | None = None,
        fill: Callable[[Path], None] | None = None,
    ) -> AcquiredMount:
        """``with mounts.acquire("apt", "locked") as directory``.

        ``shared``: together with other shared users. ``private``: alone, in another instance if need be.
        ``locked``: alone, waiting for it (``on_wait`` is called once, ``check`` while waiting). ``fill`` is
        given a new instance's directory before anybody else sees it.
        """
        return AcquiredMount(self, mount_id, sharing, on_wait, check, fill)

    def list(self) -> tuple[CacheMount, ...]:
        """Every instance."""
        rows = self._db.all(
            "SELECT dir, id, instance, sharing, created_ns, last_used_ns, uses, size FROM cache_mounts"
            " ORDER BY id, instance"
        )
        return tuple(CacheMount(*row) for row in rows)

    def path(self, directory: str) -> Path:
        """Where an instance is."""
        return Path(f"{self._root}/cachemounts/{directory}")

    def in_use(self, directory: str) -> bool:
        """Whether somebody has it at this moment, or wants it while another instance is made.

        Nobody takes this look for use and makes one because of it.
        """
        making, lock = self._making(directory), self._lock(directory, shared=False)
        if not lock.is_wanted():
            return False
        if not making.try_acquire():
            return True
        try:
            free = lock.try_acquire()
            lock.release()
        finally:
            making.release()
        return not free

    def size(self, directory: str) -> int:
        """Bytes it takes; measured when unknown."""
        row = self._db.one("SELECT size FROM cache_mounts WHERE dir=?", (directory,))
        if row is None:
            return 0
        if row[0] >= 0:
            return int(row[0])
        from builder.cache.measure import disk_usage

        size = disk_usage(str(self.path(directory)))
        if not self.in_use(directory):
            with if_writable():
                self._db.run("UPDATE cache_mounts SET size=? WHERE dir=?", (size, directory))
        return size

    def delete(self, directory: str) -> bool:
        """Remove an instance; False when somebody uses it."""
        from builder.cache.trash import discard_noted

        lock = self._lock(directory, shared=False)
        if not lock.try_acquire():
            return False
        path = f"cachemounts/{directory}"
        try:
            with self._db.write() as tx:
                tx.execute("DELETE FROM cache_mounts WHERE dir=?", (directory,))
                tx.execute("INSERT OR IGNORE INTO trash(path) VALUES(?)", (path,))
            discard_noted(self._db, self._root, path)
        finally:
            lock.release()
        return True

    def _lock(self, directory: str, *, shared: bool) -> NamedLock:
        return NamedLock(self._tmp, f"cachemount/{directory}", shared=shared)

    def _making(self, directory: str) -> NamedLock:
        """Held by who makes an instance of the same id."""
        return NamedLock(self._tmp, f"cachemount-new/{directory.partition('-')[0]}")

    def _try(self, mount_id: str, sharing: Sharing) -> tuple[str, NamedLock] | None:
        """The first existing instance that can be had in this mode."""
        rows = self._db.all("SELECT dir FROM cache_mounts WHERE id=? ORDER BY instance", (mount_id,))
        for (directory,) in rows:
            lock = self._lock(directory, shared=sharing == "shared")
            if not lock.try_acquire():
                continue
            if self._db.one("SELECT 1 FROM cache_mounts WHERE dir=?", (directory,)) is not None:
                return directory, lock
            lock.release()
        return None

    def _make(
        self, mount_id: str, sharing: Sharing, fill: Callable[[Path], None] | None
    ) -> tuple[str, NamedLock] | None:
        """A new instance, locked; None for ``locked``, which has one instance and waits for it."""
        with self._making(_digest(mount_id)):
            found = self._try(mount_id, sharing)
            if found is not None:
                return found
            row = self._db.one("SELECT max(instance) FROM cache_mounts WHERE id=?", (mount_id,))
            highest = -1 if row is None or row[0] is None else int(row[0])
            if sharing == "locked" and highest >= 0:
                return None
            directory = self._unused(mount_id, highest + 1)
            lock = self._lock(directory, shared=sharing == "shared")
            lock.__enter__()
            try:
                self._publish(directory, mount_id, highest + 1, sharing, fill)
            except BaseException:
                lock.release()
                raise
            return directory, lock

    def _unused(self, mount_id: str, instance: int) -> str:
        return f"{_digest(mount_id)}-{instance}-{time.time_ns():x}"

    def _publish(
        self,
        directory: str,
        mount_id: str,
        instance: int,
        sharing: Sharing,
        fill: Callable[[Path], None] | None,
    ) -> None:
        """Filled in ``tmp/``, renamed, then named by a row; a note in ``trash`` covers the time between."""
        from builder.cache.staging import Staging

        path = f"cachemounts/{directory}"
        now = time.time_ns()
        with translated("make a cache mount"), Staging(self._tmp, "cachemount") as staged:
            inner = staged / "d"
            os.mkdir(inner, 0o755)
            os.chmod(inner, 0o755)  # noqa: S103 (a mount's root, whatever the umask)
            if fill is not None:
                fill(inner)
            with self._gate.passing():
                self._db.run("INSERT OR IGNORE INTO trash(path) VALUES(?)", (path,))
                os.rename(inner, f"{self._root}/{path}")
                with self._db.write() as tx:
                    tx.execute("DELETE FROM trash WHERE path=?", (path,))
                    tx.execute(
                        "INSERT INTO cache_mounts(dir, id, instance, sharing, created_ns, last_used_ns)"
                        " VALUES(?,?,?,?,?,?)",
                        (directory, mount_id, instance, sharing, now, now),
                    )

    def _used(self, directory: str) -> None:
        self._db.run(
            "UPDATE cache_mounts SET last_used_ns=?, uses=uses+1, size=-1 WHERE dir=?",
            (time.time_ns(), directory),
        )


def _digest(mount_id: str) -> str:
    return hashlib.sha256(mount_id.encode("utf-8", "surrogateescape")).hexdigest()[:24]


class AcquiredMount:
    """See ``CacheMountStore.acquire``."""

    def __init__(
        self,
        store: CacheMountStore,
        mount_id: str,
        sharing: Sharing,
        on_wait: OnWait | None,
        check: Callable[[], None] | None,
        fill: Callable[[Path], None] | None,
    ) -> None:
        if sharing not in ("shared", "private", "locked"):
            raise StoreError(f"unknown sharing mode {sharing!r}", hint="shared, private and locked are known")
        self._store = store
        self._id = mount_id
        self._sharing = sharing
        self._on_wait = on_wait
        self._check = check
        self._fill = fill
        self._lock: NamedLock | None = None
        self._directory = ""

    def __enter__(self) -> Path:
        told = False
        while True:
            found = self._store._try(self._id, self._sharing) or self._store._make(
                self._id, self._sharing, self._fill
            )
            if found is not None:
                self._directory, self._lock = found
                self._store._used(self._directory)
                return self._store.path(self._directory)
            if not told and self._on_wait is not None:
                self._on_wait()
            told = True
            if self._check is not None:
                self._check()
            time.sleep(_POLL_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        try:
            self._store._used(self._directory)
        finally:
            self._lock.release()
