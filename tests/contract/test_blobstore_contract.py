"""One suite for every blob store: the state directory's and the one in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.memory import MemoryBlobStore
from builder.cache.protocols import Blobs
from builder.cache.store import Store
from builder.errors import BlobMissing, DigestMismatch, StoreError
from builder.oci.digest import Digest


@pytest.fixture(params=["disk", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blobs]:
    if request.param == "memory":
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        yield MemoryBlobStore(scratch)
        return
    with Store.open(tmp_path / "root") as store:
        yield store.blobs


def test_what_is_put_can_be_read_in_every_way(blobs: Blobs) -> None:
    digest = blobs.put(b"hello")
    assert digest == Digest.of(b"hello")
    assert blobs.has(digest)
    assert blobs.size(digest) == 5
    assert blobs.read(digest, 5) == b"hello"
    assert blobs.path(digest).read_bytes() == b"hello"
    with blobs.open(digest) as file:
        assert file.read() == b"hello"


def test_putting_twice_is_fine(blobs: Blobs) -> None:
    assert blobs.put_many([b"a", b"b", b"a"]) == blobs.put_many([b"a", b"b", b"a"])
    assert [size for _, size in blobs.iter()] == [1, 1]


def test_a_missing_blob_is_an_error_everywhere(blobs: Blobs) -> None:
    digest = Digest.of(b"nowhere")
    assert not blobs.has(digest)
    for ask in (blobs.size, blobs.path, blobs.open):
        with pytest.raises(BlobMissing):
            ask(digest)
    with pytest.raises(BlobMissing):
        blobs.read(digest, 10)


def test_reading_more_than_the_limit_is_refused(blobs: Blobs) -> None:
    with pytest.raises(StoreError):
        blobs.read(blobs.put(b"12345"), 4)


def test_an_empty_blob_is_a_blob(blobs: Blobs) -> None:
    assert blobs.read(blobs.put(b""), 0) == b""


def test_a_writer_publishes_on_commit_only(blobs: Blobs) -> None:
    with blobs.writer() as out:
        out.write(b"ab")
        out.write(memoryview(b"cd"))
        assert not blobs.has(Digest.of(b"abcd"))
        assert out.commit() == (Digest.of(b"abcd"), 4)
    assert blobs.read(Digest.of(b"abcd"), 4) == b"abcd"
    with blobs.writer() as out:
        out.write(b"never")
    assert not blobs.has(Digest.of(b"never"))


def test_a_wrong_digest_is_refused(blobs: Blobs) -> None:
    lie = Digest.of(b"other")
    with blobs.writer(expected=lie) as out:
        out.write(b"data")
        with pytest.raises(DigestMismatch):
            out.commit()
    assert not blobs.has(lie)
    assert not blobs.has(Digest.of(b"data"))


@pytest.mark.parametrize("data", [b"short", b"much too long"])
def test_a_wrong_size_is_refused(blobs: Blobs, data: bytes) -> None:
    with pytest.raises(DigestMismatch), blobs.writer(size=8) as out:
        out.write(data)
        out.commit()
    assert list(blobs.iter()) == []


def test_sha512_is_checked_with_sha512(blobs: Blobs) -> None:
    expected = Digest("sha512", hashlib.sha512(b"x").hexdigest())
    with blobs.writer(expected=expected) as out:
        out.write(b"x")
        assert out.commit() == (expected, 1)
    assert blobs.read(expected, 1) == b"x"


def test_a_file_is_adopted_when_it_is_what_it_should_be(blobs: Blobs, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    with pytest.raises(DigestMismatch):
        blobs.adopt(path, Digest.of(b"y"))
    digest = Digest.of(path.read_bytes())
    blobs.adopt(path, digest)
    blobs.adopt(path, digest)
    path.write_bytes(b"changed")
    assert blobs.read(digest, 100_000) == b"x" * 100_000


def test_a_deleted_blob_is_gone_and_can_come_back(blobs: Blobs) -> None:
    digest = blobs.put(b"data")
    blobs.delete(digest)
    blobs.delete(digest)
    assert not blobs.has(digest)
    assert blobs.put(b"data") == digest
    assert blobs.read(digest, 4) == b"data"
