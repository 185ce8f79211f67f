"""Layers (LAY rows), looked at with tarfile only; LAY-09 takes layers that tarfile wrote."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.cache.differ import changes, compare
from builder.cache.extract import apply
from builder.cache.layer import pack
from builder.cache.pack import pack_layer
from builder.cache.tarfields import BadArchive
from builder.cache.tree import TreeError, View
from builder.cache.treewriter import Writer
from builder.exporter.types import OutputSpec
from builder.oci.digest import ChainId, DiffId, Digest, chain_ids
from tests.support.buildlab import Built, Lab
from tests.support.rows import row

pytestmark = pytest.mark.root


def layer_of(lab: Lab, built: Built, number: int = -1) -> list[tarfile.TarInfo]:
    descriptor = built.found.manifest.layers[number]
    with lab.store.blobs.open(descriptor.digest) as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
        return tar.getmembers()


def run(lab: Lab, command: str, base: str = "busybox", **more: Any) -> list[tarfile.TarInfo]:
    return layer_of(lab, lab.quick(f"FROM {base}\nRUN {command}\n", **more))


def packed(source: View, found: Any, **more: Any) -> bytes:
    out = io.BytesIO()
    pack(found, source, out.write, **more)
    return out.getvalue()


def tar_of(*members: tuple[str, bytes | str, dict[str, Any]]) -> bytes:
    """(name, type, fields) each; ``data`` among the fields is content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, fields in members:
            info = tarfile.TarInfo(name)
            data = fields.pop("data", b"")
            info.type, info.size = kind, len(data)  # type: ignore[assignment]
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def applied(tar: bytes, root: Path) -> None:
    with Writer(root) as writer:
        apply(io.BytesIO(tar), writer)


@row("LAY-01")
def test_what_a_layer_lists(lab: Lab) -> None:
    first = "FROM busybox AS a\nRUN mkdir -p /d/sub /e && echo 1 > /d/f && echo 1 > /d/sub/f && echo 1 > /e/gone\nFROM a\n"
    built = lab.quick(first + "RUN echo 2 > /d/sub/f && rm /e/gone && echo n > /d/new && mkdir /d/sub.d\n")
    assert [member.name for member in layer_of(lab, built)] == [
        "d",
        "d/new",
        "d/sub",
        "d/sub/f",
        "d/sub.d",
        "e",
        "e/.wh.gone",
    ]
    built = lab.quick(first + "RUN chmod 700 /d/f\n")
    assert [member.name for member in layer_of(lab, built)] == ["d", "d/f"], "parents, each once and before"


@row("LAY-01", "BET-04")
def test_the_root_directory(lab: Lab) -> None:
    text = "FROM busybox\nRUN chmod 711 / && chown 3:4 / && touch /f\nRUN touch /g\n"
    built = lab.quick(text)
    (root, _), (later,) = layer_of(lab, built, -2), layer_of(lab, built)
    assert (root.name, root.isdir(), root.mode, root.uid, root.gid) == (".", True, 0o711, 3, 4)
    assert later.name == "g", "only where it changed"
    exact = lab.quick(text, outputs=(OutputSpec.parse("type=image,buildkit-layers=true"),))
    assert [member.name for member in layer_of(lab, exact, -2)] == ["f"], (
        "chmod / is lost, as in the reference"
    )
    with built.tree() as view:
        st = view.lstat("")
    assert st is not None
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o711, 3, 4)


@row("LAY-02")
def test_an_upper_directory(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for path in (lower / "o", lower / "same", upper / "o", upper / "same"):
        path.mkdir(parents=True)
    for name in ("o/kept", "o/lost", "same/f", "gone", "touched"):
        (lower / name).write_text("text")
        os.utime(lower / name, (5, 5))
    for name in ("o/kept", "same/f", "touched"):
        (upper / name).write_text("text")
        os.utime(upper / name, (5, 5) if name != "touched" else (6, 6))
    os.setxattr(upper / "o", "trusted.overlay.opaque", b"y")
    for name in ("gone", "never-was"):
        os.mknod(upper / name, stat.S_IFCHR, 0)
    found = [(change.path, change.kind) for change in changes(upper, [lower])]
    assert found == [("gone", "delete"), ("o/lost", "delete"), ("touched", "modify")]
    with View([lower]) as old, View([upper, lower]) as new:
        assert [(change.path, change.kind) for change in compare(old, new)] == found, (
            "the two-tree comparison"
        )


@row("LAY-02")
def test_a_native_store_makes_the_same_layers(lab: Lab, tmp_path: Path) -> None:
    text = "FROM scratch AS a\nCOPY . /x/\nFROM a\nCOPY f /x/sub/\nCOPY f /y\n"
    files = {"f": "1", "sub/g": "2"}
    native = Lab(tmp_path, "native")
    try:
        context = lab.context(files)
        clamped = OutputSpec.parse("type=image,source-date-epoch=1600000000,rewrite-timestamp=true")
        one, two = (Built(each, each.build(context, text, outputs=(clamped,))) for each in (lab, native))
        assert one.found.manifest.layers == two.found.manifest.layers
    finally:
        native.close()


@row("LAY-03")
def test_headers(lab: Lab, tmp_path: Path) -> None:
    root = tmp_path / "t"
    (root / "d").mkdir(parents=True)
    (root / "d/f").write_text("x")
    os.chown(root / "d/f", 7, 4_000_000)
    os.chmod(root / "d/f", 0o6751)
    os.chmod(root / "d", 0o1777)
    os.utime(root / "d/f", ns=(1, 1_999_999_999))
    os.symlink("/abs/../x", root / "l")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(root / "p")
    (root / ("n" * 120)).write_text("")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "s"))
    with View([root]) as view:
        data = packed(view, changes(root))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {member.name: member for member in tar.getmembers()}
    assert set(found) == {"d", "d/f", "l", "null", "p", "n" * 120}
    f = found["d/f"]
    assert (f.mode, f.uid, f.gid, f.uname, f.gname, f.mtime) == (0o6751, 7, 4_000_000, "", "", 1)
    assert found["d"].mode == 0o1777
    assert found["l"].linkname == "/abs/../x"
    assert (found["null"].ischr(), found["null"].devmajor, found["null"].devminor) == (True, 1, 3)
    assert found["p"].isfifo()
    for member in found.values():
        assert not {"atime", "ctime", "uname", "gname", "mtime"} & set(member.pax_headers)
    assert found["n" * 120].pax_headers == {"path": "n" * 120}
    assert data[:2] == b"d/" and data[257:263] == b"ustar\0"
    assert b"GNU" not in data


@row("LAY-04")
def test_hard_links(lab: Lab) -> None:
    found = {member.name: member for member in run(lab, "echo x > /b && ln /b /a && ln /b /c")}
    assert found["a"].isreg() and found["a"].size == 2
    assert [(found[name].islnk(), found[name].linkname) for name in ("b", "c")] == [(True, "a")] * 2


@row("LAY-04")
def test_an_unchanged_name_of_a_changed_file(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for root in (old, new):
        root.mkdir()
        for name in ("a", "other"):
            (root / name).write_text("1")
            os.utime(root / name, (5, 5))
        os.link(root / "a", root / "b")
        os.link(root / "other", root / "other2")
    os.link(new / "a", new / "c")
    with View([old]) as before, View([new]) as after:
        found = compare(before, after)
        assert [(c.path, c.kind) for c in found] == [("a", "unchanged"), ("b", "unchanged"), ("c", "add")]
        with tarfile.open(fileobj=io.BytesIO(packed(after, found))) as tar:
            assert [(m.name, m.linkname) for m in tar] == [("a", ""), ("b", "a"), ("c", "a")]


@row("LAY-05", "BET-04")
def test_attributes(lab: Lab, tmp_path: Path) -> None:
    upper = tmp_path / "u"
    upper.mkdir()
    (upper / "f").write_text("x")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(upper / "f", "security.capability", capability)
    os.setxattr(upper / "f", "user.own", b"\0value")
    os.setxattr(upper / "f", "trusted.x", b"no")

    def headers(**more: Any) -> dict[str, str]:
        made = pack_layer(lab.store.blobs, upper, compression="uncompressed", **more)
        with lab.store.blobs.open(made.descriptor.digest) as file, tarfile.open(fileobj=file) as tar:
            return dict(tar.getmember("f").pax_headers)

    known = {"SCHILY.xattr.security.capability"}
    assert set(headers()) == known | {"SCHILY.xattr.user.own"}
    assert set(headers(user_xattrs=False)) == known, "to the byte as the reference"
    target = tmp_path / "t"
    target.mkdir()
    with View([upper]) as view:
        applied(packed(view, changes(upper)), target)
    assert os.getxattr(target / "f", "user.own") == b"\0value"
    assert os.getxattr(target / "f", "security.capability") == capability


@row("LAY-05", "BET-04")
def test_attributes_of_a_build(lab: Lab) -> None:
    context = lab.context({"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "x"})
    os.setxattr(context / "f", "user.own", b"v")
    kept = {}
    for spec in ("type=image", "type=image,buildkit-layers=true"):
        built = Built(lab, lab.build(context, outputs=(OutputSpec.parse(spec),)))
        (member,) = layer_of(lab, built)
        kept[spec] = set(member.pax_headers)
    assert not kept["type=image,buildkit-layers=true"]
    with View(lab.store.snapshots.layers(lab.store.snapshots.list()[-1].id)) as view:
        in_the_tree = view.lstat("f") is not None and "user.own" in view.xattrs("f")
    assert ("SCHILY.xattr.user.own" in kept["type=image"]) == in_the_tree, "what the build has, the layer has"


@row("LAY-06")
def test_whiteouts(lab: Lab, tmp_path: Path) -> None:
    (etc, gone) = run(lab, "rm -r /etc/passwd")
    assert (gone.name, gone.size, gone.mode, gone.mtime, gone.isreg()) == ("etc/.wh.passwd", 0, 0, 0, True)
    assert etc.name == "etc"
    text = "FROM busybox\nRUN mkdir /d && touch /d/1 /d/2\nRUN rm -r /d && mkdir /d && touch /d/3\n"
    names = [member.name for member in layer_of(lab, lab.quick(text))]
    assert [name for name in names if name != "d"] == ["d/.wh.1", "d/.wh.2", "d/3"], "no opaque marker"
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/old").write_text("")
    applied(tar_of(("d/new", b"0", {}), ("d/.wh..wh..opq", b"0", {})), tmp_path)
    assert os.listdir(tmp_path / "d") == ["new"], "but it is understood"


@row("LAY-06")
def test_a_file_with_the_name_of_a_whiteout(lab: Lab) -> None:
    with pytest.raises(TreeError, match=r'"/etc/\.wh\.passwd": a layer cannot hold this name') as caught:
        lab.quick("FROM busybox\nRUN touch /etc/.wh.passwd\n")
    assert caught.value.code == "whiteout-name"
    long = "z" * 255
    names = [m.name for m in layer_of(lab, lab.quick(f"FROM busybox\nRUN touch /{long}\nRUN rm /{long}\n"))]
    assert names == [f".wh.{long}"]


@row("LAY-07")
def test_nothing_changed(lab: Lab) -> None:
    built = lab.quick("FROM busybox\nRUN true\n")
    assert built.layers == 2
    assert str(built.config.diff_ids[-1]) == "sha256:" + hashlib.sha256(bytes(1024)).hexdigest()
    assert layer_of(lab, built) == []


@row("LAY-08")
def test_sparse_files_and_large_values(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        file.truncate(3_000_000)
        file.write(b"x")
    os.chown(tmp_path / "f", 1 << 31, 1 << 22)
    with View([tmp_path]) as view:
        data = packed(view, changes(tmp_path))
    assert len(data) > 3_000_000
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.getmember("f")
        assert not member.issparse()
        assert (member.size, member.uid, member.gid) == (3_000_000, 1 << 31, 1 << 22)
        assert member.pax_headers == {"uid": str(1 << 31), "gid": str(1 << 22)}


@row("LAY-09")
def test_applying(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "was-dir/x").mkdir(parents=True)
    (root / "dir").mkdir(mode=0o700)
    (root / "dir/kept").write_text("kept")
    (root / "was-file").write_text("1")
    (root / "gone").write_text("1")
    outside.mkdir()
    os.symlink(outside, root / "out")
    os.symlink("/dir", root / "in")
    xattr = {"pax_headers": {"SCHILY.xattr.user.a": "b", "SCHILY.xattr.trusted.c": "d"}}
    applied(
        tar_of(
            ("./new/deep/f", b"0", {"data": b"x", "mode": 0o4711, "uid": 5, "gid": 6, "mtime": 9, **xattr}),
            ("was-dir", b"0", {"data": b"y"}),
            ("was-file", b"5", {"mode": 0o755}),
            ("dir/", b"5", {"mode": 0o751, "uid": 3, "mtime": 7}),
            ("dir/more", b"0", {}),
            ("in/through", b"0", {}),
            ("out/stays", b"0", {}),
            (".wh.gone", b"0", {}),
            ("hard", b"1", {"linkname": "/new/deep/f", "mode": 0o4711, "uid": 5, "gid": 6}),
            (".wh..wh.plnk/x", b"0", {}),
        ),
        root,
    )
    f = (root / "new/deep/f").stat()
    assert (stat.S_IMODE(f.st_mode), f.st_uid, f.st_gid, f.st_nlink) == (0o4711, 5, 6, 2)
    assert os.getxattr(root / "new/deep/f", "user.a") == b"b"
    assert os.getxattr(root / "new/deep/f", "trusted.c") == b"d"
    assert stat.S_IMODE((root / "new").stat().st_mode) == 0o755, "missing parents"
    assert (root / "was-dir").read_text() == "y" and (root / "was-file").is_dir()
    d = (root / "dir").stat()
    assert (stat.S_IMODE(d.st_mode), d.st_uid, d.st_mtime) == (0o751, 3, 7), "times of directories come last"
    assert sorted(os.listdir(root / "dir")) == ["kept", "more", "through"]
    assert not list(outside.iterdir()), "links stay inside"
    assert not (root / "gone").exists()
    assert not [name for name in os.listdir(root) if name.startswith(".wh")]


@row("LAY-09")
@pytest.mark.parametrize(
    "member",
    [("../f", b"0", {}), ("h", b"1", {"linkname": "../../etc/passwd"}), ("h", b"1", {"linkname": "no"}), (".wh...", b"0", {})],
)  # fmt: skip
def test_what_leads_outside(tmp_path: Path, member: tuple[str, bytes, dict[str, Any]]) -> None:
    with pytest.raises(BadArchive):
        applied(tar_of(member), tmp_path)
    assert not list(tmp_path.iterdir())


@row("LAY-09")
def test_a_missing_parent_is_copied_from_below(lab: Lab, tmp_path: Path) -> None:
    """A layer that lists no parents leaves those of the lower layer as they are."""
    base = lab.quick("FROM busybox\nRUN mkdir -m 711 /p && chown 8:9 /p\n", tags=("parents",))
    upper = tmp_path / "upper"
    upper.mkdir()
    with base.tree() as view, Writer(upper, view.layers) as writer:
        apply(io.BytesIO(tar_of(("p/f", b"0", {"data": b"1"}))), writer)
    st = (upper / "p").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o711, 8, 9)


@row("LAY-10")
def test_diff_ids_and_chain_ids(lab: Lab) -> None:
    built = lab.quick("FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n")
    ids = []
    for descriptor in built.found.manifest.layers:
        with lab.store.blobs.open(descriptor.digest) as file:
            ids.append("sha256:" + hashlib.sha256(gzip.decompress(file.read())).hexdigest())
    assert list(map(str, built.config.diff_ids)) == ids
    chain = ids[0]
    for one in ids[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {one}".encode()).hexdigest()
    diffs = tuple(DiffId(Digest.parse(one)) for one in ids)
    assert chain_ids(diffs)[-1] == ChainId(Digest.parse(chain))
