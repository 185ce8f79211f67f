"""File operations other than copies (FIL-01…05, 15, 17, 18), through definitions made by hand."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder.errors import PathNotFound, PybuildError
from builder.llb.ops import ChownOpt, Copy, FileAction, FileOp, MkDir, MkFile, Rm, Symlink, UserOpt
from tests.support.handmade import Bench
from tests.support.rows import row

pytestmark = pytest.mark.root
SECOND = 10**9


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d/e").mkdir(parents=True)
    (root / "d/f").write_text("f")
    (root / "absolute").symlink_to("/d")
    (root / "up").symlink_to("../../../../d")
    (root / "out").symlink_to("/tmp")
    return root


def by_id(uid: int, gid: int) -> ChownOpt:
    return ChownOpt(user=UserOpt(id=uid), group=UserOpt(id=gid))


def mode(st: os.stat_result | None) -> int:
    assert st is not None
    return stat.S_IMODE(st.st_mode)


@row("FIL-01")
def test_links_lead_as_if_chrooted(bench: Bench, tree: Path, tmp_path: Path) -> None:
    base = bench.put(tree)
    made = bench.file(
        base,
        MkFile(path="/absolute/one", data=b"1"),
        MkFile(path="/up/two", data=b"2"),
        MkFile(path="/../../d/../d/three", data=b"3"),
        MkDir(path="/tmp"),
        MkFile(path="/out/four", data=b"4"),
        (Copy(src="/up/f", dest="/absolute/copy"), base),
        Rm(path="/absolute/f"),
        Symlink(old_path="x", new_path="/up/link"),
    )
    assert sorted(bench.look(made)) == [
        "absolute", "d", "d/copy", "d/e", "d/link", "d/one", "d/three", "d/two", "out", "tmp", "tmp/four", "up",
    ]  # fmt: skip
    assert not Path("/tmp/four").exists()


@row("FIL-02")
def test_mkdir(bench: Bench, tree: Path) -> None:
    base = bench.put(tree)
    made = bench.file(
        base,
        MkDir(path="/plain"),
        MkDir(path="/d", mode=0o700, owner=by_id(9, 9)),
        MkDir(path="/p/q/r", mode=0o7711, make_parents=True, owner=by_id(5, 6), timestamp_ns=77 * SECOND),
        MkDir(path="/p/q", mode=0o700, make_parents=True),
    )
    with bench.view(made) as view:
        plain, kept = view.lstat("plain"), view.lstat("d")
        assert mode(plain) == 0o755 and plain and (plain.st_uid, plain.st_gid) == (0, 0)
        assert mode(kept) == 0o755 and kept and kept.st_uid == 0, "what exists stays as it is"
        for path in ("p", "p/q", "p/q/r"):
            st = view.lstat(path)
            assert st is not None
            assert (mode(st), st.st_uid, st.st_gid, st.st_mtime) == (0o711, 5, 6, 77), path
    with pytest.raises(PathNotFound, match='"/no": not found'):
        bench.solve(bench.file(base, MkDir(path="/no/x")))
    with pytest.raises(PybuildError, match='"/d/f"'):
        bench.solve(bench.file(base, MkDir(path="/d/f/x", make_parents=True)))


@row("FIL-03")
def test_mkfile(bench: Bench, tree: Path) -> None:
    base = bench.put(tree)
    old = os.umask(0o077)
    try:
        made = bench.file(
            base,
            MkFile(path="/a", data=b"a", mode=0o4666),
            MkFile(path="/d/f", data=b"", mode=0o640, owner=by_id(3, 4), timestamp_ns=5 * SECOND),
        )
        with bench.view(made) as view:
            first, second = view.lstat("a"), view.lstat("d/f")
    finally:
        os.umask(old)
    assert mode(first) == 0o666 and first and (first.st_uid, first.st_gid) == (0, 0)
    assert second and (mode(second), second.st_size, second.st_uid, second.st_gid, second.st_mtime) == (
        0o640,
        0,
        3,
        4,
        5,
    )
    with pytest.raises(PathNotFound, match='"/no": not found'):
        bench.solve(bench.file(base, MkFile(path="/no/x", data=b"")))


@row("FIL-04")
def test_rm(bench: Bench, tree: Path) -> None:
    for name in ("x1", "x2", "y1"):
        (tree / "d/e" / name).mkdir()
        (tree / "d/e" / name / "log.txt").write_text("")
    base = bench.put(tree)
    assert "d" in bench.look(bench.file(base, Rm(path="/absolute")))
    assert "absolute" not in bench.look(bench.file(base, Rm(path="/absolute")))
    assert not any(path.startswith("d") for path in bench.look(bench.file(base, Rm(path="/d"))))
    wild = bench.look(bench.file(base, Rm(path="/d/e/x*/*.txt", allow_wildcard=True)))
    assert [path for path in wild if path.endswith(".txt")] == ["d/e/y1/log.txt"]
    with pytest.raises(PathNotFound, match=r'^"/nope": not found$'):
        bench.solve(bench.file(base, Rm(path="/nope")))
    assert bench.look(bench.file(base, Rm(path="/nope", allow_not_found=True))) == bench.look(base)
    for path in ("", "/", "/d/.."):
        with pytest.raises(PybuildError, match="root"):
            bench.solve(bench.file(base, Rm(path=path)))


@row("FIL-05")
@pytest.mark.parametrize("target", ["/absolute/./x//", "../../../..", "no such thing", " "])
def test_the_text_of_a_link_is_kept(bench: Bench, target: str) -> None:
    made = bench.file(
        None, Symlink(old_path=target, new_path="/l", owner=by_id(1, 2), timestamp_ns=9 * SECOND)
    )
    with bench.view(made) as view:
        assert view.readlink("l") == target
        st = view.lstat("l")
        assert st is not None and (st.st_uid, st.st_gid, st.st_mtime) == (1, 2, 9)


def archive(*, evil: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, **fields: object) -> None:
            info = tarfile.TarInfo(name)
            for key, value in {"uid": 11, "gid": 12, "mode": 0o640, "mtime": 3, **fields}.items():
                setattr(info, key, value)
            info.size = 1 if info.isreg() else 0
            tar.addfile(info, io.BytesIO(b"x"))

        add("in/file", pax_headers={"SCHILY.xattr.user.k": "v"})
        add("in/.wh.kept")
        add("in/link", type=tarfile.SYMTYPE, linkname="/etc")
        if evil:
            add("in/link/inside")
    return out.getvalue()


@row("FIL-15")
@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)  # fmt: skip
def test_an_archive_is_extracted(bench: Bench, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "named.anything").write_bytes(pack(archive()))
    (root / "link").symlink_to("named.anything")
    unpack = Copy(
        src="/link", dest="/new/place", attempt_unpack=True, follow_symlink=True, create_dest_path=True
    )
    with bench.view(bench.file(None, (unpack, bench.put(root)))) as view:
        assert mode(view.lstat("new/place")) == 0o755
        st = view.lstat("new/place/in/file")
        assert st is not None and (mode(st), st.st_uid, st.st_gid, st.st_mtime) == (0o640, 11, 12, 3)
        assert view.xattrs("new/place/in/file") == {"user.k": b"v"}
        assert view.lstat("new/place/in/.wh.kept") is not None, "whiteouts are files here"
        assert view.readlink("new/place/in/link") == "/etc"


@row("FIL-15")
def test_an_archive_stays_inside_its_destination(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "evil.tar").write_bytes(archive(evil=True))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"))
    (root / "up.tar").write_bytes(out.getvalue())
    source = bench.put(root)
    base = bench.file(None, MkDir(path="/d"), MkDir(path="/etc"))
    unpack = Copy(src="/evil.tar", dest="/d/", attempt_unpack=True, owner=by_id(1, 2))
    found = bench.look(bench.file(base, (unpack, source)))
    assert sorted(found) == [
        "d", "d/etc", "d/etc/inside", "d/in", "d/in/.wh.kept", "d/in/file", "d/in/link", "etc",
    ], "the link /etc leads to where it would if the destination were all there is"  # fmt: skip
    assert {found[path][1:3] for path in found if path.startswith("d/")} == {(1, 2)}
    with pytest.raises(PybuildError, match=r"'\.\./escaped': the name leads outside"):
        bench.solve(bench.file(base, (Copy(src="/up.tar", dest="/d/", attempt_unpack=True), source)))


@row("FIL-15")
def test_attributes_of_an_archive_as_far_as_they_can_be_set(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    wrong = {"SCHILY.xattr.user.k": "v", "SCHILY.xattr.no.such.space": "x",
             "SCHILY.xattr.security.capability": "none", "SCHILY.xattr.user.big": "x" * 66_000}  # fmt: skip
    with tarfile.open(root / "odd.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in (("f", tarfile.REGTYPE), ("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.pax_headers = kind, "f", wrong
            tar.addfile(info)
    unpacked = bench.file(None, (Copy(src="/odd.tar", dest="/", attempt_unpack=True), bench.put(root)))
    with bench.view(unpacked) as view:
        assert view.xattrs("f") == view.xattrs("d") == {"user.k": b"v"}
        assert view.readlink("l") == "f"
    told = bench.watcher.log()
    assert "extended attribute 'no.such.space' is not copied" in told and "'user.big'" in told


@row("FIL-15")
def test_what_is_no_archive_is_copied(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "dir.tar").mkdir(parents=True)
    (root / "dir.tar/inner.tar").write_bytes(archive())
    (root / "plain.tar").write_text("no archive")
    (root / "text.gz").write_bytes(gzip.compress(b"no archive either"))
    (root / "empty.tar").touch()
    (root / "link").symlink_to("dir.tar/inner.tar")
    source = bench.put(root)
    base = bench.file(None, MkDir(path="/d"))

    def copied(src: str, **more: Any) -> list[str]:
        copy = Copy(src=src, dest="/d/", attempt_unpack=True, **more)
        found = bench.look(bench.file(base, (copy, source)))
        return sorted(path for path in found if path != "d")

    for name in ("plain.tar", "text.gz", "empty.tar"):
        assert copied(f"/{name}") == [f"d/{name}"]
    assert bench.read(bench.file(base, (Copy(src="/plain.tar", dest="/d/", attempt_unpack=True), source)), "d/plain.tar") == "no archive"  # fmt: skip
    assert copied("/dir.tar", dir_contents=True) == ["d/inner.tar"], "only what is named is unpacked"
    assert copied("/link") == ["d/link"], "a link that is not followed is no archive"
    assert copied("/link", follow_symlink=True) == ["d/in", "d/in/.wh.kept", "d/in/file", "d/in/link"]


@row("FIL-17")
def test_chained_actions_make_one_layer_and_every_output_is_committed(bench: Bench) -> None:
    chained = bench.file(None, MkDir(path="/a"), MkFile(path="/a/b", data=b"1"), Rm(path="/a/b"))
    snapshot = bench.solve(chained)
    assert snapshot is not None
    assert len(bench.store.snapshots.chain(snapshot)) == 1
    op = FileOp(
        actions=(
            FileAction(action=MkFile(path="/one", data=b"1"), output=0),
            FileAction(action=MkFile(path="/two", data=b"2"), input=0, output=1),
            FileAction(action=MkFile(path="/three", data=b"3"), input=0),
            FileAction(action=Rm(path="/one"), input=2),
            FileAction(action=Copy(src="/one", dest="/copied"), input=3, secondary=0, output=2),
        )
    )
    forked = bench.vertex(op)
    assert [sorted(bench.look(forked, index)) for index in range(3)] == [
        ["one"],
        ["one", "two"],
        ["copied", "three"],
    ]
    assert not [info for info in bench.store.snapshots.list() if info.kind == "active"]


@row("FIL-17")
def test_errors_show_paths_of_the_tree(bench: Bench, tree: Path) -> None:
    base = bench.put(tree)
    for action in (
        MkFile(path="/d/f/x", data=b""),
        MkFile(path="/d", data=b""),
        MkFile(path=f"/{'n' * 300}", data=b""),
        Symlink(old_path="x", new_path="/d/f"),
    ):
        with pytest.raises(PybuildError) as caught:
            bench.solve(bench.file(base, action))
        said = f"{caught.value.message} {caught.value.context}"
        assert str(bench.store.root) not in said
        assert "/d" in said or "nnn" in said
    assert not [info for info in bench.store.snapshots.list() if info.kind == "active"]


@row("FIL-18", "BET-06")
def test_owners_by_name_come_from_the_given_state(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "real").mkdir(parents=True)
    (root / "etc").symlink_to("/real")
    (root / "real/passwd").write_text("root:x:0:0::/:\napp:x:100:200::/:\nhalf:x:\n")
    (root / "real/group").write_text("web:x:33:\n")
    base = bench.put(root)

    def chown(user: str = "", group: str = "", at: int = 0) -> ChownOpt:
        return ChownOpt(
            user=UserOpt(name=user, input=at) if user else None,
            group=UserOpt(name=group, input=at) if group else None,
        )

    made = bench.file(base, MkFile(path="/a", data=b"", owner=chown("app")),
                      MkFile(path="/b", data=b"", owner=chown("app", "web")), MkDir(path="/c", owner=chown("", "web")))  # fmt: skip
    found = bench.look(made)
    assert [found[path][1:3] for path in "abc"] == [(100, 200), (100, 33), (0, 33)]
    for owner, what in (
        (chown("nobody"), "user 'nobody'"),
        (chown("app", "nogroup"), "group 'nogroup'"),
        (chown("half"), "half"),
    ):
        with pytest.raises(PybuildError, match=what):
            bench.solve(bench.file(base, MkFile(path="/x", data=b"", owner=owner)))
    with pytest.raises(PybuildError, match="app") as caught:
        bench.solve(bench.file(None, MkFile(path="/x", data=b"", owner=chown("app", at=-1))))
    assert "/etc/passwd" in caught.value.message and caught.value.hint
