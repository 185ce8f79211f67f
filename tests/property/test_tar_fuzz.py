"""Damaged archives: whatever the bytes, an expected error or a tree inside its root; never a traceback or a hang."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from builder.cache.compression import Decompressor, InflateLimits
from builder.cache.extract import Limits, apply, is_archive
from builder.cache.treewriter import Writer
from builder.errors import PybuildError

pytestmark = pytest.mark.property

LIMITS = Limits(total_bytes=1 << 26, file_bytes=1 << 24, inflate=InflateLimits(max_bytes=1 << 24))


def sample(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, link in (
            ("d", tarfile.DIRTYPE, ""),
            ("d/f", tarfile.REGTYPE, ""),
            ("d/" + "n" * 150, tarfile.REGTYPE, ""),
            ("l", tarfile.SYMTYPE, "../" * 40),
            ("h", tarfile.LNKTYPE, "d/f"),
            ("d/.wh.x", tarfile.REGTYPE, ""),
            ("p", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.uid, info.gid = kind, link, os.getuid(), os.getgid()
            info.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
            data = b"data" * 200 if kind == tarfile.REGTYPE and ".wh." not in name else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


SAMPLES = [
    sample(form)
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    if form != tarfile.USTAR_FORMAT
]


def repair(block: bytearray) -> None:
    """Give a header block a right checksum, so that damage goes deeper than that."""
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)


def damage(data: bytes, random_: random.Random) -> bytes:
    bad = bytearray(data)
    for _ in range(random_.randrange(1, 6)):
        at = random_.randrange(len(bad))
        match random_.randrange(4):
            case 0:
                bad[at] = random_.randrange(256)
            case 1:
                bad[at : at + 8] = random_.choice(
                    [b"77777777", b"\xff" * 8, b"\x80" + b"\0" * 7, b"../../..", b"-1 99999"]
                )
            case 2:
                start = at // 512 * 512
                del bad[start : start + 512]
            case _:
                start, other = at // 512 * 512, random_.randrange(len(bad)) // 512 * 512
                bad[start : start + 512] = bad[other : other + 512]
        if not bad:
            return b""
    if random_.random() < 0.9:
        for start in range(0, len(bad) - 511, 512):
            block = bad[start : start + 512]
            if block[257:262] == b"ustar":
                repair(block)
                bad[start : start + 512] = block
    return bytes(bad)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_archives(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    canary = tmp_path / "canary"
    canary.write_text("canary")
    for number in range(60):
        root = tmp_path / str(number)
        root.mkdir()
        data = damage(random_.choice(SAMPLES), random_)
        try:
            with Writer(root) as writer:
                apply(io.BytesIO(data), writer, LIMITS, whiteouts=random_.random() < 0.5)
        except PybuildError:
            pass
        is_archive(io.BytesIO(data))
        assert canary.read_text() == "canary"
        assert len(os.listdir(tmp_path)) == number + 2
        for path in root.rglob("*"):
            assert not stat.S_ISBLK(path.lstat().st_mode) or os.geteuid() == 0


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress]
)
def test_damaged_compression(pack: object) -> None:
    assert callable(pack)
    data = pack(SAMPLES[0] + os.urandom(3000))
    random_ = random.Random(1)
    for _ in range(150):
        bad = bytearray(data)
        for _ in range(random_.randrange(1, 4)):
            bad[random_.randrange(len(bad))] = random_.randrange(256)
        try:
            Decompressor(
                io.BytesIO(bytes(bad[: random_.randrange(len(bad)) + 1])), limits=LIMITS.inflate
            ).read()
        except PybuildError:
            pass
