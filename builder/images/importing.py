"""``import``: a tar of a file system becomes an image of one layer (IC-IMPORT, IMG-17)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from builder.cache.compression import CHUNK, Compressor, Decompressor, Readable, compressor, media_type
from builder.cache.store import Store
from builder.cache.tarread import TarReader
from builder.exporter.image import assemble
from builder.exporter.times import rfc3339
from builder.exporter.types import LayerRef
from builder.images.changes import apply_changes
from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import Descriptor
from builder.oci.digest import DiffId, Digest
from builder.oci.platform import Platform, host_platform
from builder.oci.reference import Reference


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def import_(
    store: Store,
    stream: Readable,
    ref: str | None = None,
    changes: Sequence[str] = (),
    message: str = "",
    *,
    source: str = "-",
    platform: Platform | None = None,
    compression: str = "gzip",
    now_ns: int | None = None,
) -> Digest:
    """Make an image of the tar in ``stream`` (plain, gzip, bzip2, xz or zstd) and return its id.

    ``changes`` are Dockerfile instructions for its config; ``source`` is named in its history. Raises
    BadArchive, CorruptData, InvalidValue, DockerfileError.
    """
    name = Reference.parse(ref).with_default_tag() if ref else None
    created = rfc3339(time.time_ns() if now_ns is None else now_ns)
    config = apply_changes(ImageConfig(platform=platform or host_platform()), changes)
    with store.hold():
        layer = _layer(store, stream, compression)
        entry = History(created=created, created_by="", comment=message or f"Imported from {source}")
        result = assemble(store, replace(config, history=(entry,), created=created), (layer,), now_ns=now_ns)
        if name is not None:
            store.images.tag(str(name), result.manifest)
        else:
            store.images.add(result.manifest)
    store.events.add("image", "import", str(result.config_digest), {"name": name.familiar if name else ""})
    return result.config_digest


def _layer(store: Store, stream: Readable, compression: str) -> LayerRef:
    """The tar as a layer blob, read once: checked, hashed, compressed."""
    with store.blobs.writer() as sink:
        packing = _Packing(Decompressor(stream), compressor(compression), sink)
        for _ in TarReader(packing):
            pass  # reading to the end is the check: what it holds is looked at when it is unpacked
        diff_id = packing.finish()
        digest, size = sink.commit()
    descriptor = Descriptor(media_type=media_type(compression), digest=digest, size=size)
    return LayerRef(diff_id=diff_id, descriptor=descriptor)


class _Packing:
    """Gives on what it reads, and hashes and compresses it on the way, in equal chunks."""

    def __init__(self, source: Readable, packer: Compressor, sink: _Sink) -> None:
        self._source = source
        self._packer = packer
        self._sink = sink
        self._hash = hashlib.sha256()
        self._held = bytearray()

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self._held += data
        while len(self._held) >= CHUNK:
            self._sink.write(self._packer.compress(bytes(self._held[:CHUNK])))
            del self._held[:CHUNK]
        return data

    def finish(self) -> DiffId:
        self._sink.write(self._packer.compress(bytes(self._held)) + self._packer.flush())
        return DiffId(Digest("sha256", self._hash.hexdigest()))
