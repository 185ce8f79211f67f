"""Exports of a small image to every kind of output (EXO, EXL, RPR-02)."""

from __future__ import annotations

import fcntl
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import images
from builder.cache.store import Store
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.cancelling import Cancel, within
from builder.errors import Cancelled, ExportError, PybuildError, UsageError
from builder.exporter.run import export
from builder.exporter.trees import _Copier, lock_name
from builder.exporter.types import BuiltImage, ExportResult, OutputSpec
from builder.oci.platform import Platform, host_platform
from builder.solver.progress import Event, StatusEvent
from tests.support.registry import running_registry
from tests.support.storeimages import NOW_NS, make_image

ARM = Platform("linux", "arm64")
FILES: tuple[dict[str, bytes], ...] = ({"etc/a": b"1", "b": bytes(200_000)}, {"etc/c": b"3"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root") as opened:
        yield opened


def built(store: Store, base: Path, platform: Platform | None = None, **options: object) -> BuiltImage:
    image = make_image(store, base, platform=platform, **{"layers": FILES, **options})  # type: ignore[arg-type]
    with store.hold() as hold:
        snapshot = images.unpack(store, image.manifest, hold)
    return BuiltImage(
        platform=platform or host_platform(),
        config=image.image_config,
        layers=image.layers,
        snapshot=snapshot,
    )


def run(store: Store, found: BuiltImage | list[BuiltImage], text: str, **options: object) -> ExportResult:
    listed = found if isinstance(found, list) else [found]
    return export(store, listed, OutputSpec.parse(text), now_ns=NOW_NS, **options)  # type: ignore[arg-type]


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_image_output_names_and_answers(store: Store, tmp_path: Path) -> None:
    """EXP-04"""
    events: list[Event] = []
    result = run(store, built(store, tmp_path), "type=image,name=x:1,name-canonical", on_event=events.append)
    assert result.root is not None
    assert images.find(store, "x:1").id == result.images[0].config_digest
    response = dict(result.response)
    assert response["containerimage.digest"] == str(result.root.digest)
    assert response["image.name"] == f"docker.io/library/x:1,docker.io/library/x@{result.root.digest}"
    ids = [event.id for event in events if isinstance(event, StatusEvent)]
    assert "exporting layers" in ids
    assert "naming to docker.io/library/x:1" in ids
    nameless = run(store, built(store, tmp_path, layers=({"z": b"z"},)), "type=image")
    assert store.images.resolve(str(nameless.images[0].config_digest)) is not None


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_archives_are_equal_and_in_order(store: Store, tmp_path: Path, kind: str) -> None:
    """EXO-01…EXO-03"""
    found = built(store, tmp_path)
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    for path in (first, second):
        run(store, found, f'type={kind},dest={path},"name=x:1,y"')
    assert first.read_bytes() == second.read_bytes()
    seen = members(first.read_bytes())
    blobs = [name for name in seen if name.startswith("blobs/sha256/")]
    assert list(seen)[:2] == ["blobs", "blobs/sha256"]
    assert blobs == sorted(blobs)
    assert all(member.mtime == 0 and member.uid == 0 for member in seen.values())
    with tarfile.open(first) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        assert json.load(tar.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}  # type: ignore[arg-type]
        annotations = [entry["annotations"] for entry in index["manifests"]]
        assert [a["io.containerd.image.name"] for a in annotations] == [
            "docker.io/library/x:1",
            "docker.io/library/y:latest",
        ]
        assert [a["org.opencontainers.image.ref.name"] for a in annotations] == ["1", "latest"]
        assert all(a["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z" for a in annotations)
        assert ("manifest.json" in seen) == (kind == "docker")
        if kind == "docker":
            (row,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            assert row["RepoTags"] == ["x:1", "y:latest"]
            assert all(name in seen for name in (row["Config"], *row["Layers"]))


def test_directory_form_is_added_to(store: Store, tmp_path: Path) -> None:
    """EXO-04"""
    dest = tmp_path / "layout"
    run(store, built(store, tmp_path), f"type=oci,dest={dest},tar=false,name=x:1")
    run(store, built(store, tmp_path, layers=({"q": b"q"},)), f"type=oci,dest={dest},tar=false")
    run(store, built(store, tmp_path, layers=({"r": b"r"},)), f"type=oci,dest={dest},tar=false,name=x:1")
    index = json.loads((dest / "index.json").read_text())
    assert [e["annotations"]["org.opencontainers.image.ref.name"] for e in index["manifests"]] == [
        "latest",
        "1",
    ]
    for entry in index["manifests"]:
        assert (dest / "blobs/sha256" / entry["digest"].removeprefix("sha256:")).exists()
    assert list(dest.rglob(".*")) == []


def test_failed_archive_leaves_the_old_file(store: Store, tmp_path: Path) -> None:
    found = built(store, tmp_path)
    dest = tmp_path / "x.tar"
    dest.write_text("old")
    store.blobs.delete(found.layers[0].descriptor.digest)
    with pytest.raises(PybuildError):
        run(store, found, f"type=oci,dest={dest}")
    assert dest.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir() if "x.tar" in path.name) == ["x.tar"]


def test_archive_destinations(store: Store, tmp_path: Path) -> None:
    """EXO-05"""
    found = built(store, tmp_path)

    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    out = io.BytesIO()
    run(store, found, "type=oci,dest=-", stdout=out)
    assert "index.json" in members(out.getvalue())
    with pytest.raises(UsageError, match="terminal"):
        run(store, found, "type=oci,dest=-", stdout=Terminal())
    with pytest.raises(UsageError, match="directory"):
        run(store, found, f"type=oci,dest={tmp_path}")
    with pytest.raises(ExportError):
        run(store, found, f"type=oci,dest={tmp_path}/no/such/file")
    if os.path.exists("/dev/full"):
        with pytest.raises(ExportError, match="No space"):
            run(store, found, "type=oci,dest=/dev/full")


def test_docker_archive_of_two_platforms_is_refused(store: Store, tmp_path: Path) -> None:
    two = [built(store, tmp_path), built(store, tmp_path, ARM)]
    with pytest.raises(ExportError, match="manifest lists"):
        run(store, two, f"type=docker,dest={tmp_path}/x")
    result = run(store, two, f"type=oci,dest={tmp_path}/y")
    assert "containerimage.config.digest" not in dict(result.response)


def test_local_output_keeps_modes_times_and_links(store: Store, tmp_path: Path) -> None:
    """EXL-01"""
    source = tmp_path / "tree"
    (source / "d").mkdir(parents=True)
    (source / "d/run").write_bytes(b"#!")
    (source / "d/run").chmod(0o4755)
    os.utime(source / "d/run", ns=(10**18, 10**18))
    os.link(source / "d/run", source / "d/twin")
    (source / "link").symlink_to("/etc/passwd")
    os.link(source / "link", source / "link2", follow_symlinks=False)
    (source / "d").chmod(0o711)
    from builder.cache.pack import pack_layer
    from builder.exporter.image import assemble
    from builder.exporter.types import LayerRef
    from builder.oci.config import ImageConfig

    packed = pack_layer(store.blobs, source)
    layer = LayerRef(diff_id=packed.diff_id, descriptor=packed.descriptor)
    image = assemble(store, ImageConfig(platform=host_platform()), (layer,))
    with store.hold() as hold:
        snapshot = images.unpack(store, image.manifest, hold)
    found = BuiltImage(
        platform=host_platform(), config=image.image_config, layers=(layer,), snapshot=snapshot
    )
    dest = tmp_path / "out"
    dest.mkdir()
    (dest / "other").write_text("kept")
    (dest / "d").write_text("in the way")
    outside = tmp_path / "outside"
    outside.mkdir()
    (dest / "link").symlink_to(outside)
    run(store, found, f"type=local,dest={dest}")
    assert stat.S_IMODE((dest / "d/run").stat().st_mode) == 0o4755
    assert stat.S_IMODE((dest / "d").stat().st_mode) == 0o711
    assert (dest / "d/run").stat().st_mtime_ns == 10**18
    assert (dest / "d/run").stat().st_ino == (dest / "d/twin").stat().st_ino
    assert os.readlink(dest / "link") == "/etc/passwd"
    assert (dest / "link").lstat().st_ino == (dest / "link2").lstat().st_ino
    assert (dest / "other").read_text() == "kept"
    run(store, found, f"type=local,dest={dest},mode=delete", epoch=1_500_000_000)
    assert not (dest / "other").exists()
    assert (dest / "d/run").stat().st_mtime_ns == 1_500_000_000 * 10**9
    assert list(outside.iterdir()) == []


def test_a_socket_with_two_names_is_left_out(tmp_path: Path) -> None:
    source, dest = tmp_path / "tree", tmp_path / "out"
    source.mkdir()
    dest.mkdir()
    os.mknod(source / "a", stat.S_IFSOCK | 0o600)
    os.link(source / "a", source / "b")
    with View([source]) as tree, Writer(dest) as writer:
        _Copier(writer, None).copy(tree, "", "linux/amd64")
    assert not os.listdir(dest)


def test_builds_into_one_directory_take_turns(store: Store, tmp_path: Path) -> None:
    image, dest, stop = built(store, tmp_path), tmp_path / "dest", Cancel()
    dest.mkdir()
    stop.set()
    with store.lock(lock_name(dest)), within(stop), pytest.raises(Cancelled):
        run(store, image, f"type=local,dest={dest}")
    assert not os.listdir(dest)
    mine = os.open(dest, os.O_RDONLY)
    fcntl.flock(mine, fcntl.LOCK_EX)  # as "flock DIR pybuild build -o DIR" does
    run(store, image, f"type=local,dest={dest}")
    os.close(mine)
    assert os.listdir(dest)


def test_link_in_the_destination_is_not_followed(store: Store, tmp_path: Path) -> None:
    outside, dest = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    dest.mkdir()
    (dest / "etc").symlink_to(outside)
    run(store, built(store, tmp_path), f"type=local,dest={dest}")
    assert list(outside.iterdir()) == []
    assert (dest / "etc/a").read_bytes() == b"1"


def test_several_platforms_go_to_directories_of_their_own(store: Store, tmp_path: Path) -> None:
    two = [
        built(store, tmp_path, Platform("linux", "amd64")),
        built(store, tmp_path, ARM, layers=({"arm": b"1"},)),
    ]
    run(store, two, f"type=local,dest={tmp_path}/out")
    assert sorted(os.listdir(tmp_path / "out")) == ["linux_amd64", "linux_arm64"]
    out = io.BytesIO()
    run(store, two, "type=tar,dest=-", stdout=out)
    assert "linux_arm64/arm" in members(out.getvalue())
    assert "linux_amd64/etc/c" in members(out.getvalue())
    run(store, two, f"type=local,dest={tmp_path}/flat,platform-split=false")
    assert sorted(os.listdir(tmp_path / "flat")) == ["arm", "b", "etc"]
    same = [two[0], built(store, tmp_path, ARM)]
    for text in (
        f"type=local,dest={tmp_path}/z,platform-split=false",
        "type=tar,dest=-,platform-split=false",
    ):
        with pytest.raises(ExportError, match="cannot overwrite"):
            run(store, same, text, stdout=io.BytesIO())


def test_tar_output_is_the_tree(store: Store, tmp_path: Path) -> None:
    """EXL-03"""
    out = io.BytesIO()
    run(store, built(store, tmp_path), f"type=tar,dest={tmp_path}/t.tar", epoch=1000)
    seen = members((tmp_path / "t.tar").read_bytes())
    assert list(seen) == ["b", "etc", "etc/a", "etc/c"]
    assert {member.mtime for member in seen.values()} == {1000}
    run(store, BuiltImage(platform=host_platform(), config=built(store, tmp_path).config), "-", stdout=out)
    assert members(out.getvalue()) == {}


def test_rewritten_layers_have_no_later_time(store: Store, tmp_path: Path) -> None:
    """RPR-02"""
    found = built(store, tmp_path)
    result = run(store, found, "type=image,name=x,rewrite-timestamp,source-date-epoch=1000")
    again = run(store, found, "type=image,name=x,rewrite-timestamp,source-date-epoch=1000")
    assert result.root == again.root
    assert images.find(store, "x").config.created == "1970-01-01T00:16:40Z"
    import gzip

    for layer in result.images[0].layers:
        data = gzip.decompress(store.blobs.read(layer.descriptor.digest, 1 << 20))
        assert {member.mtime for member in members(data).values()} == {1000}
    with store.hold() as hold:
        assert images.unpack(store, images.find(store, "x"), hold)


def test_push_output_reaches_the_registry(store: Store, tmp_path: Path) -> None:
    with running_registry() as registry:
        name = f"{registry.host}/x/y:1"
        result = run(store, built(store, tmp_path), f"type=image,name={name},push=true")
        assert result.root is not None
        assert registry.tags["x/y", "1"] == str(result.root.digest)
