"""A blob that is staged piece by piece, with its digest as it grows (``BlobStore.writer``)."""

from __future__ import annotations

import fcntl
import hashlib
import os
from types import TracebackType

from builder.cache.blobs import BlobStore, Staged, write_all
from builder.cache.problems import translated
from builder.cache.staging import claim_file
from builder.errors import DigestMismatch
from builder.oci.digest import Digest

_COPY_CHUNK = 1 << 20
_FICLONE = 0x40049409


class FileBlobWriter:
    """See ``BlobStore.writer``."""

    def __init__(self, store: BlobStore, expected: Digest | None, size: int | None) -> None:
        self._store = store
        self._expected = expected
        self._want_size = size
        self._hash = hashlib.new(expected.algorithm) if expected is not None else hashlib.sha256()
        self._size = 0
        self._done = False
        with translated("write a blob"):
            path, fd = claim_file(store._tmp, "blob")
        self._staged = Staged(path, fd, expected, 0)

    def __enter__(self) -> FileBlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append; StoreFull when the disk is, DigestMismatch when it grows beyond the announced size."""
        view = memoryview(data).cast("B") if isinstance(data, memoryview) else memoryview(data)
        self._size += len(view)
        if self._want_size is not None and self._size > self._want_size:
            raise DigestMismatch(f"{self._label()} has more than the announced {self._want_size} bytes")
        self._hash.update(view)
        with translated("write a blob"):
            write_all(self._staged.fd, view)
        return len(view)

    def copy_from(self, source: int) -> None:
        """Append a whole file, sharing its blocks where the file system can; it is read once, for the
        digest.
        """
        if self._size == 0:
            try:
                fcntl.ioctl(self._staged.fd, _FICLONE, source)
            except OSError:
                pass
            else:
                self._hash_whole()
                return
        with translated("read a file"):
            while chunk := os.read(source, _COPY_CHUNK):
                self.write(chunk)

    def commit(self) -> tuple[Digest, int]:
        """Publish; returns digest and size. DigestMismatch when they are not as announced."""
        if self._want_size is not None and self._size != self._want_size:
            raise DigestMismatch(
                f"{self._label()} has {self._size} bytes instead of the announced {self._want_size}"
            )
        found = Digest(self._hash.name, self._hash.hexdigest())
        if self._expected is not None and found != self._expected:
            raise DigestMismatch(f"content has digest {found} instead of {self._expected}")
        self._staged.digest, self._staged.size = found, self._size
        if not self._store._claim(found):
            self._store._publish((self._staged,))
        self.close()
        return found, self._size

    def close(self) -> None:
        """Drop what was not committed."""
        if not self._done:
            self._done = True
            self._staged.drop()

    def _hash_whole(self) -> None:
        with translated("read a file"):
            fd = self._staged.fd
            while chunk := os.pread(fd, _COPY_CHUNK, self._size):
                self._hash.update(chunk)
                self._size += len(chunk)
            os.lseek(fd, 0, os.SEEK_END)

    def _label(self) -> str:
        return f"blob {self._expected}" if self._expected is not None else "blob"
