"""Layer bytes: the header rules, and what tarfile reads out of them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from builder.cache.differ import Change, changes, everything
from builder.cache.layer import END, entry_header, pack, pax_records, ustar, whiteout_header
from builder.cache.tree import TreeError, View
from builder.cache.treewriter import Writer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes owners and whiteouts")


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def layer_of(stack: list[Path], **options: object) -> bytes:
    out = io.BytesIO()
    pack(changes(stack[0], stack[1:]), View(stack), out.write, **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_nothing_changed_is_still_a_tar(tmp_path: Path) -> None:
    """LAY-07."""
    assert layer_of([tmp_path]) == END == bytes(1024)


@pytest.mark.root
@needs_root
def test_entries_follow_the_header_rules(tmp_path: Path) -> None:
    """LAY-03, LAY-05, LAY-08: numeric owners, whole seconds, PAX only where needed."""
    writer = Writer(tmp_path)
    writer.mkdir("dir", 0o1777, 1, 2, mtime_ns=5_900_000_000, xattrs={"user.kept": b"1"})
    writer.write_file("dir/suid", b"hello", 0o4755, 10, 20, mtime_ns=7_999_999_999)
    writer.write_file(
        "dir/caps", b"", 0o755, 0, 0, mtime_ns=0, xattrs={"security.capability": b"\1\0\0\2" + bytes(16)}
    )
    writer.write_file("dir/big-ids", b"", 0o644, 3_000_000, 4_000_000, mtime_ns=-(10**9))
    writer.symlink("dir/link", "../x" * 40, 1, 1, mtime_ns=0)
    writer.mknod("dir/null", stat.S_IFCHR | 0o666, os.makedev(1, 3), 0, 0, mtime_ns=0)
    writer.mknod("dir/pipe", stat.S_IFIFO | 0o600, 0, 0, 0, mtime_ns=0)
    writer.mknod("dir/sock", stat.S_IFSOCK | 0o600, 0, 0, 0, mtime_ns=0)
    writer.link("dir/zz-hard", "dir/suid")
    writer.set_meta("dir", mtime_ns=5_900_000_000)
    data = layer_of([tmp_path])
    by_name = {member.name: member for member in members(data)}
    assert list(by_name) == sorted(by_name)
    assert "dir/sock" not in by_name
    entry = by_name["dir/suid"]
    assert (entry.mode, entry.uid, entry.gid, entry.mtime, entry.size) == (0o4755, 10, 20, 7, 5)
    assert (entry.uname, entry.gname) == ("", "")
    assert not entry.pax_headers
    assert by_name["dir"].mode == 0o1777
    assert by_name["dir"].pax_headers == {"SCHILY.xattr.user.kept": "1"}
    assert "SCHILY.xattr.security.capability" in by_name["dir/caps"].pax_headers
    assert by_name["dir/big-ids"].pax_headers == {"uid": "3000000", "gid": "4000000", "mtime": "-1"}
    assert by_name["dir/link"].linkname == "../x" * 40
    assert (by_name["dir/null"].devmajor, by_name["dir/null"].devminor) == (1, 3)
    assert by_name["dir/pipe"].isfifo()
    assert by_name["dir/zz-hard"].islnk()
    assert by_name["dir/zz-hard"].linkname == "dir/suid"
    assert b"dir/\0" in data[:2048]
    only_caps = {m.name: m for m in members(layer_of([tmp_path], user_xattrs=False))}
    assert not only_caps["dir"].pax_headers
    assert all(m.mtime <= 6 for m in members(layer_of([tmp_path], clamp_s=6)))


def test_golden_header_bytes() -> None:
    """Every byte of a plain header is fixed by the format."""
    block = ustar(b"etc/hosts", b"0", mode=0o644, uid=1, gid=2, size=3, mtime=4)
    assert len(block) == 512
    assert block[:9] == b"etc/hosts"
    assert block[100:157] == b"0000644\0000000001\0000000002\00000000000003\00000000000004\000011043\0 0"
    assert block[257:265] == b"ustar\00000"
    assert block[329:345] == b"0000000\0000000000\0"
    assert pax_records({"b": b"2", "a": b"1" * 92}) == b"98 a=" + b"1" * 92 + b"\n" + b"6 b=2\n"
    long = entry_header(b"d/" + b"n" * 120, b"0", mode=0o644, uid=0, gid=0)
    assert long[:19] == b"d/PaxHeaders.0/nnnn"
    assert long[156:157] == b"x"
    assert b"132 path=d/nnn" in long
    for size in range(80, 110):
        record = pax_records({"k": b"v" * size})
        assert int(record.split()[0]) == len(record)


@pytest.mark.root
@needs_root
def test_unchanged_parents_are_listed_once_and_the_root_never(tmp_path: Path) -> None:
    """LAY-01."""
    low, top = tmp_path / "low", tmp_path / "top"
    low.mkdir()
    top.mkdir()
    writer = Writer(low)
    writer.makedirs("a/b/c")
    writer.write_file("a/b/c/old", b"")
    writer.write_file("a/b/c/same", b"")
    writer = Writer(top, [low])
    writer.set_meta("", mode=0o700)
    writer.write_file("a/b/c/new", b"")
    writer.write_file("a/b/c/new2", b"")
    writer.remove("a/b/c/old")
    names = [member.name for member in members(layer_of([top, low]))]
    assert names == ["a", "a/b", "a/b/c", "a/b/c/new", "a/b/c/new2", "a/b/c/.wh.old"]


@pytest.mark.root
@needs_root
def test_copied_up_but_equal_entries_are_dropped(tmp_path: Path) -> None:
    """LAY-02: only what differs is listed; a time alone does not change a directory."""
    low, top = tmp_path / "low", tmp_path / "top"
    low.mkdir()
    top.mkdir()
    writer = Writer(low)
    writer.mkdir("d", 0o755, 0, 0)
    for name in ("same", "touched", "moded", "same-time"):
        writer.write_file(f"d/{name}", b"content", mtime_ns=10**9)
    writer = Writer(top, [low])
    writer.set_meta("d/same", mtime_ns=10**9)
    writer.set_meta("d/touched", mtime_ns=2 * 10**9)
    writer.set_meta("d/moded", mode=0o600)
    writer.write_file("d/same-time", b"CONTENT", mtime_ns=10**9)
    writer.set_meta("d", mtime_ns=10**9)
    os.mknod(top / "not-there", stat.S_IFCHR, 0)
    found = [(change.kind, change.path) for change in changes(top, [low])]
    assert found == [("modify", "d/moded"), ("modify", "d/same-time"), ("modify", "d/touched")]


@pytest.mark.root
@needs_root
def test_an_unchanged_name_of_a_changed_file_stays_linked(tmp_path: Path) -> None:
    """LAY-04."""
    low, top = tmp_path / "low", tmp_path / "top"
    low.mkdir()
    top.mkdir()
    Writer(low).write_file("m", b"data", mtime_ns=10**9)
    writer = Writer(top, [low])
    writer.link("a", "m")
    writer.set_meta("m", mtime_ns=10**9)
    listed = members(layer_of([top, low]))
    assert [(m.name, m.linkname) for m in listed] == [("a", ""), ("m", "a")]


def test_opaque_markers_are_never_written_and_whiteouts_have_no_time(tmp_path: Path) -> None:
    """LAY-06."""
    header = whiteout_header("dir/gone")
    (member,) = members(header + END)
    assert (member.name, member.mode, member.mtime, member.size) == ("dir/.wh.gone", 0, 0, 0)
    long = whiteout_header("d" * 90 + "/" + "e" * 90)
    assert len(long) == 512
    assert members(long + END)[0].name == "d" * 90 + "/.wh." + "e" * 90


def test_a_file_that_shrinks_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3 << 20))

    def write(data: bytes) -> None:
        os.truncate(path, 10)

    with pytest.raises(TreeError):
        pack(everything(View([tmp_path])), View([tmp_path]), write)


def test_names_of_any_bytes_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xff")
    (tmp_path / name).write_text("x")
    (tmp_path / "日本").write_text("y")
    out = io.BytesIO()
    pack(everything(View([tmp_path])), View([tmp_path]), out.write)
    assert [os.fsencode(member.name) for member in members(out.getvalue())] == [
        b"caf\xe9 \xff",
        "日本".encode(),
    ]
    assert [c.path for c in everything(View([tmp_path]))] == [name, "日本"]
    assert Change("a", "delete").stat is None
