"""The protocols of the store held in dictionaries: for tests, and for work that leaves nothing behind."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from builder.cache.records import NEAR_LIMIT
from builder.cache.types import CacheRecord
from builder.errors import BlobMissing, DigestMismatch, StoreError
from builder.oci.digest import Digest


class MemoryBlobStore:
    """See ``protocols.Blobs``. ``path()`` needs a directory to write to: ``scratch``."""

    def __init__(self, scratch: Path | None = None) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._scratch = scratch
        self._lock = threading.Lock()

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here."""
        return digest in self._blobs

    def size(self, digest: Digest) -> int:
        """Its size in bytes; BlobMissing."""
        return len(self._get(digest))

    def path(self, digest: Digest) -> Path:
        """A file with its bytes; BlobMissing."""
        data = self._get(digest)
        if self._scratch is None:
            raise StoreError("a blob store in memory without a scratch directory has no paths")
        path = self._scratch / digest.hex
        if not path.exists():
            path.write_bytes(data)
        return path

    def open(self, digest: Digest) -> BinaryIO:
        """A file over its bytes; BlobMissing."""
        return io.BytesIO(self._get(digest))

    def read(self, digest: Digest, limit: int) -> bytes:
        """All its bytes; BlobMissing, StoreError when there are more than ``limit``."""
        data = self._get(digest)
        if len(data) > limit:
            raise StoreError(
                f"blob {digest} has {len(data)} bytes, more than the {limit} that are reasonable"
            )
        return data

    def put(self, data: bytes) -> Digest:
        """Store bytes."""
        digest = Digest.of(data)
        self._blobs[digest] = bytes(data)
        return digest

    def put_many(self, items: Sequence[bytes]) -> tuple[Digest, ...]:
        """Store several."""
        return tuple(self.put(data) for data in items)

    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> MemoryBlobWriter:
        """Stage a blob piece by piece."""
        return MemoryBlobWriter(self, expected, size)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Store a copy of a file that must have ``digest``."""
        with self.writer(expected=digest) as out:
            out.write(path.read_bytes())
            out.commit()

    def delete(self, digest: Digest) -> None:
        """Remove a blob."""
        with self._lock:
            self._blobs.pop(digest, None)

    def iter(self) -> Iterator[tuple[Digest, int]]:
        """Every blob with its size, by digest."""
        with self._lock:
            items = sorted((str(digest), digest, len(data)) for digest, data in self._blobs.items())
        for _, digest, size in items:
            yield digest, size

    def _get(self, digest: Digest) -> bytes:
        data = self._blobs.get(digest)
        if data is None:
            raise BlobMissing(f"blob {digest} is not in the store")
        return data


class MemoryBlobWriter:
    """See ``protocols.BlobWriter``."""

    def __init__(self, store: MemoryBlobStore, expected: Digest | None, size: int | None) -> None:
        self._store = store
        self._expected = expected
        self._size = size
        self._data = bytearray()

    def __enter__(self) -> MemoryBlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data = bytearray()

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append; DigestMismatch when it grows beyond the announced size."""
        before = len(self._data)
        self._data += data
        if self._size is not None and len(self._data) > self._size:
            raise DigestMismatch(f"blob has more than the announced {self._size} bytes")
        return len(self._data) - before

    def commit(self) -> tuple[Digest, int]:
        """Publish; DigestMismatch when digest or size are not as announced."""
        if self._size is not None and len(self._data) != self._size:
            raise DigestMismatch(f"blob has {len(self._data)} bytes instead of the announced {self._size}")
        data = bytes(self._data)
        found = Digest.of(data) if self._expected is None else _digest_like(self._expected, data)
        if self._expected is not None and found != self._expected:
            raise DigestMismatch(f"content has digest {found} instead of {self._expected}")
        self._store._blobs[found] = data
        return found, len(data)


class MemoryRecordStore:
    """See ``protocols.Records``."""

    def __init__(self) -> None:
        self._records: dict[str, CacheRecord] = {}
        self._lock = threading.Lock()
        self._clock = 0

    def lookup(self, key: str, *, parts: bool = False) -> CacheRecord | None:
        """The record of ``key``, or None."""
        record = self._records.get(key)
        return record if record is None or parts else replace(record, parts={})

    def save(self, record: CacheRecord) -> None:
        """Store or replace."""
        with self._lock:
            self._clock += 1
            self._records[record.key] = replace(record, created_ns=record.created_ns or self._clock)

    def near(self, op: str, name: str) -> tuple[CacheRecord, ...]:
        """Records that a missed key may be compared with: same operation first, newest first."""
        newest = sorted(self._records.values(), key=lambda record: record.created_ns, reverse=True)
        same = [record for record in newest if record.op == op]
        named = [record for record in newest if name and record.name == name and record.op != op]
        return tuple((same + named)[:NEAR_LIMIT])

    def forget(self, key: str) -> None:
        """Drop a record."""
        with self._lock:
            self._records.pop(key, None)


def _digest_like(expected: Digest, data: bytes) -> Digest:
    import hashlib

    return Digest(expected.algorithm, hashlib.new(expected.algorithm, data).hexdigest())
