"""One-pass packing: digests, sizes, threads and errors."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest

from builder.cache.compression import Decompressor
from builder.cache.differ import everything
from builder.cache.layer import pack
from builder.cache.pack import PackedLayer, pack_layer
from builder.cache.readahead import ReadAhead
from builder.cache.tree import View
from builder.errors import StoreFull
from builder.oci.digest import Digest


class Sink:
    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.data = b""

    def write(self, data: bytes, /) -> object:
        if len(self.data) > self.blobs.limit:
            raise StoreFull("full")
        self.data += data
        return len(data)

    def commit(self) -> tuple[Digest, int]:
        self.blobs.stored = self.data
        return Digest.of(self.data), len(self.data)

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Blobs:
    def __init__(self, limit: int = 1 << 40) -> None:
        self.stored = b""
        self.limit = limit

    def writer(self) -> Sink:
        return Sink(self)


def big_tree(root: Path) -> Path:
    root.mkdir()
    for i in range(60):
        (root / f"small{i}").write_bytes(os.urandom(100 * i))
    (root / "big").write_bytes(os.urandom(1 << 20) * 11 + b"end")
    return root


def packed(root: Path, **options: Any) -> tuple[PackedLayer, bytes]:
    blobs = Blobs()
    return pack_layer(blobs, root, **options), blobs.stored


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_digests_and_sizes_are_those_of_the_bytes(tmp_path: Path, compression: str) -> None:
    root = big_tree(tmp_path / "root")
    out = io.BytesIO()
    pack(everything(View([root])), View([root]), out.write)
    tar = out.getvalue()
    layer, blob = packed(root, compression=compression)
    assert layer.size == len(tar) > 8 << 20, "large enough for the second thread"
    assert layer.diff_id == Digest.of(tar)
    assert layer.descriptor.digest == Digest.of(blob)
    assert layer.descriptor.size == len(blob)
    assert layer.descriptor.media_type.startswith("application/vnd.oci.image.layer.v1.tar")
    assert Decompressor(io.BytesIO(blob)).read() == tar
    assert packed(root, compression=compression)[1] == blob, "repeatable"


def test_an_empty_layer_has_the_known_diff_id(tmp_path: Path) -> None:
    layer, _ = packed(tmp_path)
    assert str(layer.diff_id) == "sha256:" + hashlib.sha256(bytes(1024)).hexdigest()


@pytest.mark.parametrize("limit", [0, 9 << 20])
def test_a_full_disk_is_reported_from_either_thread(tmp_path: Path, limit: int) -> None:
    root = big_tree(tmp_path / "root")
    with pytest.raises(StoreFull):
        pack_layer(Blobs(limit), root, compression="uncompressed")


def test_read_ahead_gives_everything_in_order_and_errors_too() -> None:
    data = os.urandom(9 << 20)
    with ReadAhead(io.BytesIO(data)) as source:
        parts = []
        while part := source.read(1):
            parts.append(part)
        assert source.read(1) == b""
    assert b"".join(parts) == data

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 5 << 20:
                raise StoreFull("broken")
            return super().read(size)

    with ReadAhead(Broken(data)) as source, pytest.raises(StoreFull):
        while source.read(1):
            pass
    with ReadAhead(io.BytesIO(data)) as source:
        for _ in range(6):
            source.read(1)
