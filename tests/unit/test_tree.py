"""View and Writer: overlay's on-disk form without a mount."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from builder.cache.tree import TreeError, View, clean, is_whiteout, resolve_in
from builder.cache.treewriter import Writer
from builder.errors import PathNotFound

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes whiteouts and owners")


def layer(root: Path, **files: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def listing(view: View) -> dict[str, str]:
    found = {}
    for path, st in view.walk():
        if stat.S_ISDIR(st.st_mode):
            found[path] = "dir"
        elif stat.S_ISLNK(st.st_mode):
            found[path] = "-> " + view.readlink(path)
        else:
            found[path] = view.read(path, 1 << 20).decode()
    return found


def test_upper_layers_hide_lower_ones(tmp_path: Path) -> None:
    low = layer(tmp_path / "low", a="1", d__x="low x", d__y="low y")
    top = layer(tmp_path / "top", d__x="top x", d__z="top z")
    view = View([top, low])
    assert listing(view) == {"a": "1", "d": "dir", "d/x": "top x", "d/y": "low y", "d/z": "top z"}
    assert view.host_path("d/y") == low / "d/y"
    assert view.host_path("d/x") == top / "d/x"
    with pytest.raises(PathNotFound):
        view.host_path("d/nothing")


@pytest.mark.root
@needs_root
def test_whiteouts_and_opaque_directories_hide(tmp_path: Path) -> None:
    low = layer(tmp_path / "low", a="1", d__x="x", e__x="x")
    top = layer(tmp_path / "top", d__z="z")
    os.mknod(top / "a", stat.S_IFCHR, 0)
    os.setxattr(top / "d", "trusted.overlay.opaque", b"y")
    view = View([top, low])
    assert listing(view) == {"d": "dir", "d/z": "z", "e": "dir", "e/x": "x"}
    assert view.lstat("a") is None
    with pytest.raises(PathNotFound):
        view.open("a")
    with pytest.raises(PathNotFound):
        view.open("d/x")


def test_a_file_over_a_directory_hides_everything_below(tmp_path: Path) -> None:
    low = layer(tmp_path / "low", d__x="x")
    mid = layer(tmp_path / "mid", d="file")
    top = layer(tmp_path / "top", d__y="y")
    assert listing(View([mid, low])) == {"d": "file"}
    assert listing(View([top, mid, low])) == {"d": "dir", "d/y": "y"}


def test_links_are_followed_only_by_resolve_and_stay_inside(tmp_path: Path) -> None:
    root = layer(tmp_path / "root", real__file="inside")
    secret = tmp_path / "secret"
    secret.write_text("outside")
    (root / "abs").symlink_to("/real")
    (root / "up").symlink_to("../../../../../" + str(secret))
    (root / "loop").symlink_to("loop")
    (root / "chain").symlink_to("abs/file")
    view = View([root])
    assert view.resolve("abs/file") == "real/file"
    assert view.resolve("/chain") == "real/file"
    assert view.resolve("chain", follow_final=False) == "chain"
    assert view.resolve("../../real/../abs/./nothing/there") == "real/nothing/there"
    assert view.resolve("up") == str(secret).lstrip("/")
    with pytest.raises(PathNotFound):
        view.resolve("loop")
    with pytest.raises(PathNotFound):
        view.open("up")
    assert view.lstat("abs/file") is None
    assert resolve_in(view, "abs/../real") == "real"


def test_names_that_walk_elsewhere_are_refused(tmp_path: Path) -> None:
    view = View([layer(tmp_path / "root", a="1")])
    for bad in ("..", "a/..", "../a", "./a", "a//b", "/a/../..", "."):
        with pytest.raises(TreeError):
            view.lstat(bad)
    assert clean("//a/./b/../../../c/") == "c"
    with pytest.raises(TreeError):
        clean("a\0b")


def test_walk_is_sorted_by_component_and_bytes(tmp_path: Path) -> None:
    root = layer(tmp_path / "r", **{"a-b": "", "a__c": "", "ab": ""})
    (root / "\udcff").write_text("")
    (root / "\ue000").write_text("")
    assert [path for path, _ in View([root]).walk()] == ["a", "a/c", "a-b", "ab", "\ue000", "\udcff"]


def test_very_deep_trees_neither_recurse_nor_run_out_of_fds(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    path = "d"
    for _ in range(1500):
        writer.mkdir(path, 0o755, os.getuid(), os.getgid())
        path += "/d"
    assert sum(1 for _ in View([tmp_path]).walk()) == 1500
    assert writer.remove("d")
    assert not os.listdir(tmp_path)


def me() -> tuple[int, int]:
    return os.getuid(), os.getgid()


@pytest.mark.root
@needs_root
def test_writer_makes_what_overlay_would_show(tmp_path: Path) -> None:
    low = layer(tmp_path / "low", keep="k", gone="g", d__x="x", d__y="y", e__deep__f="f", swap__in="i")
    os.chmod(low / "e", 0o711)
    upper, work, merged = (tmp_path / name for name in ("upper", "work", "merged"))
    for made in (upper, work, merged):
        made.mkdir()
    writer = Writer(upper, [low])
    assert writer.remove("gone")
    assert not writer.remove("gone")
    assert writer.remove("d")
    assert writer.mkdir("d", 0o2755, 1, 2)
    writer.write_file("d/new", b"new", 0o4755, 3, 4, mtime_ns=10**9)
    writer.remove("swap")
    writer.write_file("swap", [b"one", b"two"], 0o600)
    writer.link("e/deep/hard", "keep")
    writer.symlink("e/link", "../keep", 5, 6, mtime_ns=7 * 10**9)
    writer.mknod("e/fifo", stat.S_IFIFO | 0o666, 0, 1, 1)
    writer.set_meta("e/deep/f", mode=0o640, xattrs={"user.k": b"v", "trusted.overlay.opaque": b"y"})
    after = View([upper, low])
    subprocess.run(
        [
            "mount",
            "-t",
            "overlay",
            "overlay",
            "-o",
            f"lowerdir={low},upperdir={upper},workdir={work}",
            merged,
        ],
        check=True,
    )
    try:
        with View([merged]) as real:
            shown = real.xattrs("e/deep/f")
            expected = {path: (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns) for path, st in real.walk()}
        for view in (after, writer):
            found = {path: (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns) for path, st in view.walk()}
            assert found == expected
        assert after.read("e/deep/f", 10) == (merged / "e/deep/f").read_bytes()
        assert shown == after.xattrs("e/deep/f") == {"user.k": b"v"}
    finally:
        subprocess.run(["umount", merged], check=True)
    assert stat.S_IMODE(expected["e"][0]) == 0o711
    assert expected["d/new"] == (stat.S_IFREG | 0o4755, 3, 4, 10**9)
    assert is_whiteout(os.lstat(upper / "gone"))
    assert sorted(os.listdir(upper / "d")) == ["new"]


def test_writer_replaces_files_but_never_directories(tmp_path: Path) -> None:
    root = layer(tmp_path / "r", f="old", d__x="x")
    os.link(root / "f", root / "other")
    writer = Writer(root)
    writer.write_file("f", b"new", 0o666, *me())
    assert (root / "other").read_text() == "old"
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o666
    with pytest.raises(TreeError):
        writer.write_file("d", b"", 0o644, *me())
    with pytest.raises(PathNotFound):
        writer.write_file("missing/f", b"", 0o644, *me())
    with pytest.raises(TreeError):
        writer.link("new", "d")
    with pytest.raises(TreeError):
        writer.remove("")
    assert writer.mkdir("f", 0o755, *me())
    with pytest.raises(TreeError):
        writer.mknod("w", stat.S_IFCHR, 0)


def test_writer_never_follows_a_link(tmp_path: Path) -> None:
    outside = layer(tmp_path / "outside", f="canary")
    root = layer(tmp_path / "r")
    (root / "l").symlink_to(outside)
    (root / "f").symlink_to(outside / "f")
    writer = Writer(root)
    with pytest.raises(PathNotFound):
        writer.write_file("l/f", b"bad", 0o777, *me())
    writer.write_file("f", b"fine", 0o644, *me())
    writer.remove("l")
    assert (outside / "f").read_text() == "canary"
    assert stat.S_IMODE((outside / "f").stat().st_mode) != 0o777


def test_holes_stay_holes(tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.write(b"head")
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    writer = Writer(layer(tmp_path / "r"))
    with source.open("rb") as file:
        writer.write_file("f", file.fileno(), 0o644, *me())
    st = (tmp_path / "r/f").stat()
    assert st.st_size == 64 << 20
    assert st.st_blocks * 512 < 1 << 20
    assert (tmp_path / "r/f").read_bytes() == source.read_bytes()
