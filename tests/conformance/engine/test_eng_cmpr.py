"""Compression of layers (CMPR rows); eStargz is checked by a reader of its own."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder import images
from builder.errors import UsageError
from builder.exporter.image import clean_layer
from builder.exporter.types import OutputSpec
from builder.images.select import platform_manifest
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from tests.support.buildlab import Built, Lab
from tests.support.peers import skopeo
from tests.support.rows import row

pytestmark = pytest.mark.root
OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
TEXT = (
    "FROM busybox\nCOPY f big /d/\nRUN ln /d/f /d/hard && ln -s f /d/soft && mkfifo /d/p && touch /d/empty\n"
)


@pytest.fixture(scope="module")
def context(lab: Lab) -> Path:
    return lab.context({"Dockerfile": TEXT, "f": "some text\n" * 99, "big": os.urandom(10) * 900_000})


def built(lab: Lab, context: Path | str, spec: str, **more: Any) -> Built:
    return Built(lab, lab.build(context, outputs=(OutputSpec.parse(spec),), **more))


def blob(lab: Lab, descriptor: Descriptor) -> bytes:
    with lab.store.blobs.open(descriptor.digest) as file:
        return file.read()


def plain(media_type: str, data: bytes) -> bytes:
    if media_type.endswith("gzip"):
        return gzip.decompress(data)
    if media_type.endswith("zstd"):
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    return data


@row("CMPR-01", "CMPR-02")
@pytest.mark.parametrize(
    ("spec", "base", "own"),
    [
        ("", f"{OCI}+gzip", f"{OCI}+gzip"),
        (",compression=uncompressed", f"{OCI}+gzip", OCI),
        (",compression=zstd,compression-level=19", f"{OCI}+gzip", f"{OCI}+zstd"),
        (",compression=zstd,force-compression=true", f"{OCI}+zstd", f"{OCI}+zstd"),
        (",compression=uncompressed,force-compression", OCI, OCI),
        (",compression=estargz,force-compression", f"{OCI}+gzip", f"{OCI}+gzip"),
        (",oci-mediatypes=false", f"{DOCKER}.gzip", f"{DOCKER}.gzip"),
        (",oci-mediatypes=false,compression=uncompressed", f"{DOCKER}.gzip", DOCKER),
    ],
)
def test_media_types(lab: Lab, context: Path, spec: str, base: str, own: str) -> None:
    made = built(lab, context, f"type=image{spec}")
    layers = made.found.manifest.layers
    assert [layer.media_type for layer in layers] == [base, own, own]
    for layer, diff_id in zip(layers, made.config.diff_ids, strict=True):
        assert (
            str(diff_id) == "sha256:" + hashlib.sha256(plain(layer.media_type, blob(lab, layer))).hexdigest()
        )


@row("CMPR-01")
def test_forced_layers_keep_their_tar(lab: Lab, context: Path) -> None:
    before = built(lab, context, "type=image")
    forced = built(lab, context, "type=image,compression=zstd,force-compression=true")
    assert forced.config.diff_ids == before.config.diff_ids
    again = built(lab, context, "type=image,compression=gzip")
    assert again.found.manifest.layers == before.found.manifest.layers, "and are not taken where nobody asked"
    same = built(lab, context, "type=image,compression=gzip,force-compression=true")
    assert same.found.manifest.layers[0] == before.found.manifest.layers[0], "it is as asked for already"


@row("CMPR-01")
def test_levels(lab: Lab, context: Path) -> None:
    sizes = [
        built(lab, context, f"type=image,compression-level={n}").found.manifest.layers[1].size
        for n in (0, 1, 9)
    ]
    assert sizes[0] > sizes[1] > sizes[2]
    for bad in (
        "gzip,compression-level=10",
        "estargz,compression-level=-1",
        "zstd,compression-level=23",
        "lz4",
    ):
        with pytest.raises(UsageError):
            OutputSpec.parse(f"type=image,compression={bad}")
    for name in ("zstd", "estargz"):
        wanted = f'exporter option "compression={name}" conflicts with "oci-mediatypes=false"'
        with pytest.raises(UsageError, match=wanted):
            OutputSpec.parse(f"type=image,compression={name},oci-mediatypes=false")


class Stargz:
    """A reader of eStargz after its published description, with gzip, tar and json alone."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        tail = data[-51:]
        assert tail[:10] == b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"
        assert tail[10:16] == b"\x1a\0SG\x16\0"
        assert tail[32:38] == b"STARGZ"
        assert gzip.decompress(tail) == b""
        self.toc_at = int(tail[16:32], 16)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data[self.toc_at : -51]))) as tar:
            (member,) = tar.getmembers()
            assert member.name == "stargz.index.json"
            self.toc_bytes = tar.extractfile(member).read()  # type: ignore[union-attr]
        toc = json.loads(self.toc_bytes)
        assert toc["version"] == 1
        self.entries: list[dict[str, Any]] = toc["entries"]

    def content(self, name: str) -> bytes:
        """A file, read through the table only, each chunk checked."""
        chunks = [
            entry for entry in self.entries if entry["name"] == name and entry["type"] in ("reg", "chunk")
        ]
        size, out = chunks[0].get("size", 0), b""
        for chunk in chunks if size else ():
            assert chunk.get("chunkOffset", 0) == len(out)
            length = chunk.get("chunkSize") or size - len(out)
            piece = zlib.decompressobj(31).decompress(self.data[chunk["offset"] :], length)
            assert len(piece) == length
            assert chunk["chunkDigest"] == "sha256:" + hashlib.sha256(piece).hexdigest()
            out += piece
        assert chunks[0]["digest"] == "sha256:" + hashlib.sha256(out).hexdigest()
        return out


@row("CMPR-01")
def test_estargz(lab: Lab, context: Path, tmp_path: Path) -> None:
    made = built(lab, context, "type=image,compression=estargz")
    copied, ran = made.found.manifest.layers[1:]
    data = blob(lab, copied)
    read = Stargz(data)
    assert dict(copied.annotations)[TOC_DIGEST] == "sha256:" + hashlib.sha256(read.toc_bytes).hexdigest()
    whole = gzip.decompress(data)
    assert dict(copied.annotations)["io.containers.estargz.uncompressed-size"] == str(len(whole))
    assert str(made.config.diff_ids[1]) == "sha256:" + hashlib.sha256(whole).hexdigest()
    assert read.content("d/big") == (context / "big").read_bytes()
    assert [entry["type"] for entry in read.entries if entry["name"] == "d/big"] == ["reg", "chunk", "chunk"]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        names = [member.name for member in tar.getmembers()]
        assert names == ["d", "d/big", "d/f"], "a tar reader does not see the table"
        f = tar.getmember("d/f")
    entry = next(entry for entry in read.entries if entry["name"] == "d/f")
    assert (entry["mode"], entry["size"], entry.get("uid", 0)) == (f.mode, f.size, f.uid)
    kinds = {entry["name"]: entry for entry in Stargz(blob(lab, ran)).entries}
    assert {kinds[f"d/{name}"]["type"] for name in ("hard", "f")} == {"reg", "hardlink"}
    assert (kinds["d/soft"]["type"], kinds["d/soft"]["linkName"]) == ("symlink", "f")
    assert (kinds["d/p"]["type"], kinds["d/"]["type"]) == ("fifo", "dir")
    assert Stargz(blob(lab, ran)).content("d/empty") == b""
    archive = tmp_path / "e.tar"
    lab.build(
        context, outputs=(OutputSpec.parse(f"type=oci,dest={archive},compression=estargz"),), tags=("e:1",)
    )
    skopeo("copy", f"oci-archive:{archive}", f"dir:{tmp_path / 'copied'}")


@row("CMPR-01")
def test_attributes_and_devices_in_the_table(tmp_path: Path) -> None:
    from builder.cache.compression import appended_by, compressor
    from builder.cache.differ import changes
    from builder.cache.layer import pack
    from builder.cache.tree import View

    (tmp_path / "f").write_text("x" * 600)
    os.setxattr(tmp_path / "f", "user.k", b"\0v")
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    out, packer = io.BytesIO(), compressor("estargz", 1)
    with View([tmp_path]) as view:
        pack(changes(tmp_path), view, out.write)
    data = b"".join(packer.compress(out.getvalue()[at : at + 100]) for at in range(0, out.tell(), 100))
    data += packer.flush()
    assert gzip.decompress(data) == out.getvalue() + appended_by(packer)
    found = {entry["name"]: entry for entry in Stargz(data).entries}
    assert found["f"]["xattrs"] == {"user.k": base64.b64encode(b"\0v").decode()}
    assert (found["null"]["type"], found["null"]["devMajor"], found["null"]["devMinor"]) == ("char", 1, 3)
    assert Stargz(data).content("f") == b"x" * 600


@row("CMPR-01", "EXP-14")
def test_an_estargz_base_stays_one(lab: Lab, context: Path) -> None:
    base = built(lab, context, "type=image,name=stargz-base,compression=estargz,force-compression")
    with lab.store.hold() as hold:
        images.unpack(lab.store, base.found.descriptor, hold)
    over = lab.quick(
        "FROM stargz-base\nRUN touch /x\n",
        outputs=(OutputSpec.parse("type=image,compression=estargz,force-compression"),),
    )
    assert over.found.manifest.layers[:3] == base.found.manifest.layers


@row("CMPR-01", "EXP-14")
def test_outputs_of_one_build_have_their_own_compression_each_and_the_base_keeps_its_own(
    lab: Lab, tmp_path: Path
) -> None:
    """Even where another image has the same layers in another compression, and was here first."""
    text = "FROM busybox\nRUN echo kept > /kept\n"
    specs = [OutputSpec.parse(f"type=image,name=kept-{kind},compression={kind}") for kind in ("gzip", "zstd")]
    built_as = {}
    for spec in specs:
        built_as[spec.compression] = lab.quick(text, outputs=(spec,)).found.manifest.layers
    assert built_as["gzip"][1] != built_as["zstd"][1]

    def layers(kind: str, *texts: str) -> list[tuple[Any, ...]]:
        made = lab.quick(f"FROM kept-{kind}\nRUN echo {kind} {len(texts)} > /own\n",
                         outputs=tuple(map(OutputSpec.parse, texts)))  # fmt: skip
        names = [
            dict(spec.split("=", 1) for spec in item.split(",") if "=" in spec)["name"] for item in texts
        ]
        assert made.result.names == tuple(f"docker.io/library/{name}:latest" for name in names)
        images_ = [lab.store.images.resolve(name) for name in names]
        return [
            platform_manifest(lab.store, item.manifest, None, "").manifest.layers for item in images_ if item
        ]

    for kind in ("zstd", "gzip", "zstd"):
        one, two, forced = layers(
            kind, "type=image,name=o1,compression=gzip", "type=image,name=o2,compression=zstd",
            "type=image,name=o3,compression=zstd,force-compression=true",
        )  # fmt: skip
        assert one[:2] == two[:2] == built_as[kind], "the blobs of the base that was named"
        assert [layer.media_type.rpartition("+")[2] for layer in (one[2], two[2])] == ["gzip", "zstd"]
        assert {layer.media_type.rpartition("+")[2] for layer in forced} == {"zstd"}
        assert forced[1] == built_as["zstd"][1]
        assert forced[2] == two[2]


@row("CMPR-02")
@pytest.mark.parametrize(
    ("prefer", "oci", "wanted", "urls"),
    [
        (False, True, f"{OCI}+gzip", ()),
        (False, False, f"{DOCKER}.gzip", ()),
        (True, True, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", ("http://x/y",)),
        (True, False, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", ("http://x/y",)),
    ],
)
def test_layers_that_are_not_distributed(prefer: bool, oci: bool, wanted: str, urls: tuple[str, ...]) -> None:
    for kind in ("oci.image.layer.nondistributable.v1.tar+gzip", "docker.image.rootfs.foreign.diff.tar.gzip"):
        layer = Descriptor(
            media_type=f"application/vnd.{kind}", digest=Digest.of(b""), size=1, urls=("http://x/y",)
        )
        made = clean_layer(layer, oci=oci, nondist=prefer)
        assert (made.media_type, made.urls) == (wanted, urls)


@row("CMPR-02", "EXP-03")
def test_a_base_that_is_not_distributed(lab: Lab) -> None:
    base = lab.quick("FROM busybox\nRUN echo foreign > /f\n")
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    manifest = base.found.manifest
    layer = replace(manifest.layers[1], media_type=foreign, urls=("http://127.0.0.1:9/f",))
    document = replace(manifest, layers=(manifest.layers[0], layer)).to_bytes()
    (digest,) = lab.store.blobs.put_many((document,))
    lab.store.images.tag("foreign", replace(base.found.descriptor, digest=digest, size=len(document)))
    text = "FROM foreign\nRUN touch /new\n"
    ordinary, kept = (
        lab.quick(text, outputs=(OutputSpec.parse(f"type=image{more}"),)).found.manifest.layers[1]
        for more in ("", ",prefer-nondist-layers=true")
    )
    assert (ordinary.media_type, ordinary.urls) == (f"{OCI}+gzip", ())
    assert kept.media_type == "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    assert kept.urls == ("http://127.0.0.1:9/f",)


@row("CMPR-03")
def test_notes_of_our_own_are_not_published(lab: Lab, context: Path) -> None:
    for layer in built(lab, context, "type=image,compression=estargz").found.manifest.layers:
        assert not [
            key for key, _ in layer.annotations if key.startswith(("buildkit/", "containerd.io/uncompressed"))
        ]
    own = (
        ("containerd.io/uncompressed", "a"),
        ("buildkit/createdat", "b"),
        ("containerd.io/distribution.source.x", "c"),
    )
    dirty = Descriptor(media_type=OCI, digest=Digest.of(b""), size=0, annotations=(*own, ("k", "v")))
    assert clean_layer(dirty, oci=True).annotations == (("k", "v"),)


@row("CMPR-04")
def test_layers_are_compressed_once(lab: Lab, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from builder.build import layers

    specs = ("gzip", "zstd", "estargz", "uncompressed")
    first = [built(lab, context, f"type=image,compression={name},force-compression") for name in specs]

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("packed again")

    monkeypatch.setattr(layers, "pack_snapshot", never)
    again = [built(lab, context, f"type=image,compression={name},force-compression") for name in specs]
    assert [one.result.digest for one in first] == [one.result.digest for one in again]
    assert len({one.result.digest for one in first}) == 4, "all are kept side by side"


@row("CMPR-04")
def test_stable_gzip(lab: Lab, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "text" * 999})
    other = Lab(tmp_path)
    try:
        one, two = (Built(at, at.build(context)).found.manifest.layers[0] for at in (lab, other))
        assert one == two
        head = blob(lab, one)[:10]
        assert head[3] == 0, "no name in the header"
        assert head[4:8] == bytes(4), "no time"
    finally:
        other.close()
