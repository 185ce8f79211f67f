"""Missing files, bases nobody serves, full disks, read-only roots: said clearly, and nothing is lost or left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Result, Runner

pytestmark = pytest.mark.root


def said(result: Result, *words: str) -> str:
    """The command failed politely and said all of ``words``."""
    assert result.status in {1, 2}, str(result)
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err, f"{word!r} is not in\n{result.err}"
    return result.err


def entries(root: Path) -> list[str]:
    """What a state directory holds, apart from the database's own files."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("db.sqlite")
    )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def context(tmp_path: Path, text: str) -> Path:
    ctx = tmp_path / "ctx"
    ctx.mkdir(exist_ok=True)
    (ctx / "Dockerfile").write_text(text)
    return ctx


def test_a_missing_dockerfile(pybuild: Runner, tmp_path: Path) -> None:
    (tmp_path / "ctx").mkdir()
    said(
        pybuild.run("build", tmp_path / "ctx", status=None),
        "failed to read dockerfile",
        "Dockerfile",
        "no such file",
    )


def test_an_unknown_stage_is_named_with_the_line(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    pybuild.load(busybox)
    before = entries(pybuild.root)
    ctx = context(tmp_path, "FROM busybox AS compile\nFROM scratch\nCOPY --from=compiler /x /x\n")
    said(pybuild.run("build", ctx, status=None), "Dockerfile:3", ">>> COPY --from=compiler /x /x", "compile")
    said(pybuild.run("build", "--target", "compil", ctx, status=None), "target stage", "did you mean compile")
    left = [name for name in entries(pybuild.root) if not name.startswith("history/")]
    assert left == before


def test_a_base_that_nobody_serves(pybuild: Runner, tmp_path: Path) -> None:
    ctx = context(tmp_path, "# a comment\nFROM 127.0.0.1:1/no/such:image\nRUN true\n")
    said(
        pybuild.run("build", ctx, status=None),
        *("Dockerfile:2", "127.0.0.1:1", "refused"),
        "needs no registry: pybuild load -i FILE, pybuild import FILE 127.0.0.1:1/no/such:image",
    )


def test_a_missing_source_names_the_path_and_the_line(pybuild: Runner, tmp_path: Path) -> None:
    ctx = context(tmp_path, "FROM scratch\nCOPY here \\\n  there.txt /x/\n")
    (ctx / "here").touch()
    said(pybuild.run("build", ctx, status=None), "Dockerfile:2", '"/there.txt": not found')


def test_a_full_disk_is_told_and_the_store_stays_sound(small: Path, busybox: Path, tmp_path: Path) -> None:
    runner = Runner(small / "root")
    runner.load(busybox)
    ctx = context(
        tmp_path,
        "FROM busybox\nRUN echo ok > /ok\nRUN dd if=/dev/zero of=/big bs=1M count=64\nRUN echo end > /end\n",
    )
    run_full = runner.run("build", "--network=none", "-t", "big", ctx, status=None)
    said(run_full, "Dockerfile:3")
    assert "No space left" in run_full.err + run_full.out
    (ctx / "blob").write_bytes(os.urandom(24 << 20))
    (ctx / "Dockerfile").write_text("FROM busybox\nCOPY blob /blob\n")
    said(runner.run("build", "-t", "big", ctx, status=None), "space")
    (ctx / "Dockerfile").write_text("FROM busybox\nRUN echo ok > /ok\nRUN cat /ok\n")
    runner.run("build", "--network=none", "-t", "fits", ctx)
    assert "fits" in runner.run("images").out
    assert "big" not in runner.run("images").out
    assert not list((small / "root" / "tmp").iterdir())
    runner.clean()


def test_a_read_only_root_is_told(tmp_path: Path, busybox: Path) -> None:
    runner = Runner(tmp_path / "ro" / "root")
    runner.load(busybox)
    before = entries(runner.root)
    place = str(tmp_path / "ro")
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        ctx = context(tmp_path, "FROM busybox\nRUN true\n")
        said(runner.run("build", ctx, status=None), "read-only")
        said(Runner(tmp_path / "ro" / "new").run("build", ctx, status=None), "read-only")
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert entries(runner.root) == before
    runner.clean()
