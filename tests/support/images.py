"""Looking at images without our own code: archives read with tarfile and json, trees with the umoci command."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.machine import tool


@dataclass(frozen=True)
class Node:
    """One entry of a tree, without times."""

    kind: str
    mode: int
    uid: int
    gid: int
    data: str
    xattrs: tuple[tuple[str, bytes], ...] = ()


def read_tree(root: Path) -> dict[str, Node]:
    """Every entry below ``root`` by relative path."""
    found: dict[str, Node] = {}
    for base, dirs, names in os.walk(root):
        for name in (*dirs, *names):
            path = Path(base, name)
            found[str(path.relative_to(root))] = node(path)
    return found


def node(path: Path) -> Node:
    st = path.lstat()
    data = ""
    if stat.S_ISLNK(st.st_mode):
        kind, data = "link", os.readlink(path)
    elif stat.S_ISREG(st.st_mode):
        kind, data = "file", hashlib.sha256(path.read_bytes()).hexdigest()
    elif stat.S_ISDIR(st.st_mode):
        kind = "dir"
    else:
        kind, data = "special", str(st.st_rdev)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return Node(kind, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, data, xattrs)


@dataclass(frozen=True)
class Archive:
    """An image in a tar: the digest of its manifest (OCI only), its config, its layers' diff ids."""

    path: Path
    manifest_digest: str
    config_digest: str
    config: dict[str, Any]
    layers: tuple[bytes, ...]


def read_oci(path: Path) -> Archive:
    """Read an OCI layout in a tar and check every digest and size on the way."""
    with tarfile.open(path) as tar:
        files = {name.name.removeprefix("./"): _data(tar, name) for name in tar.getmembers() if name.isfile()}
    assert json.loads(files["oci-layout"])["imageLayoutVersion"] == "1.0.0"
    index = json.loads(files["index.json"])
    entry = index["manifests"][0]
    manifest = json.loads(_blob(files, entry))
    if "manifests" in manifest:
        entry = manifest["manifests"][0]
        manifest = json.loads(_blob(files, entry))
    config = json.loads(_blob(files, manifest["config"]))
    layers = tuple(_blob(files, layer) for layer in manifest["layers"])
    for layer, diff_id in zip(layers, config["rootfs"]["diff_ids"], strict=True):
        assert "sha256:" + hashlib.sha256(inflate(layer)).hexdigest() == diff_id
    return Archive(path, entry["digest"], manifest["config"]["digest"], config, layers)


def read_docker(path: Path) -> Archive:
    """Read a docker archive and check its diff ids."""
    with tarfile.open(path) as tar:
        files = {member.name: _data(tar, member) for member in tar.getmembers() if member.isfile()}
    entry = json.loads(files["manifest.json"])[0]
    data = files[entry["Config"]]
    config = json.loads(data)
    layers = tuple(files[name] for name in entry["Layers"])
    for layer, diff_id in zip(layers, config["rootfs"]["diff_ids"], strict=True):
        assert "sha256:" + hashlib.sha256(inflate(layer)).hexdigest() == diff_id
    return Archive(path, "", "sha256:" + hashlib.sha256(data).hexdigest(), config, layers)


def inflate(data: bytes) -> bytes:
    """A layer's tar."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def layer_names(layer: bytes) -> list[str]:
    """Names in a layer, in order."""
    with tarfile.open(fileobj=io.BytesIO(inflate(layer))) as tar:
        return [member.name for member in tar.getmembers()]


def unpack_oci(archive: Path, work: Path) -> Path:
    """The root file system of an OCI tar, as umoci unpacks it."""
    layout = work / "layout"
    layout.mkdir(parents=True)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(layout)], check=True)
    index = json.loads((layout / "index.json").read_text())
    name = index["manifests"][0].get("annotations", {}).get("org.opencontainers.image.ref.name")
    if name is None or "/" in name or ":" in name:
        name = "x"
        index["manifests"][0].setdefault("annotations", {})["org.opencontainers.image.ref.name"] = name
        (layout / "index.json").write_text(json.dumps(index))
    command = [tool("umoci"), "unpack", "--image", f"{layout}:{name}", str(work / "bundle")]
    if os.geteuid() != 0:
        command.insert(2, "--rootless")
    subprocess.run(command, check=True, capture_output=True)
    return work / "bundle" / "rootfs"


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    data = files["blobs/" + descriptor["digest"].replace(":", "/")]
    assert "sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"]
    assert len(data) == descriptor["size"]
    return data
