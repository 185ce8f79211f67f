"""A layer's changes → a blob in the store, in one pass.

tar → sha256 (the diff id) → compress → sha256 (the blob's digest) → disk. Small layers are packed in the
calling thread; from some MiB on a second thread compresses and writes while the first one reads and hashes.
The cut of the stream into chunks is fixed, so the bytes are the same either way.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from builder.cache.compression import (
    CHUNK,
    Compressor,
    Decompressor,
    Readable,
    annotations_of,
    appended_by,
    compressor,
    media_type,
)
from builder.cache.differ import Change, changes
from builder.cache.layer import pack
from builder.cache.problems import at_entry
from builder.cache.tree import SourceTree, View
from builder.cancelling import check
from builder.oci.descriptor import Descriptor
from builder.oci.digest import DiffId, Digest

_INLINE_CHUNKS = 6
_QUEUE = 4


class BlobSink(Protocol):
    """A blob being written: published by ``commit``, dropped when left without."""

    def write(self, data: bytes, /) -> object: ...
    def commit(self) -> tuple[Digest, int]: ...
    def __enter__(self) -> BlobSink: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...


class Blobs(Protocol):
    """Where blobs go."""

    def writer(self) -> BlobSink: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayer:
    """A layer blob: ``size`` is that of the uncompressed tar, ``descriptor.size`` that of the blob."""

    diff_id: DiffId
    descriptor: Descriptor
    size: int


def pack_layer(
    blobs: Blobs,
    upper: Path,
    lowers: Sequence[Path] = (),
    *,
    compression: str = "gzip",
    level: int | None = None,
    userxattr: bool = False,
    clamp_s: int | None = None,
    user_xattrs: bool = True,
) -> PackedLayer:
    """Pack what an upper directory changes in the layers below it, topmost first."""
    found = changes(upper, lowers, userxattr=userxattr)
    with View([upper, *lowers], userxattr=userxattr) as source:
        return pack_changes(
            blobs,
            found,
            source,
            compression=compression,
            level=level,
            clamp_s=clamp_s,
            user_xattrs=user_xattrs,
        )


def pack_changes(
    blobs: Blobs,
    found: Iterable[Change],
    source: SourceTree,
    *,
    compression: str = "gzip",
    level: int | None = None,
    clamp_s: int | None = None,
    user_xattrs: bool = True,
) -> PackedLayer:
    """Pack a list of changes whose content is in ``source``. Raises StoreError, TreeError."""
    here = ""

    def told() -> Iterator[Change]:
        nonlocal here
        for change in found:
            here = change.path
            yield change

    def write(stream: _Stream) -> None:
        try:
            pack(told(), source, stream.write, clamp_s=clamp_s, user_xattrs=user_xattrs)
        except OSError as error:
            raise at_entry(error, f'pack "/{here}" into a layer') from error

    return _packed(blobs, write, compression, level)


def repack(
    blobs: Blobs, source: Readable, *, compression: str = "gzip", level: int | None = None
) -> PackedLayer:
    """A layer, compressed or not, compressed anew; its tar stays as it is."""
    plain = Decompressor(source)

    def write(stream: _Stream) -> None:
        while data := plain.read(CHUNK):
            stream.write(data)

    return _packed(blobs, write, compression, level)


def _packed(
    blobs: Blobs, write: Callable[[_Stream], None], compression: str, level: int | None
) -> PackedLayer:
    packer = compressor(compression, level)
    with blobs.writer() as sink:
        with _Stream(packer, sink) as stream:
            write(stream)
            diff_id = stream.finish()
        digest, size = sink.commit()
    descriptor = Descriptor(
        media_type=media_type(compression), digest=digest, size=size, annotations=annotations_of(packer)
    )
    return PackedLayer(diff_id=diff_id, descriptor=descriptor, size=stream.size)


class _Stream:
    """Cuts the tar stream into chunks, hashes them, and has them compressed and written in order."""

    def __init__(self, packer: Compressor, sink: BlobSink) -> None:
        self.size = 0
        self._packer = packer
        self._sink = sink
        self._hash = hashlib.sha256()
        self._parts: list[bytes] = []
        self._held = 0
        self._inline = _INLINE_CHUNKS
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUE)
        self._worker: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        self._parts.append(data)
        self._held += len(data)
        if self._held < CHUNK:
            return
        joined = b"".join(self._parts)
        whole = len(joined) // CHUNK * CHUNK
        for start in range(0, whole, CHUNK):
            self._chunk(joined[start : start + CHUNK])
        self._parts = [joined[whole:]]
        self._held = len(joined) - whole

    def finish(self) -> DiffId:
        """All was written: the diff id, once the last byte is with the sink."""
        rest = b"".join(self._parts)
        if rest:
            self._chunk(rest)
        self._stop()
        if self._error is not None:
            raise self._error
        self._sink.write(self._packer.flush())
        more = appended_by(self._packer)
        self._hash.update(more)
        self.size += len(more)
        return DiffId(Digest("sha256", self._hash.hexdigest()))

    def _chunk(self, data: bytes) -> None:
        check()
        self.size += len(data)
        if self._inline > 0:
            self._inline -= 1
            self._hash.update(data)
            self._compress(data)
            return
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="pack", daemon=True)
            self._worker.start()
        if self._error is not None:
            raise self._error
        self._queue.put(data)
        self._hash.update(data)

    def _compress(self, data: bytes) -> None:
        packed = self._packer.compress(data)
        if packed:
            self._sink.write(packed)

    def _work(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._compress(data)
                except BaseException as error:  # noqa: BLE001 - raised again in the thread that packs
                    self._error = error

    def _stop(self) -> None:
        if self._worker is not None:
            self._queue.put(None)
            self._worker.join()
            self._worker = None
