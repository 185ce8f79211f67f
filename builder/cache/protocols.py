"""What the rest of the builder asks of the store, as protocols; the state directory and ``memory.py`` fit
them.

Imported for type checking only: making protocol classes costs more than opening a store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from builder.cache.filedata import XattrFailed
from builder.cache.treepaths import SourceTree
from builder.cache.types import Active, CacheRecord, Driver, OnWait, Sharing, SnapshotInfo
from builder.oci.descriptor import Descriptor
from builder.oci.digest import ChainId, DiffId, Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, Protocol
else:
    Protocol = object


class BlobWriter(Protocol):
    """A blob being written: ``commit()`` publishes it, leaving the ``with`` without it leaves nothing."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int: ...
    def commit(self) -> tuple[Digest, int]: ...
    def __enter__(self) -> BlobWriter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Blobs(Protocol):
    """Bytes by digest."""

    def has(self, digest: Digest) -> bool: ...
    def size(self, digest: Digest) -> int: ...
    def path(self, digest: Digest) -> Path: ...
    def open(self, digest: Digest) -> BinaryIO: ...
    def read(self, digest: Digest, limit: int) -> bytes: ...
    def put(self, data: bytes) -> Digest: ...
    def put_many(self, items: Sequence[bytes]) -> tuple[Digest, ...]: ...
    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> BlobWriter: ...
    def adopt(self, path: Path, digest: Digest) -> None: ...
    def delete(self, digest: Digest) -> None: ...
    def iter(self) -> Iterator[tuple[Digest, int]]: ...


class TreeSink(SourceTree, Protocol):
    """A tree that takes the changes of file operations: a ``Writer``, or a ``PlannedTree``."""

    xattr_failed: XattrFailed | None

    def mkdir(
        self,
        path: str,
        mode: int,
        uid: int,
        gid: int,
        *,
        xattrs: Mapping[str, bytes] = ...,
        mtime_ns: int | None = None,
    ) -> bool: ...
    def makedirs(
        self, path: str, mode: int = ..., uid: int = ..., gid: int = ..., *, mtime_ns: int | None = None
    ) -> tuple[str, ...]: ...
    def write_file(
        self,
        path: str,
        source: bytes,
        mode: int = ...,
        uid: int = ...,
        gid: int = ...,
        *,
        mtime_ns: int | None = None,
    ) -> None: ...
    def copy_file(
        self,
        path: str,
        source: SourceTree,
        source_path: str,
        source_stat: os.stat_result,
        mode: int,
        uid: int,
        gid: int,
        *,
        mtime_ns: int | None = None,
    ) -> None: ...
    def symlink(
        self, path: str, target: str, uid: int = ..., gid: int = ..., *, mtime_ns: int | None = None
    ) -> None: ...
    def mknod(
        self,
        path: str,
        mode: int,
        device: int = ...,
        uid: int = ...,
        gid: int = ...,
        *,
        mtime_ns: int | None = None,
    ) -> None: ...
    def link(self, path: str, existing: str) -> None: ...
    def remove(self, path: str) -> bool: ...
    def set_meta(
        self,
        path: str,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None: ...


class Snapshotter(Protocol):
    """How directories become a tree that takes changes; overlay and native implement it."""

    driver: Driver
    userxattr: bool

    def make(self, directory: str, layers: Sequence[str], *, stacked: bool) -> None:
        """Fill the new snapshot directory; ``layers`` is the parent's tree, topmost first."""

    def settle(self, directory: str) -> None:
        """Remove what only an active snapshot needs."""


class Snapshots(Protocol):
    """File trees by id."""

    @property
    def driver(self) -> Driver: ...
    def prepare(
        self, parent: str | None, *, description: str = "", record_type: str = "regular"
    ) -> Active: ...
    def commit(
        self,
        active: Active,
        *,
        chain_id: ChainId | None = None,
        description: str = "",
        record_type: str = "regular",
    ) -> SnapshotInfo: ...
    def discard(self, active: Active) -> None: ...
    def get(self, snapshot_id: str) -> SnapshotInfo | None: ...
    def by_chain(self, chain_id: ChainId) -> SnapshotInfo | None: ...
    def touch(self, snapshot_id: str) -> None: ...
    def chain(self, snapshot_id: str) -> tuple[SnapshotInfo, ...]: ...
    def layers(self, snapshot_id: str | None) -> tuple[Path, ...]: ...
    def diff_dir(self, snapshot_id: str) -> tuple[Path, tuple[Path, ...]]: ...
    def set_layer(
        self, snapshot_id: str, *, compression: str, diff_id: DiffId, descriptor: Descriptor
    ) -> None: ...
    def layer(self, snapshot_id: str, compression: str) -> tuple[DiffId, Descriptor] | None: ...
    def set_content_digest(self, snapshot_id: str, digest: Digest) -> None: ...
    def content_digest(self, snapshot_id: str) -> Digest | None: ...


class Records(Protocol):
    """Cache records by key."""

    def lookup(self, key: str, *, parts: bool = False) -> CacheRecord | None: ...
    def save(self, record: CacheRecord) -> None: ...
    def near(self, op: str, name: str) -> tuple[CacheRecord, ...]: ...
    def forget(self, key: str) -> None: ...


class CacheMounts(Protocol):
    """Directories that steps keep between builds."""

    def acquire(
        self, mount_id: str, sharing: Sharing, *, on_wait: OnWait | None = None
    ) -> AbstractContextManager[Path]: ...
