"""Compression: every format back again, repeatable bytes, damage and bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import zlib

import pytest
import zstandard

from builder.cache.compression import (
    CorruptData,
    Decompressor,
    InflateLimits,
    compressor,
    engine,
    media_type,
    sniff,
)
from builder.errors import InvalidValue

TEXT = b"".join(b"line %d of a text\n" % (i * i) for i in range(40000))
NOISE = random.Random(1).randbytes(300_000)
DATA = TEXT + NOISE + bytes(1_000_000)
PACK = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "plain": bytes,
}


class Dribble(io.BytesIO):
    """Gives a few bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 997) if size != -1 else 997)


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("source", [io.BytesIO, Dribble])
def test_every_format_comes_back(name: str, source: type[io.BytesIO]) -> None:
    packed = PACK[name](DATA)
    assert sniff(packed[:6]) == name
    reader = Decompressor(source(packed))
    parts = []
    while part := reader.read(10_000):
        parts.append(part)
    assert b"".join(parts) == DATA
    assert all(len(part) == 10_000 for part in parts[:-1])
    assert reader.compression == name
    assert Decompressor(source(packed)).read() == DATA


@pytest.mark.parametrize("name", ["gzip", "zstd", "bzip2", "xz"])
def test_concatenated_streams_are_one(name: str) -> None:
    pack = PACK[name]
    many = b"".join(pack(part) for part in (b"one", b"", b"two", TEXT))
    assert Decompressor(io.BytesIO(many)).read() == b"onetwo" + TEXT
    assert Decompressor(Dribble(many + bytes(5000))).read() == b"onetwo" + TEXT
    with pytest.raises(CorruptData):
        Decompressor(io.BytesIO(many + b"garbage")).read()


def test_zstd_skippable_frames_are_skipped() -> None:
    frame = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    packed = PACK["zstd"](TEXT)
    assert Decompressor(io.BytesIO(frame + packed + frame)).read() == TEXT


@pytest.mark.parametrize("name", ["gzip", "zstd", "bzip2", "xz"])
def test_damage_and_truncation_are_reported(name: str) -> None:
    packed = PACK[name](TEXT)
    for cut in (len(packed) // 2, len(packed) - 1):
        with pytest.raises(CorruptData):
            Decompressor(io.BytesIO(packed[:cut])).read()
    damaged = bytearray(packed)
    for i in range(len(packed) // 2, len(packed) // 2 + 20):
        damaged[i] ^= 0xFF
    with pytest.raises(CorruptData):
        Decompressor(io.BytesIO(bytes(damaged))).read()


@pytest.mark.parametrize("name", ["gzip", "zstd", "bzip2", "xz"])
def test_bombs_stop_with_little_memory(name: str) -> None:
    packed = PACK[name](bytes(20 << 20))
    reader = Decompressor(io.BytesIO(packed), limits=InflateLimits(ratio=100, free_bytes=1 << 20))
    with pytest.raises(CorruptData):
        while reader.read(65536):
            pass
    reader = Decompressor(io.BytesIO(packed), limits=InflateLimits(max_bytes=1 << 20))
    with pytest.raises(CorruptData):
        reader.read()


@pytest.mark.parametrize(
    ("name", "level"), [("gzip", None), ("gzip", 9), ("zstd", None), ("zstd", 1), ("uncompressed", None)]
)
def test_bytes_repeat_and_come_back(name: str, level: int | None) -> None:
    def pack() -> bytes:
        packer = compressor(name, level)
        chunks = [packer.compress(DATA[i : i + (1 << 20)]) for i in range(0, len(DATA), 1 << 20)]
        return b"".join(chunks) + packer.flush()

    packed = pack()
    assert packed == pack()
    assert Decompressor(io.BytesIO(packed)).read() == DATA
    if name == "gzip":
        assert packed[4:8] == bytes(4), "no time in the header"
        assert packed[3] == 0, "no name in the header"
        assert zlib.decompress(packed, 31)
    assert engine(name, level).split()[0] in {"isal", "zlib", "zstd", "uncompressed"}


def test_zstd_bytes_do_not_depend_on_the_number_of_processors() -> None:
    one = compressor("zstd")
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(affinity)})
    try:
        other = compressor("zstd")
    finally:
        os.sched_setaffinity(0, affinity)
    data = TEXT * 8
    assert one.compress(data) + one.flush() == other.compress(data) + other.flush()


def test_wrong_names_and_levels_are_refused() -> None:
    for name, level in (("lz4", None), ("gzip", 10), ("gzip", -1), ("zstd", 23)):
        with pytest.raises(InvalidValue):
            compressor(name, level)
    with pytest.raises(InvalidValue):
        media_type("lz4")
