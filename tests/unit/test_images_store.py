"""Image use cases over a real store: names, lists, history, inspect, archives, unpacking."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder import images
from builder.cache.store import Store
from builder.cache.tree import View
from builder.errors import BlobMissing, DigestMismatch, InvalidValue, NoSuchImage, PybuildError, UsageError
from builder.exporter.image import assemble_index
from builder.images import naming
from builder.oci.config import ImageConfig
from builder.oci.descriptor import OCI_LAYER
from builder.oci.digest import Digest
from builder.oci.manifest import Manifest
from builder.oci.platform import Platform, host_platform
from tests.support.storeimages import make_image

ARM = Platform("linux", "arm64")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root") as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "other") as opened:
        yield opened


def saved(store: Store, *refs: str, **options: object) -> bytes:
    out = io.BytesIO()
    images.save(store, refs, out, **options)  # type: ignore[arg-type]
    return out.getvalue()


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


# tags and removal


def test_an_image_removed_while_it_is_tagged(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image(store, tmp_path, "a:1")
    find, looked = naming.find, []

    def removed_at_once(store: Store, text: str) -> object:
        found = find(store, text)
        looked.append(text)
        if len(looked) == 1:
            images.remove(store, "a:1")
        return found

    monkeypatch.setattr(naming, "find", removed_at_once)
    with pytest.raises(NoSuchImage):
        images.tag(store, "a:1", "b:1")


def test_tag_moves_a_name_and_says_what_had_it(store: Store, tmp_path: Path) -> None:
    first = make_image(store, tmp_path, "a:1")
    second = make_image(store, tmp_path, "b", layers=({"x": b"2"},))
    assert images.tag(store, "b", "a:1") == first.config_digest
    assert images.find(store, "a:1").id == second.config_digest
    assert images.find(store, str(first.config_digest)).names == ()
    images.tag(store, first.config_digest.hex[:12], "reg.example:5000/team/x")
    assert images.find(store, "reg.example:5000/team/x:latest").id == first.config_digest
    with pytest.raises(NoSuchImage):
        images.tag(store, "none", "c")
    with pytest.raises(InvalidValue):
        images.tag(store, "b", f"c@{first.manifest.digest}")


def test_removing_names_one_by_one_deletes_with_the_last(store: Store, tmp_path: Path) -> None:
    """EX-48, IC-RMI-2"""
    image = make_image(store, tmp_path, "a:1", "a:2")
    assert [str(line) for line in images.remove(store, "a:2")] == ["Untagged: a:2"]
    lines = [str(line) for line in images.remove(store, "a:1")]
    assert lines == ["Untagged: a:1", f"Deleted: {image.config_digest}"]
    with pytest.raises(NoSuchImage):
        images.remove(store, "a:1")


def test_removing_by_id_needs_force_across_repositories(store: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, "a:1", "b:1")
    with pytest.raises(images.ImageConflict):
        images.remove(store, image.config_digest.hex)
    lines = [str(line) for line in images.remove(store, image.config_digest.hex, force=True)]
    assert lines == ["Untagged: a:1", "Untagged: b:1", f"Deleted: {image.config_digest}"]


def test_a_container_protects_its_image_unless_forced(store: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, "a:1")
    for text in ("a:1", image.config_digest.hex):
        with pytest.raises(images.ImageConflict):
            images.remove(store, text, in_use=lambda _id: "c0ffee")
    lines = images.remove(store, "a:1", force=True, in_use=lambda _id: "c0ffee")
    assert [line.action for line in lines] == ["Untagged"]
    assert store.images.resolve(str(image.config_digest)) is not None


# lists


def test_list_has_a_row_per_name_and_filters(store: Store, tmp_path: Path) -> None:
    labelled = ImageConfig(platform=host_platform(), labels=(("version", "1.0"),))
    make_image(store, tmp_path, "old:1", created="2020-01-01T00:00:00Z", layers=({"a": b"1"},))
    make_image(store, tmp_path, "mid:1", "mid:2", config=labelled, created="2021-01-01T00:00:00Z")
    lost = make_image(store, tmp_path, created="2022-01-01T00:00:00Z", layers=({"b": b"2"},))
    store.images.add(lost.manifest)

    def names(**options: object) -> list[str]:
        return [f"{row.repository}:{row.tag}" for row in images.list_images(store, **options)]  # type: ignore[arg-type]

    assert names() == ["<none>:<none>", "mid:1", "mid:2", "old:1"]
    assert names(filters=[("dangling", "true")]) == ["<none>:<none>"]
    assert names(filters=[("dangling", "false")]) == ["mid:1", "mid:2", "old:1"]
    assert (
        names(filters=[("label", "version")])
        == names(filters=[("label", "version=1.0")])
        == ["mid:1", "mid:2"]
    )
    assert names(filters=[("label", "version=2")]) == []
    assert names(reference="mid") == ["mid:1", "mid:2"]
    assert names(reference="m*:2") == ["mid:2"]
    assert names(filters=[("reference", "docker.io/library/o*")]) == ["old:1"]
    assert names(filters=[("before", "mid:1")]) == ["old:1"]
    assert names(filters=[("since", "mid:1")]) == ["<none>:<none>"]
    with pytest.raises(UsageError, match="Invalid filter 'x'"):
        names(filters=[("x", "y")])


def test_history_is_newest_first_with_sizes_of_layers(store: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, "a:1", layers=({"a": b"1"}, {"b": bytes(5000)}))
    rows = images.history(store, "a:1")
    assert [row.created_by for row in rows] == ['CMD ["sh"]', "COPY 1", "COPY 0"]
    assert [row.id for row in rows] == [str(image.config_digest), "<missing>", "<missing>"]
    assert rows[0].tags == ("a:1",)
    assert [row.size for row in rows] == [0, 6656, 2048]
    assert rows[0].created_ns == 1_700_000_000 * 10**9


def test_inspect_has_dockers_keys(store: Store, tmp_path: Path) -> None:
    """IMG-04"""
    config = ImageConfig(
        platform=host_platform(), env=("A=b",), entrypoint=("/x",), exposed_ports=("80/tcp",), author="me"
    )
    image = make_image(store, tmp_path, "a:1", config=config)
    found = images.inspect_image(store, "a:1")
    assert found["Id"] == str(image.config_digest)
    assert found["RepoTags"] == ["a:1"]
    assert found["RepoDigests"] == [f"a@{image.manifest.digest}"]
    assert (found["Author"], found["Os"], found["Config"]["Env"]) == ("me", "linux", ["A=b"])
    assert found["Config"]["Entrypoint"] == ["/x"]
    assert found["Config"]["Cmd"] is None
    assert found["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert found["RootFS"] == {"Type": "layers", "Layers": [str(d) for d in image.image_config.diff_ids]}
    keys = {
        "Parent",
        "Comment",
        "Created",
        "Container",
        "DockerVersion",
        "Architecture",
        "Size",
        "VirtualSize",
    }
    assert keys <= set(found)
    json.dumps(found)


# save and load


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_saved_images_come_back_with_ids_and_names(
    store: Store, other: Store, tmp_path: Path, kind: str
) -> None:
    """EX-49"""
    first = make_image(store, tmp_path, "a:1", "a:2", layers=({"f": b"1"}, {"g": bytes(300_000)}))
    second = make_image(store, tmp_path, "host:5000/b", layers=({"h": b"2"},), compression="zstd")
    data = saved(store, "a", "host:5000/b", format=kind)
    assert data == saved(store, "a", "host:5000/b", format=kind)
    loaded = images.load(other, io.BytesIO(data))
    assert {(item.name, item.id) for item in loaded} == {
        ("docker.io/library/a:1", first.config_digest),
        ("docker.io/library/a:2", first.config_digest),
        ("host:5000/b:latest", second.config_digest),
    }
    assert images.find(other, "a:2").manifest.digest == first.manifest.digest


@pytest.mark.parametrize("squeeze", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_archives_are_loaded(store: Store, other: Store, tmp_path: Path, squeeze: object) -> None:
    image = make_image(store, tmp_path, "a:1")
    (loaded,) = images.load(other, io.BytesIO(squeeze(saved(store, "a:1"))))  # type: ignore[operator]
    assert loaded.id == image.config_digest


def test_saving_an_id_saves_no_name(store: Store, other: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, "a:1")
    (loaded,) = images.load(other, io.BytesIO(saved(store, image.config_digest.hex)))
    assert loaded.name is None
    assert images.list_images(other)[0].dangling


def test_load_reports_the_image_that_loses_its_name(store: Store, other: Store, tmp_path: Path) -> None:
    """IMG-09; names that the archive does not give stay as they are."""
    make_image(store, tmp_path, "a:1")
    old = make_image(other, tmp_path, "a:1", "keep:1", layers=({"z": b"z"},))
    (loaded,) = images.load(other, io.BytesIO(saved(store, "a:1")))
    assert loaded.replaced == old.config_digest
    assert images.find(other, "keep:1").id == old.config_digest


def test_save_needs_images_that_exist(store: Store) -> None:
    with pytest.raises(NoSuchImage):
        images.save(store, ["none"], io.BytesIO())
    with pytest.raises(UsageError):
        images.save(store, [], io.BytesIO())


def test_save_to_a_terminal_is_refused(store: Store, tmp_path: Path) -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    make_image(store, tmp_path, "a:1")
    with pytest.raises(UsageError, match="terminal"):
        images.save(store, ["a:1"], Terminal())


def docker_archive(layer: bytes, diff_id: str | None = None, name: str | None = None, **row: object) -> bytes:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id or "sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    data = json.dumps(config).encode()
    config_name = name or hashlib.sha256(data).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": ["old/docker:1"], "Layers": ["abc/layer.tar"], **row}]
    return tar_of({config_name: data, "abc/layer.tar": layer, "manifest.json": json.dumps(manifest).encode()})


LAYER = tar_of({"etc/x": b"x"})


def test_docker_archive_is_loaded(store: Store) -> None:
    (loaded,) = images.load(store, io.BytesIO(docker_archive(LAYER)))
    assert loaded.name == "docker.io/old/docker:1"
    manifest = images.platform_manifest(store, loaded.manifest, None, "x").manifest
    assert manifest.layers[0].media_type == OCI_LAYER
    with store.hold() as hold:
        snapshot = images.unpack(store, images.find(store, "old/docker:1"), hold)
        assert View(store.snapshots.layers(snapshot)).read("etc/x", 9) == b"x"


def test_docker_archive_with_gzip_layers_is_loaded(store: Store) -> None:
    data = docker_archive(gzip.compress(LAYER), "sha256:" + hashlib.sha256(LAYER).hexdigest())
    assert images.load(store, io.BytesIO(data))


@pytest.mark.parametrize(
    "data",
    [
        docker_archive(LAYER, "sha256:" + "1" * 64),
        docker_archive(gzip.compress(LAYER), "sha256:" + "1" * 64),
        docker_archive(LAYER, name="0" * 64 + ".json"),
        docker_archive(LAYER, Layers=[]),
        docker_archive(LAYER, Layers=["nowhere/layer.tar"]),
        docker_archive(LAYER, Layers=["../../etc/passwd"]),
        docker_archive(LAYER, Layers=3),
        docker_archive(LAYER, Config="none.json"),
        docker_archive(LAYER, Config=None),
        docker_archive(LAYER, RepoTags=["Bad Name"]),
        tar_of({"manifest.json": b"[]"}),
        tar_of({"manifest.json": b"{"}),
        tar_of({"manifest.json": b"[3]"}),
        tar_of({"etc/passwd": b"root"}),
        tar_of({}),
        b"",
        b"junk" * 400,
        gzip.compress(b"junk" * 400)[:40],
        tar_of({"oci-layout": b"{}", "index.json": b'{"manifests":[]}'}),
        tar_of({"oci-layout": b"{}", "index.json": b'{"manifests":3}'}),
        tar_of({"blobs/sha256/" + "0" * 64: b"lie", "manifest.json": b"[]"}),
        tar_of({"manifest.json": b"[" * 100_000}),
    ],
)
def test_broken_archives_are_errors_and_name_nothing(store: Store, data: bytes) -> None:
    with pytest.raises(PybuildError):
        images.load(store, io.BytesIO(data))
    assert images.list_images(store) == ()


def test_links_in_an_archive_stay_inside_it(store: Store) -> None:
    """GHSA-rgh6-rfwx-v388: no file of the machine is followed."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"diff_ids": ["sha256:" + hashlib.sha256(LAYER).hexdigest()]},
    }
    files = {"c.json": json.dumps(config).encode(), "real/layer.tar": LAYER}
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["abc/layer.tar"]}]
    files["manifest.json"] = json.dumps(manifest).encode()
    assert images.load(store, io.BytesIO(tar_of(files, {"abc/layer.tar": "../real/layer.tar"})))
    for target in ("/etc/passwd", "../../../etc/passwd", "layer.tar"):
        with pytest.raises(BlobMissing):
            images.load(store, io.BytesIO(tar_of(files, {"abc/layer.tar": target})))


def v1_archive(repositories: dict[str, object] | None) -> bytes:
    base = {
        "id": "base",
        "created": "2015-01-01T00:00:00Z",
        "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) ADD"]},
    }
    top = {
        "id": "top",
        "parent": "base",
        "created": "2015-01-02T00:00:00Z",
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": ["A=b"], "Cmd": ["sh"]},
    }
    files = {
        "base/VERSION": b"1.0",
        "base/json": json.dumps(base).encode(),
        "base/layer.tar": LAYER,
        "top/VERSION": b"1.0",
        "top/json": json.dumps(top).encode(),
        "top/layer.tar": bytes(1024),
    }
    if repositories is not None:
        files["repositories"] = json.dumps(repositories).encode()
    return tar_of(files)


def test_v1_archive_is_loaded(store: Store) -> None:
    """IMG-06, IMG-08"""
    (loaded,) = images.load(store, io.BytesIO(v1_archive({"busy/box": {"1": "top"}})))
    assert loaded.name == "docker.io/busy/box:1"
    config = images.find(store, "busy/box:1").config
    assert (config.env, config.cmd) == (("A=b",), ("sh",))
    assert [entry.empty_layer for entry in config.history] == [False, True]
    (untagged,) = images.load(store, io.BytesIO(v1_archive(None)))
    assert (untagged.name, untagged.id) == (None, loaded.id)
    with pytest.raises(PybuildError):
        images.load(store, io.BytesIO(v1_archive({"x": {"1": "nowhere"}})))


def test_bare_tag_of_a_layout_gives_no_name(store: Store, other: Store, tmp_path: Path) -> None:
    """GHSA notes: a tag without repository names nothing here."""
    make_image(store, tmp_path, "a:1")
    source = tarfile.open(fileobj=io.BytesIO(saved(store, "a:1", format="oci")))  # noqa: SIM115
    files = {member.name: source.extractfile(member).read() for member in source if member.isfile()}  # type: ignore[union-attr]
    index = json.loads(files["index.json"])
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (loaded,) = images.load(other, io.BytesIO(tar_of({**files, "index.json": json.dumps(index).encode()})))
    assert loaded.name is None


def test_index_with_one_platform_here_is_saved_as_that_platform(
    store: Store, other: Store, tmp_path: Path
) -> None:
    host, arm = make_image(store, tmp_path), make_image(store, tmp_path, platform=ARM)
    root = assemble_index(store, [host, arm])
    store.images.tag("multi", root)
    (loaded,) = images.load(other, io.BytesIO(saved(store, "multi", format="oci")))
    assert loaded.manifest.digest == root.digest
    with pytest.raises(PybuildError, match="manifest lists"):
        saved(store, "multi")
    (one,) = images.load(other, io.BytesIO(saved(store, "multi", platform=ARM)))
    assert one.id == arm.config_digest
    store.blobs.delete(arm.manifest.digest)
    (rest,) = images.load(other, io.BytesIO(saved(store, "multi")))
    assert rest.id == host.config_digest


# unpack and bases


def test_layers_are_unpacked_once_in_order(store: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, "a:1", layers=({"d/a": b"1", "d/b": b"1"}, {"d/a": b"2"}))
    with store.hold() as hold:
        snapshot = images.unpack(store, image.manifest, hold)
        assert snapshot is not None
        assert images.unpack(store, images.find(store, "a:1"), hold) == snapshot
        view = View(store.snapshots.layers(snapshot))
        assert (view.read("d/a", 9), view.read("d/b", 9)) == (b"2", b"1")
    infos = store.snapshots.chain(snapshot)
    assert len(infos) == 2
    assert store.snapshots.layer(infos[0].id, "gzip") == (
        image.image_config.diff_ids[1],
        image.layers[1].descriptor,
    )


def test_many_unpack_at_once_and_each_layer_is_applied_once(store: Store, tmp_path: Path) -> None:
    import threading

    image = make_image(store, tmp_path, layers=({"a": b"1"}, {"b": b"2"}, {"c": b"3"}))
    found: list[str | None] = []
    with store.hold() as hold:
        threads = [
            threading.Thread(target=lambda: found.append(images.unpack(store, image.manifest, hold)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(store.snapshots.list()) == 3


def test_image_without_layers_is_no_snapshot(store: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, layers=())
    with store.hold() as hold:
        assert images.unpack(store, image.manifest, hold) is None


def test_layer_that_is_not_what_the_config_says_is_refused(store: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, layers=({"a": b"1"},))
    other = make_image(store, tmp_path, layers=({"a": b"2"},))
    manifest = Manifest(config=image.config, layers=(other.layers[0].descriptor,)).to_bytes()
    root = replace(image.manifest, digest=store.blobs.put(manifest), size=len(manifest))
    with store.hold() as hold, pytest.raises(DigestMismatch):
        images.unpack(store, root, hold)
    assert store.snapshots.list() == ()


def test_base_in_the_store_needs_no_registry(store: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, "base:1")
    found = images.resolve_image(store, "base:1")
    assert (found.source, found.manifest.digest, found.config) == (
        "store",
        image.manifest.digest,
        image.image_config,
    )
    images.ensure_layers(store, found)
    by_id = images.resolve_image(store, image.config_digest.hex[:12])
    assert by_id.config_digest == image.config_digest


def test_layout_directory_and_tar_and_archive_are_bases(store: Store, other: Store, tmp_path: Path) -> None:
    image = make_image(store, tmp_path, "a:1", layers=({"a": b"1"}, {"b": bytes(400_000)}))
    folder, packed, docker = tmp_path / "layout", tmp_path / "layout.tar.gz", tmp_path / "docker.tar"
    folder.mkdir()
    images.save(store, ["a:1"], folder, "oci")
    packed.write_bytes(gzip.compress(saved(store, "a:1", format="oci")))
    docker.write_bytes(saved(store, "a:1"))
    for path in (folder, packed):
        for ref in ("", "1", "a:1", str(image.manifest.digest)):
            found = images.import_layout(other, path, ref)
            assert found.digest == image.manifest.digest
            images.ensure_layers(other, found)
        with pytest.raises(NoSuchImage):
            images.import_layout(other, path, "2")
    assert images.import_archive(other, docker, "a:1").config_digest == image.config_digest
    assert images.import_archive(other, docker).config_digest == image.config_digest
    assert all(other.blobs.has(layer.descriptor.digest) for layer in image.layers)
    assert images.list_images(other) == ()  # a base gives no names
    with pytest.raises(InvalidValue):
        images.import_layout(other, tmp_path / "none")
    (folder / "blobs/sha256" / image.layers[0].descriptor.digest.hex).write_bytes(b"lie")
    with Store.open(tmp_path / "third") as third, pytest.raises(DigestMismatch):
        images.ensure_layers(third, images.import_layout(third, folder, "1"))


def test_platform_that_an_index_lacks_is_named(store: Store, tmp_path: Path) -> None:
    """SIM-02"""
    root = assemble_index(store, [make_image(store, tmp_path, platform=ARM)])
    with pytest.raises(NoSuchImage, match="linux/s390x") as caught:
        images.platform_manifest(store, root, Platform("linux", "s390x"), "x")
    assert caught.value.code == "no-match-for-platform"


# import


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_import_makes_an_image_of_one_layer(store: Store, squeeze: object) -> None:
    """EX-50, IMG-17"""
    image_id = images.import_(
        store, io.BytesIO(squeeze(LAYER)), "name:new", ["ENV DEBUG true", 'CMD ["date"]']
    )  # type: ignore[operator]
    image = images.find(store, "name:new")
    assert image.id == image_id
    assert (image.config.env, image.config.cmd) == (("DEBUG=true",), ("date",))
    assert image.config.diff_ids == (Digest.of(LAYER),)
    (row,) = images.history(store, "name:new")
    assert row.comment == "Imported from -"


def test_import_without_a_name_and_with_bad_input(store: Store) -> None:
    image_id = images.import_(store, io.BytesIO(LAYER), message="hello")
    assert images.find(store, str(image_id)).names == ()
    assert images.history(store, str(image_id))[0].comment == "hello"
    with pytest.raises(UsageError):
        images.import_(store, io.BytesIO(LAYER), "x", ["RUN true"])
    with pytest.raises(PybuildError):
        images.import_(store, io.BytesIO(b"no tar" * 1000), "x")
    with pytest.raises(PybuildError):
        images.import_(store, io.BytesIO(LAYER), "x", ["EXPOSE banana"])


def test_changes_keep_ports_and_triggers() -> None:
    """EX-41"""
    config = ImageConfig(
        platform=host_platform(), exposed_ports=("80/tcp",), on_build=("RUN old",), env=("A=1",)
    )
    made = images.apply_changes(config, ["EXPOSE 9999", "ENV B=$A", "ONBUILD RUN new", "LABEL k=v\nUSER me"])
    assert set(made.exposed_ports) == {"80/tcp", "9999/tcp"}
    assert (made.env, made.on_build, made.labels, made.user) == (
        ("A=1", "B=1"),
        ("RUN old", "RUN new"),
        (("k", "v"),),
        "me",
    )


def test_importing_the_package_is_cheap() -> None:
    import subprocess
    import sys

    code = (
        "import sys, builder.images, builder.exporter.types;"
        "print(sorted({'requests','ssl','zstandard','lark','tarfile','concurrent.futures','subprocess','sqlite3'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
