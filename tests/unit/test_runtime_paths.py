"""Paths stay beneath their root, with openat2 and with the walk that stands in for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import paths
from runtime.paths import Stub, ensure, open_beneath, open_in_root, open_plain, remove_stubs

CANARY = "outside"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    top = tmp_path / "root"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").write_text("inside")
    (tmp_path / CANARY).mkdir()
    (tmp_path / CANARY / "file").write_text("secret")
    links = {
        "abs": "/a/file",
        "rel": "a/file",
        "up": f"../../{CANARY}/file",
        "out": f"{tmp_path}/{CANARY}",
        "loop": "loop",
        "dir": "/a/b/..",
        "dangling": "/new/name",
        "root": "/",
    }
    for name, target in links.items():
        (top / name).symlink_to(target)
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(paths, "_missing", request.param == "walk")
    return str(request.param)


def content(fd: int) -> str:
    with open(fd) as file:
        return file.read()


@pytest.mark.parametrize(
    "path", ["a/file", "/a/file", "abs", "rel", "dir/file", "../../a/file", "root/abs", "a/./b/../file"]
)
def test_paths_mean_what_they_mean_inside(root: int, path: str) -> None:
    assert content(open_in_root(root, path, os.O_RDONLY)) == "inside"


@pytest.mark.parametrize(
    "path", ["up", "out/file", f"../{CANARY}/file", "loop", "missing", "a/file/x", "a/missing/x"]
)
def test_nothing_outside_is_reached(root: int, path: str) -> None:
    with pytest.raises(OSError, match=r".+"):
        os.close(open_in_root(root, path, os.O_RDONLY))


@pytest.mark.parametrize("path", ["up", "abs", "out/file", "../root/a/file", "root/a", "/a/file"])
def test_beneath_refuses_to_leave(root: int, path: str) -> None:
    with pytest.raises(OSError, match="cross-device"):
        os.close(open_beneath(root, path, os.O_RDONLY))
    assert content(open_beneath(root, "rel", os.O_RDONLY)) == "inside"


def test_plain_refuses_links(root: int) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        os.close(open_plain(root, "rel", os.O_RDONLY))
    with pytest.raises(OSError, match="symbolic links"):
        os.close(open_plain(root, "dir/file", os.O_RDONLY))
    assert content(open_plain(root, "a/file", os.O_RDONLY)) == "inside"


def test_magic_links_are_refused() -> None:
    fd = os.open("/", os.O_PATH)
    try:
        for path in ("/proc/self/fd/0", "/proc/self/root/etc", "/proc/self/cwd", "/proc/self/exe"):
            with pytest.raises(OSError, match="symbolic links"):
                os.close(open_in_root(fd, path, os.O_PATH))
        os.close(open_in_root(fd, "/proc/mounts", os.O_RDONLY))
    finally:
        os.close(fd)


def test_files_can_be_created(root: int, tmp_path: Path) -> None:
    os.close(open_in_root(root, "a/new", os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "root" / "a" / "new").exists()


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("x/y/z", "x/y/z"),
        ("dangling", "new/name"),
        ("dangling/more", "new/name/more"),
        ("../../q", "q"),
        ("dir/new", "a/new"),
    ],
)
@pytest.mark.parametrize("directory", [True, False])
def test_missing_paths_are_made_inside(
    root: int, tmp_path: Path, path: str, made: str, directory: bool
) -> None:
    stubs: list[Stub] = []
    os.close(ensure(root, path, directory, stubs))
    place = tmp_path / "root" / made
    assert place.is_dir() is directory
    before = sorted(os.listdir(tmp_path / "root"))
    remove_stubs(stubs)
    assert not place.exists()
    assert made.split("/")[0] in before
    assert os.listdir(tmp_path / CANARY) == ["file"]


def test_times_come_back(root: int, tmp_path: Path) -> None:
    top = tmp_path / "root"
    os.utime(top, ns=(1, 10**18))
    os.utime(top / "a", ns=(1, 2 * 10**18))
    stubs: list[Stub] = []
    for path in ("one", "two/three", "a/four", "a/five"):
        os.close(ensure(root, path, False, stubs))
    assert top.stat().st_mtime_ns != 10**18
    remove_stubs(stubs)
    assert top.stat().st_mtime_ns == 10**18
    assert (top / "a").stat().st_mtime_ns == 2 * 10**18


def test_times_of_others_are_kept(root: int, tmp_path: Path) -> None:
    stubs: list[Stub] = []
    os.close(ensure(root, "a/stub", False, stubs))
    os.utime(tmp_path / "root" / "a", ns=(5, 7 * 10**18))
    remove_stubs(stubs)
    assert (tmp_path / "root" / "a").stat().st_mtime_ns == 7 * 10**18


def test_stubs_that_are_used_are_kept(root: int, tmp_path: Path) -> None:
    top = tmp_path / "root"
    stubs: list[Stub] = []
    for path, directory in (("full/x", True), ("text", False), ("swapped", True), ("gone", False)):
        os.close(ensure(root, path, directory, stubs))
    (top / "full" / "other").touch()
    (top / "text").write_text("mine")
    (top / "swapped").rmdir()
    (top / "swapped").symlink_to(tmp_path / CANARY)
    (top / "gone").unlink()
    remove_stubs(stubs)
    assert sorted(os.listdir(top / "full")) == ["other"]
    assert (top / "text").read_text() == "mine"
    assert (top / "swapped").is_symlink()
    assert os.listdir(tmp_path / CANARY) == ["file"]


def test_no_descriptor_is_left_open(root: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/file", "loop", "missing/x", "abs", "a/file/x", "up"):
        try:
            os.close(open_in_root(root, path, os.O_PATH))
        except OSError:
            continue
    stubs: list[Stub] = []
    os.close(ensure(root, "p/q/r", True, stubs))
    remove_stubs(stubs)
    assert len(os.listdir("/proc/self/fd")) == before
