"""A full disk can be freed with the commands that are for it; looking at it works too."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache import reserve
from tests.support.cli import Runner

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def _fill(place: Path) -> None:
    with (place / "fill").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def test_prune_works_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    runner = Runner(disk / "root")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "big").write_bytes(bytes(range(256)) * 8192)
    runner.dockerfile(tmp_path / "c", "FROM scratch\nCOPY big /\n", "-t", "big")
    assert (disk / "root" / reserve.NAME).stat().st_blocks * 512 >= reserve.SIZE
    _fill(disk)
    assert "big" in runner.run("images").out
    runner.run("rmi", "big")
    runner.run("builder", "prune", "-af")
    assert reserve._free(str(disk)) > 2 << 20
    (disk / "fill").unlink()
    runner.run("prune", "-f")
    assert (disk / "root" / reserve.NAME).exists()
    assert "clean" in runner.run("debug", "fsck").out + runner.run("debug", "fsck").err


def test_the_space_is_given_up_only_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "VERSION").touch()
    with reserve.given_up(str(tmp_path)):
        pass
    assert (tmp_path / reserve.NAME).exists()
    with reserve.given_up(str(tmp_path)):
        assert (tmp_path / reserve.NAME).exists()
