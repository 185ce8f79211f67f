"""A disk that is full, and one that cannot be written: told as such, and nothing is broken afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.store import Store
from builder.errors import StoreError, StoreFull

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "disk"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_a_full_disk_is_reported_and_the_store_goes_on(disk: Path) -> None:
    with Store.open(disk / "root") as store:
        kept = store.blobs.put(b"kept")
        with pytest.raises(StoreFull) as caught, store.blobs.writer() as out:
            for _ in range(64):
                out.write(os.urandom(1 << 17))
        assert caught.value.hint
        assert os.listdir(disk / "root/tmp") == []
        filler = disk / "filler"
        with pytest.raises(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(StoreFull):
            for number in range(5000):
                store.put_doc("k", str(number), os.urandom(2000))
        filler.unlink()
        assert store.blobs.read(kept, 10) == b"kept"
        store.put_doc("k", "after", b"x")
    with Store.open(disk / "root") as store:
        assert store.doc("k", "after") == b"x"
        assert store.blobs.has(kept)


def test_a_read_only_disk_is_reported(disk: Path) -> None:
    Store.open(disk / "root").close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for path in (disk / "root", disk / "new"):
        with pytest.raises(StoreError) as caught, Store.open(path) as store:
            store.blobs.put(b"x")
        assert caught.value.code == "store-read-only"
        assert caught.value.hint
