"""Content by digest, kept as an OCI image layout: stage, verify, publish.

A blob is written below ``tmp/``, flushed, linked to its final name, and only then named by a row; the
staged name goes last. Whatever is interrupted is finished or removed by the next sweep.
``docs/formats/store.md`` has the order.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from builder.cache.db import Database
from builder.cache.faults import point
from builder.cache.locks import Gate
from builder.cache.names import blob_path
from builder.cache.problems import from_os, translated
from builder.cache.staging import claim_file, token
from builder.errors import BlobMissing, StoreError
from builder.oci.digest import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from builder.cache.blobwriter import FileBlobWriter


class BlobStore:
    """The blobs of one state directory; safe for many threads and processes.

    ``published`` is called with every digest that this process publishes, before its row exists, so that
    whoever holds things can hold it.
    """

    def __init__(
        self,
        db: Database,
        gate: Gate,
        root: str,
        *,
        published: Callable[[Sequence[Digest]], None] | None = None,
        touched: Callable[[str, str], None] | None = None,
    ) -> None:
        self._db = db
        self._gate = gate
        self._root = root
        self._blobs = f"{root}/content/blobs"
        self._tmp = f"{root}/tmp"
        self._published = published
        self._touched = touched
        self._dirs: dict[str, _DirectoryFlush] = {}
        self._dirs_lock = threading.Lock()

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here."""
        return self._db.one("SELECT 1 FROM blobs WHERE digest=?", (str(digest),)) is not None

    def size(self, digest: Digest) -> int:
        """Its size in bytes; BlobMissing."""
        row = self._db.one("SELECT size FROM blobs WHERE digest=?", (str(digest),))
        if row is None:
            raise _missing(digest)
        return int(row[0])

    def path(self, digest: Digest) -> Path:
        """Where its bytes are, for reading only; BlobMissing."""
        return Path(self._checked(digest))

    def open(self, digest: Digest) -> BinaryIO:
        """An unbuffered file over its bytes; BlobMissing."""
        path = self._checked(digest)
        try:
            return open(path, "rb", buffering=0)
        except OSError as error:
            raise from_os(error, f"open blob {digest}") from error

    def read(self, digest: Digest, limit: int) -> bytes:
        """All its bytes; BlobMissing, StoreError when there are more than ``limit``."""
        with self.open(digest) as file, translated(f"read blob {digest}"):
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise StoreError(
                    f"blob {digest} has {size} bytes, more than the {limit} that are reasonable here"
                )
            data = b""
            while chunk := file.read(limit + 1 - len(data)):
                data += chunk
            return data

    def put(self, data: bytes) -> Digest:
        """Store bytes that we made ourselves."""
        return self.put_many((data,))[0]

    def put_many(self, items: Sequence[bytes]) -> tuple[Digest, ...]:
        """Store several in one go: one flush of the directory and one transaction for all."""
        digests = tuple(Digest.of(data) for data in items)
        new = {d: data for d, data in zip(digests, items, strict=True) if not self._claim(d)}
        staged: list[Staged] = []
        try:
            with translated("write a blob"):
                for digest, data in new.items():
                    path, fd = claim_file(self._tmp, "blob")
                    staged.append(Staged(path, fd, digest, len(data)))
                    write_all(fd, data)
            if staged:
                self._publish(staged)
        finally:
            for item in staged:
                item.drop()
        return digests

    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> FileBlobWriter:
        """Stage a blob piece by piece; ``commit()`` raises DigestMismatch when it is another one."""
        from builder.cache.blobwriter import FileBlobWriter

        return FileBlobWriter(self, expected, size)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Store a copy of a file (a reflink where possible) that must have ``digest``; DigestMismatch."""
        if self._claim(digest):
            return
        with self.writer(expected=digest) as out:
            with translated(f"read {path}"):
                source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                out.copy_from(source)
            finally:
                os.close(source)
            out.commit()

    def delete(self, digest: Digest) -> None:
        """Remove a blob; the caller knows that no image needs it. Layer entries that name it go with it."""
        from builder.cache.trash import empty_trash, remove_gone, trash_blobs

        assert not self._db.in_write, "the gate comes before a transaction"
        with self._gate.removing():
            with self._db.write() as tx:
                trash_blobs(tx, (str(digest),))
            gone = empty_trash(self._db, self._root)
        remove_gone(gone)

    def iter(self) -> Iterator[tuple[Digest, int]]:
        """Every blob with its size, by digest."""
        for digest, size in self._db.all("SELECT digest, size FROM blobs ORDER BY digest"):
            yield Digest.parse(digest), size

    def finish_published(self, path: str, digest: Digest) -> None:
        """Complete what a dead process began: ``path`` is its verified, staged file (used by sweep)."""
        with translated("finish a blob"), self._gate.passing():
            size = os.stat(path).st_size
            self._link(path, digest, size)
            self._flush_dir(digest.algorithm)
            self._name([(digest, size)])
            _unlink_quietly(path)

    def _file(self, digest: Digest) -> str:
        return f"{self._blobs}/{digest.algorithm}/{digest.hex}"

    def _checked(self, digest: Digest) -> str:
        path = self._file(digest)
        if not self.has(digest):
            raise _missing(digest)
        if not os.path.exists(path):
            self._db.run("DELETE FROM blobs WHERE digest=?", (str(digest),))
            raise _missing(digest)
        self._touch(digest)
        return path

    def _touch(self, digest: Digest) -> None:
        if self._touched is not None:
            self._touched("blob", str(digest))

    def _claim(self, digest: Digest) -> bool:
        """Whether the blob is here already; it is held then, like one that we publish."""
        if not self.has(digest):
            return False
        assert not self._db.in_write, "the gate comes before a transaction"
        with self._gate.passing():
            if self._published is not None:
                self._published((digest,))
            if not self.has(digest):
                return False
        if not os.path.exists(self._file(digest)):
            return False
        self._touch(digest)
        return True

    def _publish(self, staged: Sequence[Staged]) -> None:
        """Make staged and complete blobs visible, in the order that docs/formats/store.md gives."""
        assert not self._db.in_write, "the gate comes before a transaction"
        with translated("publish a blob"):
            for item in staged:
                os.fdatasync(item.fd)
            point("blob.flushed")
            with self._gate.passing():
                if self._published is not None:
                    self._published([item.digest for item in staged])
                for item in staged:
                    item.rename(self._tmp)
                    point("blob.verified")
                    item.linked = True
                    self._link(item.path, item.digest, item.size)
                    point("blob.linked")
                for algorithm in {item.digest.algorithm for item in staged}:
                    self._flush_dir(algorithm)
                point("blob.directory-flushed")
                self._name([(item.digest, item.size) for item in staged])
                for item in staged:
                    item.linked = False
                point("blob.named")

    def _link(self, path: str, digest: Digest, size: int) -> None:
        final = self._file(digest)
        for _ in range(3):
            try:
                os.link(path, final)
                return
            except FileExistsError:
                if os.stat(final).st_size == size:
                    return
                os.unlink(final)  # not what its name says: somebody changed it from outside
            except FileNotFoundError:
                os.makedirs(os.path.dirname(final), exist_ok=True)
        raise StoreError(f"blob {digest} could not be put in place")

    def _name(self, blobs: Sequence[tuple[Digest, int]]) -> None:
        now = time.time_ns()
        with self._db.write() as tx:
            tx.executemany(
                "INSERT INTO blobs(digest, size, created_ns, last_used_ns) VALUES(?,?,?,?)"
                " ON CONFLICT(digest) DO UPDATE SET last_used_ns=excluded.last_used_ns",
                [(str(digest), size, now, now) for digest, size in blobs],
            )
            tx.executemany("DELETE FROM trash WHERE path=?", [(blob_path(str(d)),) for d, _ in blobs])

    def _flush_dir(self, algorithm: str) -> None:
        with self._dirs_lock:
            flush = self._dirs.get(algorithm)
            if flush is None:
                flush = self._dirs[algorithm] = _DirectoryFlush(f"{self._blobs}/{algorithm}")
        flush()


class Staged:
    """A file below ``tmp/`` that will be a blob."""

    __slots__ = ("_digest", "fd", "linked", "path", "size")

    def __init__(self, path: str, fd: int, digest: Digest | None, size: int) -> None:
        self.path = path
        self.fd = fd
        self.linked = False
        """It may stand among the blobs without a row."""
        self._digest = digest
        self.size = size

    @property
    def digest(self) -> Digest:
        assert self._digest is not None
        return self._digest

    @digest.setter
    def digest(self, value: Digest) -> None:
        self._digest = value

    def rename(self, tmp: str) -> None:
        """From now on its name says what it is, so that a sweep can finish the job."""
        path = f"{tmp}/pub-{self.digest.algorithm}-{self.digest.hex}-{token()}"
        os.rename(self.path, path)
        self.path = path

    def drop(self) -> None:
        """Let it go. One that is half published stays for the next sweep, which gives it its row."""
        if not self.linked:
            _unlink_quietly(self.path)
        os.close(self.fd)


class _DirectoryFlush:
    """One fsync for many callers: whose change came before a flush began need not flush again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._count = threading.Lock()
        self._asked = 0
        self._flushed = 0

    def __call__(self) -> None:
        with self._count:
            self._asked += 1
            mine = self._asked
        with self._lock:
            if self._flushed >= mine:
                return
            covers = self._asked
            fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._flushed = covers


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write everything; ``os.write`` may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _missing(digest: Digest) -> BlobMissing:
    return BlobMissing(f"blob {digest} is not in the store")
