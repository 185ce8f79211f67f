"""What the store's parts are asked for (protocols) and the values they answer with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

if TYPE_CHECKING:
    from types import TracebackType

    from builder.oci.config import ImageConfig
    from builder.oci.descriptor import Descriptor
    from builder.oci.digest import ChainId, DiffId, Digest

Driver = Literal["overlay", "native"]
Sharing = Literal["shared", "private", "locked"]
OnWait = Callable[[], None]


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A file tree in the store (LCS-02). ``size`` is what it takes by itself, -1 while nobody has asked yet."""

    id: str
    parent: str | None
    kind: Literal["active", "committed"]
    chain_id: ChainId | None
    driver: Driver
    created_ns: int
    last_used_ns: int
    uses: int
    size: int
    description: str
    record_type: str


@dataclass(frozen=True, slots=True)
class Active:
    """A snapshot that takes changes. ``lowers`` are topmost first; a native one has none: ``upper`` is a full copy."""

    id: str
    parent: str | None
    lowers: tuple[Path, ...]
    upper: Path
    work: Path | None
    driver: Driver
    userxattr: bool = False


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """Which key led to which snapshots (an output may be the empty tree: None).

    ``op`` is the digest of the operation without its inputs; ``parts`` the JSON-able tree that the key was made
    from, kept to explain a miss.
    """

    key: str
    op: str
    outputs: tuple[str | None, ...]
    name: str = ""
    created_ns: int = 0
    parts: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store. ``manifest`` is what its names point at and may be an index; ``config`` is the one for
    this machine's platform, and its digest is the ``id``. ``names`` have tags, ``digests`` are ``name@digest``.
    """

    id: Digest
    manifest: Descriptor
    config: ImageConfig
    names: tuple[str, ...]
    digests: tuple[str, ...]
    created_ns: int


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
