"""Copies (FIL-06…14, 16), through definitions made by hand."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.errors import PathNotFound, PybuildError
from builder.llb.definition import Vertex
from builder.llb.ops import ChownOpt, Copy, FileAction, FileOp, MkDir, MkFile, Rm, Symlink, UserOpt
from builder.solver.ops.fileop import run_file_op
from tests.support.handmade import Bench
from tests.support.rows import row

pytestmark = pytest.mark.root
SECOND = 10**9
OWNER = ChownOpt(user=UserOpt(id=5), group=UserOpt(id=6))
CAPABILITY = b"\1\0\0\2" + bytes(16)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d/e").mkdir(parents=True)
    (root / "d/f").write_text("f")
    (root / "d/e/deep").write_text("deep")
    (root / "d/e/x.go").write_text("x")
    (root / "d/link").symlink_to("f")
    (root / "way").symlink_to("d")
    os.chown(root / "d/f", 1, 2)
    os.chmod(root / "d/f", 0o2750)
    os.chmod(root / "d/e", 0o1770)
    os.chown(root / "d/e", 3, 4)
    os.chmod(root / "d", 0o711)
    os.setxattr(root / "d/e", "user.k", b"v")
    for path in ("d/f", "d/e/deep", "d/e", "d"):
        os.utime(root / path, (100 + len(path),) * 2)
    return root


def copied(bench: Bench, tree: Path, base: Vertex | None = None, **fields: Any) -> Vertex:
    return bench.file(base, (Copy(**{"src": "/d", "dest": "/to", **fields}), bench.put(tree)))


def at(view: View, path: str) -> tuple[str, int, int, float]:
    st = view.lstat(path)
    assert st is not None, path
    return oct(stat.S_IMODE(st.st_mode)), st.st_uid, st.st_gid, st.st_mtime


@row("FIL-06")
def test_everything_is_kept_and_parents_are_plain(bench: Bench, tree: Path) -> None:
    with bench.view(copied(bench, tree, dest="/a/b/to", create_dest_path=True)) as view:
        assert at(view, "a")[:3] == at(view, "a/b")[:3] == ("0o755", 0, 0)
        assert at(view, "a/b/to") == ("0o711", 0, 0, 101)
        assert at(view, "a/b/to/f") == ("0o2750", 1, 2, 103)
        assert at(view, "a/b/to/e") == ("0o1770", 3, 4, 103)
        assert view.xattrs("a/b/to/e") == {"user.k": b"v"}
    given = copied(
        bench, tree, dest="/a/b/to", create_dest_path=True, mode=0o700, owner=OWNER, timestamp_ns=9 * SECOND
    )
    with bench.view(given) as view:
        assert at(view, "a") == at(view, "a/b") == ("0o700", 5, 6, 9)
    with pytest.raises(PathNotFound, match=r'^"/a/b": not found$'):
        bench.solve(copied(bench, tree, dest="/a/b/to"))
    made = bench.file(
        None,
        (Copy(src="/d", dest="/x", create_dest_path=True), bench.put(tree)),
        MkFile(path="/no/f", data=b""),
    )
    with pytest.raises(PathNotFound, match=r'^"/no": not found$'):
        bench.solve(made)
    with pytest.raises(PathNotFound, match=r'^failed to compute cache key: .*: "/none": not found$'):
        bench.solve(copied(bench, tree, src="/none"))


@row("FIL-07")
def test_where_things_go(bench: Bench, tree: Path) -> None:
    base = bench.file(None, MkDir(path="/to"))
    assert "to/d/f" in bench.look(copied(bench, tree, base))
    assert "to/f" in bench.look(copied(bench, tree))
    assert "to/f" in bench.look(copied(bench, tree, base, dir_contents=True))
    assert "to/f" in bench.look(copied(bench, tree, base, src="/d/f"))
    assert sorted(bench.look(copied(bench, tree, src="/d/f"))) == ["to"]


@row("FIL-08")
def test_the_content_of_a_directory(bench: Bench, tree: Path) -> None:
    os.setxattr(tree / "d", "user.top", b"v")
    with bench.view(copied(bench, tree, dir_contents=True, create_dest_path=True)) as view:
        assert at(view, "to") == ("0o755", 0, 0, 101), "its own mode and owner do not count, its time does"
        assert view.xattrs("to") == {}
    base = bench.file(None, MkDir(path="/to", mode=0o700, owner=OWNER))
    with bench.view(copied(bench, tree, base, dir_contents=True)) as view:
        assert at(view, "to") == ("0o700", 5, 6, 101)


@row("FIL-09")
def test_nested_directories_end_like_the_source(bench: Bench, tree: Path) -> None:
    base = bench.file(
        None,
        MkDir(path="/to"),
        MkDir(path="/to/e", mode=0o700, owner=OWNER),
        MkFile(path="/to/e/mine", data=b""),
    )
    with bench.view(copied(bench, tree, base, dir_contents=True)) as view:
        assert at(view, "to/e") == ("0o1770", 3, 4, 103)
        assert view.xattrs("to/e") == {"user.k": b"v"}
        assert view.lstat("to/e/mine") is not None
    with bench.view(
        copied(bench, tree, base, dir_contents=True, mode=0o500, owner=OWNER, timestamp_ns=SECOND)
    ) as view:
        assert at(view, "to/e") == at(view, "to/f") == ("0o500", 5, 6, 1)


@row("FIL-09")
def test_files_are_replaced_and_types_must_fit(bench: Bench, tree: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "to").mkdir(parents=True)
    (old / "to/f").write_text("old")
    os.link(old / "to/f", old / "other-name")
    (old / "to/link").symlink_to("/other-name")
    replaced = copied(bench, tree, bench.put(old), dir_contents=True)
    assert bench.read(replaced, "to/f") == "f"
    assert bench.read(replaced, "other-name") == "old"
    with bench.view(replaced) as view:
        assert view.readlink("to/link") == "f"
    dir_in_the_way = bench.file(
        None, MkDir(path="/to"), MkDir(path="/to/f"), MkFile(path="/to/f/x", data=b"")
    )
    file_in_the_way = bench.file(None, MkDir(path="/to"), MkFile(path="/to/e", data=b""))
    with pytest.raises(PybuildError, match="cannot replace to directory /to/f with file"):
        bench.solve(copied(bench, tree, dir_in_the_way, dir_contents=True))
    with pytest.raises(PybuildError, match="cannot copy to non-directory: /to/e"):
        bench.solve(copied(bench, tree, file_in_the_way, dir_contents=True))
    for base in (dir_in_the_way, file_in_the_way):
        found = bench.look(copied(bench, tree, base, dir_contents=True, always_replace=True))
        assert {"to/e/deep", "to/f"} <= set(found) and "to/f/x" not in found


@row("FIL-09", "LAY-01")
def test_directories_on_the_way_stay_as_they_were(bench: Bench, tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "deep"
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/old").write_text("old")
    os.chmod(root / "a/b", 0o2755)
    for number, path in enumerate(("a/b/c", "a/b", "a")):
        os.utime(root / path, (number + 1,) * 2)
    base = bench.put(root)
    for changed in (
        copied(bench, tree, base, src="/d/f", dest="/a/b/c/"),
        bench.file(base, MkFile(path="/a/b/c/new", data=b"")),
        bench.file(base, Rm(path="/a/b/c/old")),
    ):
        with bench.view(changed) as view:
            assert at(view, "a") == ("0o755", 0, 0, 3)
            assert at(view, "a/b") == ("0o2755", 0, 0, 2)
            assert at(view, "a/b/c")[3] > 1_000, "only here something was made"


@row("FIL-10")
def test_links_are_made_again(bench: Bench, tree: Path) -> None:
    (tree / "d/hanging").symlink_to("/no/where")
    os.utime(tree / "d/hanging", (50, 50), follow_symlinks=False)
    with bench.view(copied(bench, tree, owner=OWNER, mode=0o600)) as view:
        assert view.readlink("to/hanging") == "/no/where"
        assert at(view, "to/hanging") == ("0o777", 5, 6, 50)
        assert at(view, "to/f")[:3] == ("0o600", 5, 6)


@row("FIL-11")
@pytest.mark.parametrize(
    ("fields", "file", "program", "folder"),
    [
        ({"mode": 0o6751}, "0o6751", "0o6751", "0o6751"),
        ({"mode": 0o1000}, "0o1000", "0o1000", "0o1000"),
        ({"mode_str": "a+X"}, "0o640", "0o755", "0o711"),
        ({"mode_str": "u=rwx,go="}, "0o700", "0o700", "0o700"),
        ({"mode_str": "g+w,o-x"}, "0o660", "0o764", "0o720"),
        ({"mode_str": "u+s"}, "0o4640", "0o4745", "0o4700"),
    ],
)
def test_modes(
    bench: Bench, tmp_path: Path, fields: dict[str, Any], file: str, program: str, folder: str
) -> None:
    root = tmp_path / "modes"
    (root / "d/folder").mkdir(parents=True)
    for name, mode in (("file", 0o640), ("program", 0o745), ("folder", 0o700)):
        if name != "folder":
            (root / "d" / name).touch()
        (root / "d" / name).chmod(mode)
    old = os.umask(0o077)
    try:
        with bench.view(copied(bench, root, **fields)) as view:
            assert [at(view, f"to/{name}")[0] for name in ("file", "program", "folder")] == [
                file,
                program,
                folder,
            ]
    finally:
        os.umask(old)


@row("FIL-12")
def test_names_of_one_file_stay_names_of_one_file(bench: Bench, tree: Path) -> None:
    os.link(tree / "d/f", tree / "d/e/far")
    made = copied(bench, tree)
    with bench.view(made) as view:
        one, two = view.lstat("to/f"), view.lstat("to/e/far")
        assert one is not None and two is not None
        assert one.st_ino == two.st_ino and one.st_nlink == 2
    source = bench.put(tree)
    twice = bench.file(
        None, (Copy(src="/d/f", dest="/one"), source), (Copy(src="/d/e/far", dest="/two"), source)
    )
    with bench.view(twice) as view:
        one, two = view.lstat("one"), view.lstat("two")
        assert one is not None and two is not None and one.st_ino != two.st_ino


@row("FIL-13")
def test_attributes_that_cannot_be_set_are_left_out(tree: Path, tmp_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    place = tmp_path / "no-attributes"
    place.mkdir()
    assert libc.mount(b"ramfs", os.fsencode(place), b"ramfs", 0, None) == 0
    try:
        with pytest.raises(OSError):
            os.setxattr(place, "user.k", b"v")
        action = FileAction(action=Copy(src="/d", dest="/to"), secondary=0, output=0)
        with View((tree,)) as source, Writer(place) as writer:
            run_file_op(FileOp(actions=(action,)), (source,), (writer,))
        assert (place / "to/e/deep").read_text() == "deep"
        assert os.listxattr(place / "to/e") == []
    finally:
        libc.umount2(os.fsencode(place), 2)


@row("FIL-14")
def test_patterns_are_tested_below_each_source(bench: Bench, tree: Path) -> None:
    def left(**fields: Any) -> list[str]:
        return sorted(bench.look(copied(bench, tree, **fields)))

    assert left(include_patterns=("e/*.go",)) == ["to", "to/e", "to/e/x.go"]
    assert left(include_patterns=("nothing/here",)) == ["to"], "directories come only with what is in them"
    assert left(exclude_patterns=("e",)) == ["to", "to/f", "to/link"]
    assert left(exclude_patterns=("e", "!e/deep")) == ["to", "to/e", "to/e/deep", "to/f", "to/link"]
    assert left(src="/way", follow_symlink=True, exclude_patterns=("**/deep", "link")) == [
        "to",
        "to/e",
        "to/e/x.go",
        "to/f",
    ]
    with bench.view(copied(bench, tree, include_patterns=("e/*.go",))) as view:
        assert at(view, "to/e") == ("0o1770", 3, 4, 103), "with the metadata of the source"


@row("FIL-16", "BET-04")
def test_holes_stay_holes(bench: Bench, tree: Path) -> None:
    with open(tree / "d/sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
        file.seek(63 << 20)
        file.write(b"end")
    os.setxattr(tree / "d/sparse", "user.k", b"v")
    for made in (copied(bench, tree), bench.merge(bench.file(None, MkDir(path="/x")), copied(bench, tree))):
        with bench.view(made) as view:
            st = view.lstat("to/sparse")
            assert st is not None and st.st_size == 64 << 20 and st.st_blocks * 512 < 1 << 20
            with open(view.open("to/sparse"), "rb") as file:
                file.seek(32 << 20)
                assert file.read(7) == b"middle\0"
            assert view.xattrs("to/sparse") == {"user.k": b"v"}


@row("FIL-06", "FIL-12", "BET-04")
@pytest.mark.parametrize("way", ["copy", "merge", "diff", "copy of a merge"])
def test_special_files_by_every_way(bench: Bench, tmp_path: Path, way: str) -> None:
    root = tmp_path / "special"
    (root / "d").mkdir(parents=True)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "d/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 1))
    (root / "program").write_text("p")
    os.link(root / "program", root / "d/same")
    os.chown(root / "program", 7, 8)
    os.chmod(root / "program", 0o6755)
    os.setxattr(root / "program", "security.capability", CAPABILITY)
    os.setxattr(root / "program", "user.k", b"v")
    os.chmod(root / "d", 0o1777)
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(root)
        made.bind("socket")
        os.chdir(here)
    given, base = (
        bench.put(root),
        bench.file(None, MkDir(path="/other"), Symlink(old_path="x", new_path="/link")),
    )
    merged = bench.merge(base, given)
    action = Copy(src="/", dest="/", dir_contents=True)
    head = {
        "copy": bench.file(base, (action, given)),
        "merge": merged,
        "diff": bench.merge(base, bench.diff(base, merged)),
        "copy of a merge": bench.file(None, (action, merged)),
    }[way]
    wanted, found = bench.look(given), bench.look(head)
    found = {path: fields for path, fields in found.items() if path not in ("other", "link")}
    plain = found.pop("socket")
    wanted.pop("socket")
    assert found == wanted
    assert stat.S_IFMT(int(plain[0], 8)) == (stat.S_IFREG if way.startswith("copy") else stat.S_IFSOCK)
    assert bench.layers(head), "and all of it can be packed"
