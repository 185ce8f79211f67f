"""File operations: BuildKit's copy rules, mkdir, mkfile, rm, symlink, owners and modes (FIL-01…18, CPY-05…24)."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.errors import GraphError, PathNotFound, PybuildError, SolveError
from builder.llb.ops import Action, ChownOpt, Copy, FileAction, FileOp, MkDir, MkFile, Rm, Symlink, UserOpt
from builder.solver.ops.chmod import symbolic
from builder.solver.ops.fileop import run_file_op

ME = (os.getuid(), os.getgid())
KEEP = ChownOpt(user=UserOpt(id=ME[0]), group=UserOpt(id=ME[1]))
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other owners")]


def tree(root: Path, *names: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"content of {name}")
    return root


def names(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root)) + ("/" if path.is_dir() and not path.is_symlink() else "")
        for path in root.rglob("*")
    )


def run(source: Path | None, dest: Path, *actions: Action) -> None:
    op = FileOp(
        actions=tuple(
            FileAction(
                action=action,
                input=0 if i == 0 else 1 + i,
                secondary=1,
                output=0 if i == len(actions) - 1 else -1,
            )
            for i, action in enumerate(actions)
        )
    )
    dest.mkdir(exist_ok=True)
    run_file_op(op, (View([dest]), View([source]) if source else None), lambda _: Writer(dest))


def copy(source: Path, dest: Path, src: str, to: str, **options: Any) -> list[str]:
    settings: dict[str, Any] = {
        "dir_contents": True,
        "create_dest_path": True,
        "follow_symlink": True,
        "allow_wildcard": True,
        "allow_empty_wildcard": True,
    }
    run(source, dest, Copy(src=src, dest=to, **(settings | options)))
    return names(dest)


def test_target_names_like_the_reference(tmp_path: Path) -> None:
    """FIL-07, FIL-08, CPY-06, CPY-08."""
    src = tree(tmp_path / "src", "d/a", "d/sub/b", "f")

    def into(number: int, src_path: str, to: str, *there: str, **options: Any) -> list[str]:
        return copy(src, tree(tmp_path / f"dst{number}", *there), src_path, to, **options)

    assert into(1, "/f", "/x") == ["x"]
    assert into(2, "/f", "/x/") == ["x/", "x/f"]
    assert into(3, "/f", "/x", "x/") == ["x/", "x/f"]
    assert into(4, "/f", "/p/q/x") == ["p/", "p/q/", "p/q/x"]
    assert into(5, "/d", "/x") == ["x/", "x/a", "x/sub/", "x/sub/b"]
    assert into(6, "/d", "/x", "x/old") == ["x/", "x/a", "x/old", "x/sub/", "x/sub/b"]
    assert into(7, "/d/", "/") == ["a", "sub/", "sub/b"]
    assert into(8, "/d", "/x", "x/", dir_contents=False) == ["x/", "x/d/", "x/d/a", "x/d/sub/", "x/d/sub/b"]
    assert into(9, "/d", "/x", dir_contents=False) == ["x/", "x/a", "x/sub/", "x/sub/b"]
    assert into(10, "/", "/") == ["d/", "d/a", "d/sub/", "d/sub/b", "f"]
    assert into(11, "../../f", "../../up") == ["up"]
    assert into(12, "/f", "/x/.") == ["x/", "x/f"]
    assert into(13, "/f", "/") == ["f"]


def test_type_clashes_say_what_and_where(tmp_path: Path) -> None:
    """CPY-08, FIL-09, FIL-17."""
    src = tree(tmp_path / "src", "d/x/inner", "e/x", "f")
    for number, (what, to, there, message) in enumerate(
        [
            ("/d", "/t", "t", "cannot copy to non-directory: /t"),
            ("/d", "/t", "t/x", "cannot copy to non-directory: /t/x"),
            ("/e", "/t", "t/x/", "cannot replace to directory /t/x with file"),
            ("/f", "/t/", "t", "cannot copy to non-directory: /t"),
            ("/f", "/t/u/v", "t", "cannot copy to non-directory: /t"),
        ]
    ):
        dest = tree(tmp_path / f"dst{number}", there)
        with pytest.raises(PybuildError) as caught:
            copy(src, dest, what, to)
        assert caught.value.message == message or "not a directory" in caught.value.message
        assert str(tmp_path) not in caught.value.message
    assert copy(src, tree(tmp_path / "r1", "t/x"), "/d", "/t", always_replace=True) == [
        "t/",
        "t/x/",
        "t/x/inner",
    ]
    assert copy(src, tree(tmp_path / "r2", "t/x/"), "/e", "/t", always_replace=True) == ["t/", "t/x"]


def test_missing_sources(tmp_path: Path) -> None:
    """CPY-04, CPY-10, CHK-08."""
    src = tree(tmp_path / "src", "a.txt")
    with pytest.raises(PathNotFound) as caught:
        copy(src, tmp_path / "dst", "/missing", "/x")
    assert caught.value.message == '"/missing": not found'
    assert copy(src, tmp_path / "dst", "/*.none", "/x/") == []
    with pytest.raises(PathNotFound):
        copy(src, tmp_path / "dst", "/*.none", "/x", allow_empty_wildcard=False)
    with pytest.raises(PathNotFound):
        copy(src, tmp_path / "dst", "/*.txt", "/x", allow_wildcard=False)
    with pytest.raises(PathNotFound):
        copy(src, tmp_path / "dst", "/a.txt", "/no/parent", create_dest_path=False)
    with pytest.raises(PathNotFound):
        run(None, tmp_path / "dst", Copy(src="/a", dest="/b"))


def test_wildcards_expand_in_lexical_order(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", "b1/f", "a1/f", "a1/g", "x.txt", "y.txt", "lit[1].txt", "sp*r")
    (src / "l1").symlink_to("a1")
    assert copy(src, tmp_path / "d1", "/*1", "/o") == ["o/", "o/f", "o/g"]
    assert (tmp_path / "d1/o/f").read_text() == "content of a1/f", "l1, the last one, leads to a1"
    assert copy(src, tmp_path / "d2", "/[xy].txt", "/o/") == ["o/", "o/x.txt", "o/y.txt"]
    assert copy(src, tmp_path / "d3", "/?1/f", "/o/") == ["o/", "o/f"]
    assert (tmp_path / "d3/o/f").read_text() == "content of b1/f", "links are not walked through"
    assert copy(src, tmp_path / "d4", "/lit[[]1].txt", "/o/") == ["o/", "o/lit[1].txt"]
    assert copy(src, tmp_path / "d5", "/sp\\*r", "/o/") == ["o/", "o/sp*r"]
    assert copy(src, tmp_path / "d6", "/[^x].txt", "/o/") == ["o/", "o/y.txt"]
    assert copy(src, tmp_path / "d7", "/*/g", "/o/") == ["o/", "o/g"]


def test_source_links_are_followed_inside_the_source(tmp_path: Path) -> None:
    """CPY-11: on the way and at the end, never outside; links inside a copied directory stay links."""
    (tmp_path / "secret").write_text("outside")
    src = tree(tmp_path / "src", "real/f")
    (src / "link").symlink_to("/real")
    (src / "file").symlink_to("link/f")
    (src / "real/inner").symlink_to("../../../../secret")
    (src / "out").symlink_to("../secret")
    assert copy(src, tmp_path / "d1", "/link/f", "/x") == ["x"]
    assert copy(src, tmp_path / "d2", "/file", "/y/") == ["y/", "y/file"]
    assert not (tmp_path / "d2/y/file").is_symlink()
    copy(src, tmp_path / "d3", "/link", "/z")
    assert os.readlink(tmp_path / "d3/z/inner") == "../../../../secret"
    with pytest.raises(PathNotFound):
        copy(src, tmp_path / "d4", "/out", "/z")
    copy(src, tmp_path / "d5", "/link", "/z", follow_symlink=False)
    assert os.readlink(tmp_path / "d5/z") == "/real"


def test_destination_links_are_followed_inside_the_destination(tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", "canary")
    src = tree(tmp_path / "src", "f", "d/g")
    dest = tree(tmp_path / "dst", "real/")
    (dest / "abs").symlink_to("/real")
    (dest / "out").symlink_to(outside)
    (dest / "up").symlink_to("../outside")
    copy(src, dest, "/f", "/abs/x")
    copy(src, dest, "/d", "/abs")
    copy(src, dest, "/f", "/out/f")
    copy(src, dest, "/f", "/up/canary")
    assert names(dest / "real") == ["g", "x"]
    assert names(outside) == ["canary"]
    assert (outside / "canary").read_text() == "content of canary"
    assert (dest / str(outside).lstrip("/") / "f").exists()
    assert (dest / "outside/canary").exists()


def test_metadata_of_directories(tmp_path: Path) -> None:
    """CPY-07: the top directory's mode is not used, its time is; below, everything is the source's."""
    src = tree(tmp_path / "src", "d/sub/f", "d/sub2/")
    os.chmod(src / "d", 0o700)
    os.chmod(src / "d/sub", 0o2750)
    os.utime(src / "d/sub", (5, 5))
    os.utime(src / "d", (6, 6))
    dest = tree(tmp_path / "dst", "old/sub/")
    os.chmod(dest / "old", 0o711)
    os.chmod(dest / "old/sub", 0o777)
    copy(src, dest, "/d", "/new")
    copy(src, dest, "/d", "/old")
    copy(src, dest, "/d", "/nested", dir_contents=False)
    for name, mode in (("new", 0o755), ("old", 0o711), ("nested", 0o700)):
        assert stat.S_IMODE((dest / name).stat().st_mode) == mode, name
        assert (dest / name).stat().st_mtime == 6
        assert stat.S_IMODE((dest / name / "sub").stat().st_mode) == 0o2750
        assert (dest / name / "sub").stat().st_mtime == 5


def test_files_are_replaced_not_written_through(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", "f")
    dest = tree(tmp_path / "dst", "f", "target")
    os.link(dest / "f", dest / "twin")
    copy(src, dest, "/f", "/f")
    assert (dest / "twin").stat().st_nlink == 1
    inner = tree(tmp_path / "dst2", "d/", "target")
    (inner / "d/f").symlink_to("/target")
    copy(src, inner, "/f", "/d/")
    assert not (inner / "d/f").is_symlink()
    assert (inner / "target").read_text() == "content of target"


def test_owners_modes_times_links_attributes(tmp_path: Path) -> None:
    """FIL-10…FIL-13, CPY-12…CPY-14, CPY-24."""
    src = tmp_path / "src"
    src.mkdir()
    writer = Writer(src)
    writer.mkdir("d", 0o755, 1, 2)
    writer.write_file("d/f", b"1", 0o4755, 10, 20, mtime_ns=1_234_567_891, xattrs={"user.k": b"v"})
    writer.link("d/g", "d/f")
    writer.symlink("d/l", "f", 30, 40, mtime_ns=10**9)
    writer.mknod("d/sock", stat.S_IFSOCK | 0o600, 0, 1, 1)
    writer.mknod("d/null", stat.S_IFCHR | 0o666, os.makedev(1, 3), 0, 0)
    writer.mknod("d/pipe", stat.S_IFIFO | 0o640, 0, 0, 0)
    dest = tmp_path / "dst"
    copy(src, dest, "/d", "/keep")
    st = (dest / "keep/f").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns) == (0o4755, 10, 20, 1_234_567_891)
    assert (dest / "keep/g").stat().st_ino == st.st_ino
    assert os.getxattr(dest / "keep/f", "user.k") == b"v"
    assert (dest / "keep/l").lstat().st_uid == 30
    assert stat.S_ISREG((dest / "keep/sock").lstat().st_mode)
    assert (dest / "keep/null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((dest / "keep/pipe").lstat().st_mode)
    assert (dest / "keep").stat().st_uid == 0, "created parents are root's"

    owner = ChownOpt(user=UserOpt(id=7), group=UserOpt(id=8))
    copy(src, dest, "/d", "/p/q", owner=owner, mode=0o2640, timestamp_ns=3 * 10**9)
    for name in ("p", "p/q", "p/q/f", "p/q/l"):
        st = (dest / name).lstat()
        assert (st.st_uid, st.st_gid) == (7, 8), name
        assert st.st_mtime == 3, name
        if name != "p/q/l":
            assert stat.S_IMODE(st.st_mode) == 0o2640, name
    copy(src, dest, "/d", "/sym", mode_str="go-rwx,u+X")
    assert stat.S_IMODE((dest / "sym/f").stat().st_mode) == 0o4700
    assert stat.S_IMODE((dest / "sym").stat().st_mode) == 0o755


def test_owners_by_name_come_from_the_destination(tmp_path: Path) -> None:
    """CPY-12: primary groups, groups by name, clear errors for unknown names."""
    src = tree(tmp_path / "src", "f")
    dest = tree(tmp_path / "dst", "etc/")
    (dest / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\napp:x:1001:2002::/:/bin/sh\nbad:x:-1:0::/:\n")
    (dest / "etc/real-group").write_text("root:x:0:\nstaff:x:50:app\n")
    (dest / "etc/group").symlink_to("/etc/real-group")
    for number, (user, group, wanted) in enumerate(
        [
            (UserOpt(name="app", input=0), None, (1001, 2002)),
            (UserOpt(name="app", input=0), UserOpt(name="staff", input=0), (1001, 50)),
            (UserOpt(id=5), None, (5, 5)),
            (UserOpt(id=5), UserOpt(name="staff", input=0), (5, 50)),
            (None, UserOpt(id=9), (0, 9)),
        ]
    ):
        copy(src, dest, "/f", f"/x{number}", owner=ChownOpt(user=user, group=group))
        st = (dest / f"x{number}").stat()
        assert (st.st_uid, st.st_gid) == wanted
    for name in ("nobody", "bad", ""):
        with pytest.raises(SolveError) as caught:
            user = UserOpt(name=name, input=0) if name else UserOpt(id=2**32 - 1)
            copy(src, dest, "/f", "/y", owner=ChownOpt(user=user))
        assert caught.value.code in {"unknown-owner", "bad-owner"}
    os.unlink(dest / "etc/passwd")
    os.mkfifo(dest / "etc/passwd")
    with pytest.raises(SolveError):
        copy(src, dest, "/f", "/y", owner=ChownOpt(user=UserOpt(name="root", input=0)))


def test_excludes_and_includes(tmp_path: Path) -> None:
    """CPY-17, CPY-18, FIL-14."""
    src = tree(tmp_path / "src", "a.txt", "b.md", "d/c.txt", "d/e/f.txt", "d/e/g.md", "empty/", "z/deep/y.md")
    assert copy(src, tmp_path / "d1", "/", "/", exclude_patterns=("*.txt",)) == [
        "b.md", "d/", "d/c.txt", "d/e/", "d/e/f.txt", "d/e/g.md", "empty/", "z/", "z/deep/", "z/deep/y.md",
    ]  # fmt: skip
    assert copy(src, tmp_path / "d2", "/", "/", exclude_patterns=("**/*.txt", "empty")) == [
        "b.md", "d/", "d/e/", "d/e/g.md", "z/", "z/deep/", "z/deep/y.md",
    ]  # fmt: skip
    assert copy(src, tmp_path / "d3", "/*", "/o/", exclude_patterns=("*.md",)) == [
        "o/", "o/a.txt", "o/c.txt", "o/deep/", "o/deep/y.md", "o/e/", "o/e/f.txt", "o/e/g.md",
    ]  # fmt: skip
    assert copy(src, tmp_path / "d4", "/", "/", exclude_patterns=("d", "!d/e/g.md", "z")) == [
        "a.txt", "b.md", "d/", "d/e/", "d/e/g.md", "empty/",
    ]  # fmt: skip
    assert copy(src, tmp_path / "d5", "/", "/p", include_patterns=("d/e/f.txt",)) == [
        "p/",
        "p/d/",
        "p/d/e/",
        "p/d/e/f.txt",
    ]
    assert copy(src, tmp_path / "d6", "/", "/", include_patterns=("**/*.md",)) == [
        "b.md", "d/", "d/e/", "d/e/g.md", "z/", "z/deep/", "z/deep/y.md",
    ]  # fmt: skip
    assert copy(src, tmp_path / "d7", "/d", "/", include_patterns=("e",)) == ["e/", "e/f.txt", "e/g.md"]
    assert copy(src, tmp_path / "d8", "/", "/", include_patterns=("none*",)) == []
    with pytest.raises(PathNotFound) as caught:
        copy(src, tmp_path / "d9", "/", "/", include_patterns=("no/where",), required_paths=("no/where",))
    assert caught.value.message == '"/no/where": not found'


def test_delayed_directories_get_the_source_metadata(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", "d/e/f")
    os.chmod(src / "d", 0o750)
    os.utime(src / "d", (9, 9))
    copy(src, tmp_path / "dst", "/", "/", include_patterns=("d/e/f",))
    st = (tmp_path / "dst/d").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_mtime) == (0o750, 9)


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("in/x", b"1"), (".wh.kept", b"2"), ("lnk", None)):
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mode = *ME, 0o640
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


def test_archives_are_unpacked_by_content(tmp_path: Path) -> None:
    """CPY-19, FIL-15."""
    src = tree(tmp_path / "src", "plain.tar")
    (src / "a.bin").write_bytes(gzip.compress(archive()))
    (src / "link").symlink_to("a.bin")
    unpacked = ["to/", "to/.wh.kept", "to/in/", "to/in/x", "to/lnk"]
    assert copy(src, tmp_path / "d1", "/a.bin", "/to", attempt_unpack=True, owner=KEEP) == unpacked
    assert copy(src, tmp_path / "d2", "/link", "/to/", attempt_unpack=True, owner=KEEP) == unpacked
    assert copy(src, tmp_path / "d3", "/a.bin", "/to", owner=KEEP) == ["to"]
    assert copy(src, tmp_path / "d4", "/plain.tar", "/to/", attempt_unpack=True) == ["to/", "to/plain.tar"]
    assert copy(src, tmp_path / "d5", "/*.bin", "/to", attempt_unpack=True, owner=KEEP) == unpacked


def test_mkdir(tmp_path: Path) -> None:
    """FIL-02."""
    dest = tree(tmp_path / "dst", "old/", "f")
    os.chmod(dest / "old", 0o700)
    run(None, dest, MkDir(path="/a/b", mode=0o2775, make_parents=True, owner=KEEP, timestamp_ns=4 * 10**9))
    for name in ("a", "a/b"):
        assert stat.S_IMODE((dest / name).stat().st_mode) == 0o775
        assert (dest / name).stat().st_mtime == 4
    run(None, dest, MkDir(path="/old", make_parents=True, owner=KEEP), MkDir(path="/old", owner=KEEP))
    assert stat.S_IMODE((dest / "old").stat().st_mode) == 0o700
    for action in (
        MkDir(path="/x/y", owner=KEEP),
        MkDir(path="/f/y", make_parents=True),
        MkDir(path="/f", make_parents=True),
    ):
        with pytest.raises(PybuildError):
            run(None, dest, action)


def test_mkfile_symlink_rm(tmp_path: Path) -> None:
    """FIL-03, FIL-04, FIL-05."""
    dest = tree(tmp_path / "dst", "d/x", "d/y", "keep")
    old_umask = os.umask(0o077)
    try:
        run(None, dest, MkFile(path="/new", data=b"1", mode=0o4666, owner=KEEP, timestamp_ns=2 * 10**9))
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE((dest / "new").stat().st_mode) == 0o666
    assert (dest / "new").stat().st_mtime == 2
    run(None, dest, Symlink(old_path="../../any/thing", new_path="/l", owner=KEEP))
    assert os.readlink(dest / "l") == "../../any/thing"
    run(None, dest, Symlink(old_path="/d", new_path="/dl", owner=KEEP), Rm(path="/dl/x"), Rm(path="/dl"))
    assert names(dest) == ["d/", "d/y", "keep", "l", "new"]
    run(
        None,
        dest,
        Rm(path="/none", allow_not_found=True),
        Rm(path="/d/*", allow_wildcard=True),
        Rm(path="/l"),
    )
    assert names(dest) == ["d/", "keep", "new"]
    for action in (
        Rm(path="/none"),
        Rm(path="/"),
        Rm(path=""),
        Rm(path="."),
        Rm(path="/d/../.."),
        Rm(path="/no*", allow_wildcard=True),
        MkFile(path="/no/parent", data=b""),
        MkFile(path="/d", data=b""),
        Symlink(old_path="x", new_path="/keep"),
        Symlink(old_path="", new_path="/fresh"),
    ):
        with pytest.raises(PybuildError):
            run(None, dest, action)
    assert names(dest) == ["d/", "keep", "new"]


def test_results_go_to_an_upper_directory(tmp_path: Path) -> None:
    """FIL-17: over layers, only what changes is written."""
    low = tree(tmp_path / "low", "etc/passwd", "etc/other", "app/old")
    upper = tmp_path / "upper"
    upper.mkdir()
    src = tree(tmp_path / "src", "new")
    op = FileOp(
        actions=(
            FileAction(action=Rm(path="/app"), input=0),
            FileAction(action=MkDir(path="/app/x", make_parents=True), input=2),
            FileAction(action=Copy(src="/new", dest="/etc/other"), input=3, secondary=1, output=0),
        )
    )
    (result,) = run_file_op(
        op, (View([low]), View([src])), lambda position: Writer(upper, [low] if position == 0 else [])
    )
    assert result.upper == upper
    assert [path for path, _ in View([upper, low]).walk()] == [
        "app",
        "app/x",
        "etc",
        "etc/other",
        "etc/passwd",
    ]
    assert names(upper) == ["app/", "app/x/", "etc/", "etc/other"]
    assert (low / "etc/other").read_text() == "content of etc/other"


def test_results_of_actions_are_inputs_of_others(tmp_path: Path) -> None:
    made = [tmp_path / "one", tmp_path / "two"]
    for path in made:
        path.mkdir()
    op = FileOp(
        actions=(
            FileAction(action=MkFile(path="/f", data=b"1", owner=KEEP), output=0),
            FileAction(action=Copy(src="/f", dest="/g", owner=KEEP), secondary=0, output=1),
        )
    )
    outputs = run_file_op(op, (), [Writer(path) for path in made])
    assert [writer.upper for writer in outputs] == made
    assert (made[1] / "g").read_text() == "1"
    again = FileOp(
        actions=(
            FileAction(action=MkFile(path="/f", data=b"1", owner=KEEP)),
            FileAction(action=MkFile(path="/g", data=b"1", owner=KEEP), input=0),
            FileAction(action=MkFile(path="/h", data=b"1", owner=KEEP), input=0),
        )
    )
    with pytest.raises(GraphError):
        run_file_op(again, (), [Writer(made[0])])


def test_copying_a_tree_into_itself_ends(tmp_path: Path) -> None:
    dest = tree(tmp_path / "dst", "a/b")
    op = FileOp(
        actions=(
            FileAction(action=MkFile(path="/f", data=b"1", owner=KEEP), input=0),
            FileAction(
                action=Copy(src="/", dest="/a/self", dir_contents=True, create_dest_path=True),
                input=1,
                secondary=1,
                output=0,
            ),
        )
    )
    run_file_op(op, (View([dest]),), lambda _: Writer(dest))
    assert (dest / "a/self/a/b").exists()
    assert not (dest / "a/self/a/self/a").exists()


def test_cancelling_stops_a_copy(tmp_path: Path) -> None:
    src = tree(tmp_path / "src", *(f"f{i}" for i in range(300)))
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise SolveError("stop")

    dest = tmp_path / "dst"
    dest.mkdir()
    op = FileOp(
        actions=(
            FileAction(action=Copy(src="/", dest="/", dir_contents=True), input=0, secondary=1, output=0),
        )
    )
    with pytest.raises(SolveError):
        run_file_op(op, (View([dest]), View([src])), lambda _: Writer(dest), check=check)


@pytest.mark.parametrize(
    ("text", "mode", "wanted"),
    [
        ("u=rwX,go=rX", 0o100644, 0o644),
        ("u=rwX,go=rX", 0o100700, 0o755),
        ("u=rwX,go=rX", 0o040700, 0o755),
        ("a+x", 0o100644, 0o755),
        ("+x", 0o100600, 0o711),
        ("o-rwx", 0o100777, 0o770),
        ("g=u", 0o100640, 0o660),
        ("u+s,g+s", 0o100755, 0o6755),
        ("+t", 0o040755, 0o1755),
        ("a=r", 0o104755, 0o444),
        ("u=rw,u+x-w", 0o100000, 0o500),
        ("=", 0o100777, 0o000),
        ("g-s", 0o042755, 0o755),
    ],
)  # fmt: skip
def test_symbolic_modes(text: str, mode: int, wanted: int) -> None:
    """CPY-13, FIL-11: as chmod does with umask 0."""
    assert oct(symbolic(text, mode)) == oct(wanted)
