"""The extractor: ordinary archives, whiteouts, and a corpus of hostile ones (security-cases section 6)."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from builder.cache.compression import CorruptData, InflateLimits
from builder.cache.extract import Limits, apply, is_archive
from builder.cache.layer import END, entry_header, pad, pax_records, ustar
from builder.cache.tarfields import BadArchive
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.errors import PybuildError
from builder.oci.digest import Digest

ME = (os.getuid(), os.getgid())
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other owners")]


def member(name: str, data: bytes = b"", kind: bytes = b"0", **values: Any) -> bytes:
    facts: dict[str, Any] = {"mode": 0o644, "uid": ME[0], "gid": ME[1], "size": len(data)} | values
    if isinstance(facts.get("link"), str):
        facts["link"] = os.fsencode(facts["link"])
    return entry_header(os.fsencode(name), kind, **facts) + data + pad(len(data))


def folder(name: str, **values: Any) -> bytes:
    return member(name, kind=b"5", **({"mode": 0o755} | values))


def symlink(name: str, target: str) -> bytes:
    return member(name, kind=b"2", link=target, mode=0o777)


def hardlink(name: str, target: str, **values: Any) -> bytes:
    return member(name, kind=b"1", link=target, **values)


def pax(records: dict[str, bytes], kind: bytes = b"x") -> bytes:
    data = pax_records(records)
    return ustar(b"pax", kind, size=len(data)) + data + pad(len(data))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("canary")
    os.utime(outside / "file", (1, 1))
    os.utime(outside, (1, 1))
    return outside


def facts(root: Path) -> list[Any]:
    found = []
    for path in [root, *sorted(root.rglob("*"))]:
        st = path.lstat()
        found.append(
            (str(path), st.st_mode, st.st_uid, st.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        )
    return found


def root_of(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    return root


def unpack(tmp_path: Path, data: bytes, **options: Any) -> Path:
    root = root_of(tmp_path)
    apply(io.BytesIO(data), Writer(root), **options)
    return root


def test_the_result_names_the_uncompressed_tar(tmp_path: Path) -> None:
    data = member("a", b"x" * 3000) + END + bytes(512 * 3)
    root = root_of(tmp_path)
    result = apply(io.BytesIO(gzip.compress(data)), Writer(root))
    assert result.diff_id == Digest.of(data)
    assert (result.size, result.entries, result.compression) == (len(data), 1, "gzip")
    big = member("big", os.urandom(9 << 20)) + END
    result = apply(io.BytesIO(gzip.compress(big, 1)), Writer(root))
    assert result.diff_id == Digest.of(big)
    assert (root / "big").read_bytes() == big[512 : 512 + (9 << 20)]


def test_ordinary_entries(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        folder("./d", mode=0o2711, mtime=5)
        + member("/d/f", b"data", mode=0o4755, mtime=6)
        + symlink("d/l", "../../../etc/passwd")
        + hardlink("h", "./d/f", mode=0o4755, mtime=6)
        + member("made/parents/f", b"1")
        + member("d/../e", b"e")
        + member("p", kind=b"6", mode=0o640)
        + END,
    )
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o2711
    assert (root / "d").stat().st_mtime == 5, "set after what is inside"
    assert (root / "d/f").stat().st_ino == (root / "h").stat().st_ino
    assert stat.S_IMODE((root / "h").stat().st_mode) == 0o4755
    assert os.readlink(root / "d/l") == "../../../etc/passwd"
    assert stat.S_IMODE((root / "made").stat().st_mode) == 0o755
    assert (root / "e").read_text() == "e"
    assert stat.S_ISFIFO((root / "p").lstat().st_mode)


def test_dialects(tmp_path: Path) -> None:
    """Old directories, GNU long names, PAX over ustar, global headers ignored, base-256 numbers, missing end."""
    long = "long/" + "n" * 200
    old = bytearray(ustar(b"old/", b"\0", mode=0o755, uid=ME[0], gid=ME[1]))
    old[257:345] = bytes(88)
    total = sum(old) - sum(old[148:156]) + 256
    old[148:156] = b"%06o\0 " % total
    base256 = bytearray(ustar(b"numbers", b"0", mode=0o600, uid=ME[0], gid=ME[1]))
    base256[136:148] = b"\x80" + (9).to_bytes(11, "big")
    base256[148:156] = b"%06o\0 " % (sum(base256) - sum(base256[148:156]) + 256)
    root = unpack(
        tmp_path,
        pax({"path": b"nothing", "uid": b"99"}, b"g")
        + bytes(old)
        + ustar(b"././@LongLink", b"L", size=len(long) + 1)
        + long.encode()
        + b"\0"
        + pad(len(long) + 1)
        + ustar(b"cut", b"0", mode=0o644, uid=ME[0], gid=ME[1])
        + pax({"path": b"from-pax", "mtime": b"12.5"})
        + ustar(b"from-ustar", b"0", mode=0o644, uid=ME[0], gid=ME[1], mtime=99)
        + bytes(base256)
        + ustar(b"suffix", b"0", mode=0o644, uid=ME[0], gid=ME[1], prefix=b"pre/fix"),
    )
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*")) == [
        "from-pax",
        "long",
        long,
        "numbers",
        "old",
        "pre",
        "pre/fix",
        "pre/fix/suffix",
    ]
    assert (root / "from-pax").stat().st_mtime == 12.5
    assert (root / "numbers").stat().st_mtime == 9
    assert (root / "old").is_dir()


@pytest.mark.parametrize("form", ["gnu", "posix:0.0", "posix:0.1", "posix:1.0"])
def test_sparse_files_of_every_kind(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for i in range(30):
            file.seek(i * 1_000_000)
            file.write(b"piece %d" % i)
        file.truncate(50_000_000)
    name, _, version = form.partition(":")
    flags = [f"--format={name}"] + ([f"--sparse-version={version}"] if version else [])
    made = subprocess.run(
        ["tar", "-cSf", "-", *flags, "-C", source, "sparse"], check=True, capture_output=True
    )
    assert len(made.stdout) < 1 << 20
    root = unpack(tmp_path, made.stdout)
    assert (root / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (root / "sparse").stat().st_blocks * 512 < 1 << 20


def test_later_entries_win(tmp_path: Path) -> None:
    root = unpack(
        tmp_path,
        member("x", b"first")
        + member("x", b"second")
        + folder("t")
        + member("t/inner", b"1")
        + member("t", b"now a file")
        + member("u", b"a file")
        + folder("u")
        + member("u/inner", b"2")
        + symlink("v", "t")
        + member("v", b"not through the link")
        + END,
    )
    assert (root / "x").read_text() == "second"
    assert (root / "t").read_text() == "now a file"
    assert (root / "u/inner").read_text() == "2"
    assert (root / "v").read_text() == "not through the link"


def test_parents_follow_links_inside_the_destination(tmp_path: Path, canary: Path) -> None:
    """A merged /usr: lib is a link; absolute targets and too many ".." stay inside."""
    root = unpack(
        tmp_path,
        folder("usr/lib")
        + symlink("lib", "usr/lib")
        + member("lib/x", b"1")
        + symlink("abs", str(canary))
        + member("abs/file", b"inside")
        + symlink("up", "../../../../../../../../" + str(canary))
        + member("up/file2", b"inside"),
    )
    assert (root / "usr/lib/x").read_text() == "1"
    assert (root / str(canary).lstrip("/") / "file").read_text() == "inside"
    assert (canary / "file").read_text() == "canary"
    assert not (canary / "file2").exists()


def test_dest_counts_as_the_root(tmp_path: Path) -> None:
    root = root_of(tmp_path)
    (root / "dest").mkdir()
    (root / "etc").mkdir()
    data = symlink("l", "/etc") + member("l/passwd", b"x") + member(".wh.keep", b"plain") + END
    apply(io.BytesIO(data), Writer(root), dest="dest", whiteouts=False, owner=ME)
    assert (root / "dest/etc/passwd").read_text() == "x"
    assert not list((root / "etc").iterdir())
    assert (root / "dest/.wh.keep").read_text() == "plain"


def test_owners_devices_attributes(tmp_path: Path) -> None:
    caps = b"\1\0\0\2" + struct.pack("<IIII", 1 << 10, 0, 0, 0)
    data = (
        member("f", b"1", uid=5, gid=6, mode=0o6755, xattrs={"security.capability": caps, "user.x": b"y"})
        + member("null", kind=b"3", device=os.makedev(1, 3), mode=0o666)
        + member("overlay", xattrs={"trusted.overlay.redirect": b"/etc", "trusted.overlay.opaque": b"y"})
        + member("big", uid=3_000_000_000, gid=4_000_000)
        + END
    )
    root = unpack(tmp_path, data)
    assert os.getxattr(root / "f", "security.capability") == caps
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o6755
    assert (root / "f").stat().st_uid == 5
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert os.listxattr(root / "overlay") == []
    assert (root / "big").stat().st_uid == 3_000_000_000
    other = tmp_path / "other"
    other.mkdir()
    apply(io.BytesIO(data), Writer(other), owner=(7, 8))
    assert {path.stat().st_uid for path in other.iterdir()} == {7}
    mapped = tmp_path / "mapped"
    mapped.mkdir()
    apply(io.BytesIO(data), Writer(mapped), map_owner=lambda uid, gid: (uid % 1000 + 1, gid % 1000))
    assert (mapped / "f").stat().st_uid == 6


LOWER = {"a": "1", "d/x": "x", "d/y": "y", "e/z": "z"}


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (member(".wh.a"), {"d", "d/x", "d/y", "e", "e/z"}),
        (member(".wh.d") + member("new"), {"a", "new", "e", "e/z"}),
        (member("./d/.wh.x"), {"a", "d", "d/y", "e", "e/z"}),
        (member(".wh.nothing") + member("no/where/.wh.x"), {"a", "d", "d/x", "d/y", "e", "e/z"}),
        (member(".wh.d") + folder("d") + member("d/n"), {"a", "d", "d/n", "e", "e/z"}),
        # whiteouts speak of lower layers, wherever in this layer they stand
        (folder("d") + member("d/n") + member(".wh.d"), {"a", "d", "d/n", "e", "e/z"}),
        (member("a", b"new") + member(".wh.a"), {"a", "d", "d/x", "d/y", "e", "e/z"}),
        (folder("d") + member("d/n") + member("d/.wh..wh..opq"), {"a", "d", "d/n", "e", "e/z"}),
        (folder("d") + member("d/.wh..wh..opq") + member("d/n"), {"a", "d", "d/n", "e", "e/z"}),
        (member(".wh..wh..opq") + member("n"), {"n"}),
        (member("d", b"now a file"), {"a", "d", "e", "e/z"}),
        (
            member(".wh..wh.aufs") + folder(".wh..wh.orph") + member(".wh..wh.plnk/1"),
            {"a", "d", "d/x", "d/y", "e", "e/z"},
        ),
        (member("d/x", kind=b"3"), {"a", "d", "d/y", "e", "e/z"}),
    ],
)
def test_whiteouts(tmp_path: Path, data: bytes, wanted: set[str]) -> None:
    low, flat, top = (tmp_path / name for name in ("low", "flat", "top"))
    for root in (low, flat):
        for name, text in LOWER.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    top.mkdir()
    apply(io.BytesIO(data + END), Writer(top, [low]))
    assert {path for path, _ in View([top, low]).walk()} == wanted
    apply(io.BytesIO(data + END), Writer(flat))
    assert {path for path, _ in View([flat]).walk()} == wanted
    assert sorted(str(p.relative_to(low)) for p in low.rglob("*")) == ["a", "d", "d/x", "d/y", "e", "e/z"]


DEEP = "d/" * 2040 + "f"
HOSTILE: dict[str, bytes] = {
    "dot-dot": member("../evil", b"x"),
    "inner dot-dot": member("a/../../evil", b"x"),
    "absolute dot-dot": member("/../../evil", b"x"),
    "root is a link": symlink(".", "/"),
    "root is a file": member("/", b"x"),
    "root is a hard link": hardlink("./", "/etc/passwd"),
    "root is a device": member("./.", kind=b"3", device=os.makedev(1, 3)),
    "hard link outside": hardlink("h", "../../outside/file"),
    "hard link to an absolute host path": hardlink("h", "/../outside/file"),
    "hard link to nothing": hardlink("h", "missing"),
    "hard link to a directory": folder("d") + hardlink("h", "d"),
    "hard link to the root": hardlink("h", "/"),
    "hard link to itself": member("h", b"1") + hardlink("h", "h"),
    "hard link in place of its target's parent": member("d/f", b"1") + hardlink("d", "d/f"),
    "below a file": member("f", b"1") + member("f/below", b"2"),
    "below a device": member("n", kind=b"6") + member("n/below", b"2"),
    "whiteout of dot": member(".wh.."),
    "whiteout of dot-dot": member(".wh..."),
    "whiteout of nothing": member(".wh."),
    "whiteout of dot below": folder("d") + member("d/.wh.."),
    "below a whiteout": member(".wh.d/inner", b"x"),
    "link loop as parent": symlink("a", "b") + symlink("b", "a") + member("a/x", b"1"),
    "too long a name": member("n" * 300, b"x"),
    "too long a path": member("p/" * 3000 + "f", b"x"),
    "too long a link": symlink("l", "t" * 5000),
    "empty link": member("l", kind=b"2"),
    "NUL in a PAX path": pax({"path": b"a\0b"}) + member("x"),
    "NUL in a PAX key": pax({"SCHILY.xattr.user.\0": b"1"}) + member("x"),
    "unknown type": member("v", kind=b"V"),
    "multi-volume": member("v", kind=b"M"),
    "huge size": pax({"size": b"9223372036854775807"}) + member("x"),
    "size beyond 64 bits": pax({"size": b"99999999999999999999999999"}) + member("x"),
    "negative size": pax({"size": b"-1"}) + member("x"),
    "uid minus one": pax({"uid": b"4294967295"}) + member("x"),
    "uid beyond 32 bits": pax({"uid": b"4294967296"}) + member("x"),
    "gid with underscores": pax({"gid": b"1_0"}) + member("x"),
    "unicode digits": pax({"uid": "٣".encode()}) + member("x"),
    "time without end": pax({"mtime": b"9" * 19 + b"9"}) + member("x"),
    "time that is no number": pax({"mtime": b"1.5e3"}) + member("x"),
    "huge PAX header": ustar(b"pax", b"x", size=1 << 30) + bytes(4096),
    "huge GNU name": ustar(b"././@LongLink", b"L", size=1 << 33),
    "PAX without an entry": pax({"path": b"x"}),
    "PAX record too long": ustar(b"pax", b"x", size=20) + b"99 path=x\n".ljust(512, b"\0"),
    "PAX record too short": ustar(b"pax", b"x", size=10) + b"3 path=xy\n".ljust(512, b"\0"),
    "PAX record without newline": ustar(b"pax", b"x", size=9) + b"9 path=xy".ljust(512, b"\0"),
    "PAX record without key": pax({"": b"x"}) + member("x"),
    "many PAX records": pax({f"k{i}": b"" for i in range(5000)}) + member("x"),
    "many attributes": member("x", xattrs={f"user.k{i}": b"" for i in range(300)}),
    "bad checksum": ustar(b"x", b"0")[:-1] + b"x",
    "not a tar": b"#!/bin/sh\necho hello\n" * 50,
    "number that is none": ustar(b"x", b"0")[:100] + b"zzzzzzz\0" + ustar(b"x", b"0")[108:],
    "truncated header": member("x", b"1" * 600)[:300],
    "truncated data": member("x", b"1" * 600)[:700],
    "one empty block in the middle": member("x") + bytes(512) + member("y"),
    "sparse map out of order": pax({"GNU.sparse.map": b"5,1,0,1", "GNU.sparse.size": b"10"})
    + member("x", b"ab"),
    "sparse map beyond the file": pax({"GNU.sparse.map": b"5,2", "GNU.sparse.size": b"6"})
    + member("x", b"ab"),
    "sparse map without data": pax({"GNU.sparse.map": b"0,900", "GNU.sparse.size": b"900"})
    + member("x", b"ab"),
    "sparse of 8 EiB": pax({"GNU.sparse.map": b"0,2", "GNU.sparse.size": b"9000000000000000000"})
    + member("x", b"ab"),
    "sparse of 4 EiB": pax({"GNU.sparse.map": b"0,2", "GNU.sparse.size": b"4000000000000000000"})
    + member("x", b"ab"),
    "sparse map of many pieces": pax({"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0"})
    + member("x", b"99999999999\n".ljust(512, b"\0")),
    "impossible device": pax({}) + member("n", kind=b"4")[:329] + b"7777777\0" + member("n", kind=b"4")[337:],
}


@pytest.mark.parametrize("whiteouts", [True, False], ids=["layer", "archive"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused_and_reach_nothing(
    tmp_path: Path, canary: Path, case: str, whiteouts: bool
) -> None:
    before = facts(canary)
    above = set(os.listdir(tmp_path))
    if whiteouts or "whiteout" not in case:
        with pytest.raises(PybuildError) as caught:
            unpack(tmp_path, HOSTILE[case] + END, whiteouts=whiteouts)
        assert caught.value.code in {"bad-archive", "archive-escape", "path-not-found", "tree-error"}
    else:
        unpack(tmp_path, HOSTILE[case] + END, whiteouts=whiteouts)
    assert facts(canary) == before
    assert set(os.listdir(tmp_path)) - above <= {"root"}


def test_link_chains_of_the_cpython_advisories_stay_inside(tmp_path: Path, canary: Path) -> None:
    """Long paths through links, and hard links to links: what broke the standard library's filters."""
    before = facts(canary)
    comp = "d" * 247
    data, path = b"", ""
    for step in "abcdefghijklmnop":
        data += folder(path + comp) + symlink(path + step, comp)
        path += comp + "/"
    link = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    data += symlink(link, "../" * 16)
    data += symlink("escape", link + "/../../../../outside")
    data += hardlink("flaglink", "escape/file")
    with pytest.raises(PybuildError):
        unpack(tmp_path, data + END)
    more = (
        symlink("s", "../outside")
        + hardlink("h", "s")
        + member("h", b"through?")
        + symlink("q", "../outside")
    )
    root = unpack(tmp_path, more + hardlink("w", "q") + folder("w2") + member("q/file", b"inside") + END)
    assert facts(canary) == before
    assert (root / "h").read_text() == "through?"
    assert (root / "outside/file").read_text() == "inside"


def test_a_directory_replaced_by_a_link_leads_nowhere(tmp_path: Path, canary: Path) -> None:
    before = facts(canary)
    data = (
        folder("d") + member("d/a", b"1") + symlink("d", str(canary)) + member("d/file", b"evil", mode=0o777)
    )
    unpack(tmp_path, data + member("d/../../x", b"1")[:0] + END)
    data = symlink("c", str(canary)) + folder("c", mode=0o777, mtime=77)
    unpack(tmp_path, data + END)
    assert facts(canary) == before


def test_limits_are_bounds(tmp_path: Path) -> None:
    many = b"".join(member(f"f{i}") for i in range(50))
    for data, limits in (
        (many, Limits(entries=49)),
        (member("x", b"1" * 100) + member("y", b"1" * 100), Limits(total_bytes=150)),
        (member("x", b"1" * 100), Limits(file_bytes=99)),
    ):
        with pytest.raises(BadArchive):
            unpack(tmp_path, data + END, limits=limits)
    unpack(tmp_path, many + END, limits=Limits(entries=50))
    bomb = gzip.compress(member("x", bytes(30 << 20)) + END)
    with pytest.raises(CorruptData):
        unpack(tmp_path, bomb, limits=Limits(inflate=InflateLimits(ratio=50, free_bytes=1 << 20)))
    with pytest.raises(CorruptData):
        unpack(tmp_path, gzip.compress(many + END)[:-20])


def test_paths_as_deep_as_the_kernel_takes(tmp_path: Path) -> None:
    root = unpack(tmp_path, member(DEEP, b"deep") + END)
    view = View([root])
    assert view.read(DEEP, 10) == b"deep"
    assert Writer(root).remove("d")


def test_what_looks_like_an_archive(tmp_path: Path) -> None:
    """FIL-15: by content, after decompression; an empty archive is a file like any other."""
    good = member("x", b"1") + END
    assert is_archive(io.BytesIO(good))
    assert is_archive(io.BytesIO(gzip.compress(good)))
    assert not is_archive(io.BytesIO(b""))
    assert not is_archive(io.BytesIO(END))
    assert not is_archive(io.BytesIO(b"hello"))
    assert not is_archive(io.BytesIO(gzip.compress(b"hello" * 1000)))
    assert not is_archive(io.BytesIO(gzip.compress(good)[:20]))


def test_a_mutator_cannot_lead_the_extractor_outside(tmp_path: Path, canary: Path) -> None:
    """CVE-2025-47290: a directory is swapped for a link all the time while entries are made in it."""
    import threading

    before = facts(canary)
    root = root_of(tmp_path)
    (root / "d").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                os.rename(root / "d", root / "away")
                os.symlink(canary, root / "d")
                os.unlink(root / "d")
                os.rename(root / "away", root / "d")
            except OSError:
                pass

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for i in range(60):
            data = b"".join(
                folder("d/s") + member(f"d/s/f{n}", b"x", mode=0o777) + member(f"d/file{n}", b"x")
                for n in range(8)
            )
            try:
                apply(io.BytesIO(data + END), Writer(root))
            except PybuildError:
                pass
            assert facts(canary) == before, i
    finally:
        stop.set()
        thread.join()


def test_umoci_unpacks_the_same(tmp_path: Path) -> None:
    """A differential run over whiteouts, opaque directories, replaced types, links."""
    layers = [
        folder("d")
        + member("d/x", b"1", mtime=1)
        + member("d/y", b"2", mtime=2)
        + folder("usr/lib")
        + symlink("lib", "usr/lib")
        + member("hard", b"h", mtime=3)
        + hardlink("hard2", "hard", mtime=3)
        + member("t", b"file", mtime=4)
        + folder("gone/deep"),
        member("d/.wh.x")
        + member(".wh.gone")
        + folder("t")
        + member("t/n", b"5", mtime=5)
        + member("lib/z", b"z", mtime=6)
        + hardlink("again", "hard", mtime=3)
        + member("hard2", b"other", mtime=9),
        folder("d") + member("d/.wh..wh..opq") + member("d/new", b"n", mtime=7, mode=0o4711, uid=3, gid=4),
    ]
    image = tmp_path / "image"
    subprocess.run(["umoci", "init", "--layout", image], check=True)
    subprocess.run(["umoci", "new", "--image", f"{image}:x"], check=True)
    ours: list[Path] = []
    for number, layer in enumerate(layers):
        tar = tmp_path / f"{number}.tar"
        tar.write_bytes(layer + END)
        subprocess.run(["umoci", "raw", "add-layer", "--image", f"{image}:x", tar], check=True)
        upper = tmp_path / f"upper{number}"
        upper.mkdir()
        with tar.open("rb") as stream:
            apply(stream, Writer(upper, ours))
        ours.insert(0, upper)
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{image}:x", tmp_path / "theirs"], check=True)

    def looks(view: View) -> dict[str, Any]:
        return {
            path: (st.st_mode, st.st_uid, st.st_gid, view.read(path, 100) if stat.S_ISREG(st.st_mode) else b"",
                   0 if stat.S_ISDIR(st.st_mode) or stat.S_ISLNK(st.st_mode) else st.st_mtime)
            for path, st in view.walk()
        }  # fmt: skip

    assert looks(View(ours)) == looks(View([tmp_path / "theirs"]))


def test_deep_names_cost_one_look_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["/".join(["d"] * depth) for depth in range(1, 301)]
    looks: list[str] = []
    lstat = Writer.lstat

    def counted(self: Writer, path: str) -> os.stat_result | None:
        looks.append(path)
        return lstat(self, path)

    monkeypatch.setattr(Writer, "lstat", counted)
    with Writer(tmp_path) as writer:
        apply(io.BytesIO(b"".join(map(folder, names)) + END), writer)
        assert len(looks) < 10 * len(names)
        assert writer.lstat(names[-1]) is not None


def test_a_link_below_a_known_parent_is_still_followed(tmp_path: Path) -> None:
    data = folder("a") + member("a/f") + symlink("a/l", "/b") + folder("b") + member("a/l/x", b"1") + END
    with Writer(tmp_path) as writer:
        apply(io.BytesIO(data), writer)
    assert (tmp_path / "b/x").read_bytes() == b"1"
