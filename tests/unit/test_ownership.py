"""Owners and device nodes that cannot be set are recorded, and read back everywhere (EXE-31)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache import ownership
from builder.cache.copytree import merge_trees
from builder.cache.differ import changes
from builder.cache.layer import pack
from builder.cache.tree import View
from builder.cache.treewriter import Writer

ME = (os.getuid(), os.getgid())


@pytest.fixture(autouse=True)
def one_id() -> Iterator[None]:
    """As in a namespace with a single id, whose files all look like ours."""
    ownership.MODE.owners = ownership.MODE.nodes = True
    yield
    ownership.MODE.owners = ownership.MODE.nodes = False


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A snapshot's directory."""
    path = tmp_path / "snapshots" / "1" / "fs"
    path.mkdir(parents=True)
    return path


def owner(view: View, path: str) -> tuple[int, int]:
    st = view.lstat(path)
    assert st is not None
    return st.st_uid, st.st_gid


def fill(tree: Path) -> None:
    with Writer(tree) as writer:
        writer.mkdir("dir", 0o755, 5, 6)
        writer.write_file("dir/file", b"x", 0o640, 7, 8, mtime_ns=10**18)
        writer.symlink("dir/link", "file", 9, 10, mtime_ns=10**18)
        writer.write_file("mine", b"x", 0o644, *ME)


def test_owners_are_read_back_and_files_stay_ours(tree: Path) -> None:
    fill(tree)
    with View((tree,)) as view:
        assert [owner(view, path) for path in ("dir", "dir/file", "dir/link", "mine")] == [
            (5, 6),
            (7, 8),
            (9, 10),
            ME,
        ]
        assert dict(view.scandir("dir"))["link"].st_uid == 9
        assert view.xattrs("dir/file") == {}
    assert ((tree / "dir" / "file").stat().st_uid, (tree / "dir" / "file").stat().st_gid) == ME


def test_a_change_of_owner_replaces_the_record(tree: Path) -> None:
    fill(tree)
    with Writer(tree) as writer:
        writer.set_meta("dir/file", uid=1)
        writer.set_meta("dir/link", uid=ME[0], gid=ME[1])
        writer.set_meta("dir", uid=ME[0], gid=ME[1])
    with View((tree,)) as view:
        assert [owner(view, path) for path in ("dir", "dir/file", "dir/link")] == [ME, (1, 8), ME]


def test_copying_up_keeps_owners(tree: Path, tmp_path: Path) -> None:
    fill(tree)
    upper = tmp_path / "snapshots" / "2" / "fs"
    upper.mkdir(parents=True)
    with Writer(upper, (tree,)) as writer:
        writer.set_meta("dir/file", mode=0o600)
        writer.set_meta("dir/link", mtime_ns=5)
    found = {change.path: change.stat for change in changes(upper, (tree,))}
    assert {path: st and st.st_uid for path, st in found.items()} == {"dir/file": 7, "dir/link": 9}


def test_a_link_made_anew_has_no_record(tree: Path) -> None:
    fill(tree)
    (tree / "dir" / "link").unlink()
    (tree / "dir" / "link").symlink_to("file")
    with View((tree,)) as view:
        assert owner(view, "dir/link") == ME


def test_devices_are_packed_as_what_they_stand_for(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "not in a user namespace")

    monkeypatch.setattr(os, "mknod", refuse)
    with Writer(tree) as writer:
        writer.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), 3, 4, mtime_ns=10**18)
        writer.set_meta("null", mtime_ns=2 * 10**18)
    out: list[bytes] = []
    with View((tree,)) as view:
        st = view.lstat("null")
        assert st is not None
        assert (stat.S_ISCHR(st.st_mode), st.st_rdev, st.st_uid) == (True, os.makedev(1, 3), 3)
        pack(changes(tree), view, out.append)
    assert out[0][156:157] == b"3"


def test_a_merged_copy_has_the_same_owners(tree: Path, tmp_path: Path) -> None:
    fill(tree)
    copy = tmp_path / "snapshots" / "3" / "fs"
    copy.mkdir(parents=True)
    merge_trees([str(tree)], str(copy))
    with View((copy,)) as view:
        assert [owner(view, path) for path in ("dir", "dir/file", "dir/link")] == [(5, 6), (7, 8), (9, 10)]


def test_nothing_is_written_beside_other_directories(tmp_path: Path) -> None:
    place = tmp_path / "home" / "fs"
    place.mkdir(parents=True)
    with Writer(place) as writer:
        writer.symlink("link", "x", 5, 6)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["fs"]
