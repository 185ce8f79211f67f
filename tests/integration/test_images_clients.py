"""What we write is read by others, and what others write by us: skopeo, umoci, podman."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import images
from builder.cache.store import Store
from builder.cache.tree import View
from builder.exporter.run import export
from builder.exporter.types import BuiltImage, OutputSpec
from builder.oci.config import ImageConfig
from builder.oci.platform import host_platform
from tests.support.machine import tool
from tests.support.registryd import RegistryDaemon
from tests.support.storeimages import make_image

BUSYBOX = Path("/bin/busybox")
LAYERS: tuple[dict[str, bytes], ...] = (
    {"bin/busybox": b"", "etc/name": b"tiny\n"},
    {"etc/name": b"tiny 2\n"},
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root") as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "other") as opened:
        yield opened


def tiny(store: Store, base: Path, *names: str, **options: object) -> BuiltImage:
    layers = ({**LAYERS[0], "bin/busybox": BUSYBOX.read_bytes()}, LAYERS[1])
    config = ImageConfig(platform=host_platform(), env=("A=b",), cmd=("/bin/busybox", "cat", "/etc/name"))
    image = make_image(store, base, *names, layers=layers, config=config, **options)  # type: ignore[arg-type]
    with store.hold() as hold:
        snapshot = images.unpack(store, image.manifest, hold)
    return BuiltImage(
        platform=host_platform(), config=image.image_config, layers=image.layers, snapshot=snapshot
    )


def run(*command: str, **options: object) -> str:
    program = tool(command[0])
    done = subprocess.run(
        [program, *command[1:]],
        capture_output=True,
        text=True,
        timeout=120,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.parametrize(
    ("text", "transport"),
    [
        ("type=oci,dest={0}/x.tar,name=x:1", "oci-archive:{0}/x.tar"),
        ("type=oci,dest={0}/x,tar=false,name=x:1,compression=zstd", "oci:{0}/x:1"),
        ("type=docker,dest={0}/x.tar,name=x:1", "docker-archive:{0}/x.tar"),
        ("type=docker,dest={0}/x.tar,name=x:1", "oci-archive:{0}/x.tar"),
    ],
)
def test_skopeo_inspects_and_copies(store: Store, tmp_path: Path, text: str, transport: str) -> None:
    compression = "zstd" if "zstd" in text else "gzip"
    found = tiny(store, tmp_path, compression=compression)
    result = export(store, [found], OutputSpec.parse(text.format(tmp_path)))
    config = json.loads(run("skopeo", "inspect", "--config", transport.format(tmp_path)))
    assert config["config"]["Env"] == ["A=b"]
    assert config["rootfs"]["diff_ids"] == [str(layer.diff_id) for layer in found.layers]
    run("skopeo", "--insecure-policy", "copy", transport.format(tmp_path), f"dir:{tmp_path}/copied")
    assert (tmp_path / "copied/manifest.json").exists()
    assert result.images[0].config_digest.hex in os.listdir(tmp_path / "copied")


def test_umoci_unpacks_our_layout(store: Store, tmp_path: Path) -> None:
    export(store, [tiny(store, tmp_path)], OutputSpec.parse(f"type=oci,dest={tmp_path}/x,tar=false,name=x:1"))
    command = ["umoci", "unpack", "--image", f"{tmp_path}/x:1"]
    if os.getuid() != 0:
        command.append("--rootless")
    run(*command, f"{tmp_path}/bundle")
    assert (tmp_path / "bundle/rootfs/etc/name").read_text() == "tiny 2\n"
    assert (tmp_path / "bundle/rootfs/bin/busybox").read_bytes() == BUSYBOX.read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_podman_loads_what_we_save(store: Store, other: Store, tmp_path: Path, kind: str) -> None:
    tiny(store, tmp_path, "tiny.example/x:1")
    archive = tmp_path / "saved.tar"
    images.save(store, ["tiny.example/x:1"], archive, kind)  # type: ignore[arg-type]
    run_root = Path(tempfile.mkdtemp(prefix="pm"))  # podman wants a path of less than 50 characters
    podman = ("podman", "--root", f"{tmp_path}/podman", "--runroot", str(run_root), "--storage-driver", "vfs")
    try:
        _load_and_save(store, other, tmp_path, podman, archive, kind)
    finally:
        shutil.rmtree(run_root)


def _load_and_save(
    store: Store, other: Store, tmp_path: Path, podman: tuple[str, ...], archive: Path, kind: str
) -> None:
    run(*podman, "load", "-i", str(archive))
    (found,) = json.loads(run(*podman, "inspect", "tiny.example/x:1"))
    assert "sha256:" + found["Id"] == str(images.find(store, "tiny.example/x:1").id)
    # and back: what podman saves is loaded by us, with the same id
    back = tmp_path / "back.tar"
    run(*podman, "save", "--format", f"{kind}-archive", "-o", str(back), "tiny.example/x:1")
    with back.open("rb") as file:
        (loaded,) = images.load(other, file)
    assert loaded.name == "tiny.example/x:1"
    assert loaded.id == images.find(store, "tiny.example/x:1").id


def test_skopeo_and_we_share_a_registry(store: Store, other: Store, tmp_path: Path) -> None:
    daemon = RegistryDaemon.start(tmp_path)
    try:
        name = f"{daemon.address}/tiny:1"
        tiny(store, tmp_path, name)
        images.push(store, name)
        copied = f"{daemon.address}/copied:1"
        insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
        run(
            "skopeo",
            "--insecure-policy",
            "copy",
            *insecure,
            "--format=v2s2",
            f"docker://{name}",
            f"docker://{copied}",
        )
        pulled = images.pull(other, copied)
        with other.hold() as hold:
            snapshot = images.unpack(other, pulled, hold)
            assert View(other.snapshots.layers(snapshot)).read("etc/name", 99) == b"tiny 2\n"
    finally:
        daemon.stop()
