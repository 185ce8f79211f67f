"""OCI layouts and docker archives (EXO rows), read by tarfile, skopeo, umoci and podman."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ExportError, PybuildError, UsageError
from builder.exporter.types import OutputSpec
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.machine import tool
from tests.support.peers import Peer, skopeo
from tests.support.rows import row

pytestmark = pytest.mark.root
TEXT = 'FROM busybox\nCOPY f /f\nRUN rm /etc/passwd && ln /f /g\nCMD ["cat", "/g"]\n'
CROSS = "FROM scratch\nCOPY f /f\n"
BOTH = ("linux/amd64", "linux/arm64")
NAME, REF = "io.containerd.image.name", "org.opencontainers.image.ref.name"


@pytest.fixture(scope="module")
def context(lab: Lab) -> Path:
    return lab.context({"Dockerfile": TEXT, "f": "text"})


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def build(lab: Lab, context: Path, text: str, **more: Any) -> Any:
    return lab.build(context, outputs=(OutputSpec.parse(text),), **more)


def files(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


@row("EXO-01")
def test_what_archives_hold(lab: Lab, context: Path, tmp_path: Path) -> None:
    build(lab, context, f"type=oci,dest={tmp_path / 'o'}", tags=("x:1",))
    oci = files(tmp_path / "o")
    assert oci["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}'
    assert "manifest.json" not in oci
    build(lab, context, f"type=docker,dest={tmp_path / 'd'}", tags=("x:1", "y:2"))
    docker = files(tmp_path / "d")
    (entry,) = json.loads(docker["manifest.json"])
    assert list(entry) == ["Config", "RepoTags", "Layers"]
    assert entry["RepoTags"] == ["x:1", "y:2"]
    assert {entry["Config"], *entry["Layers"], "oci-layout", "index.json"} <= set(docker)
    with pytest.raises(
        ExportError, match=r"^docker exporter does not currently support exporting manifest lists"
    ):
        lab.build(
            context,
            dockerfile_data=CROSS.encode(),
            platforms=BOTH,
            outputs=(OutputSpec.parse(f"type=docker,dest={tmp_path / 'no'}"),),
        )
    assert not (tmp_path / "no").exists()


@row("EXO-01")
def test_peers_take_every_form(lab: Lab, context: Path, tmp_path: Path, peer: Peer) -> None:
    forms = {
        "oci": "type=oci", "zstd": "type=oci,compression=zstd,force-compression", "plain": "type=oci,compression=uncompressed",
        "star": "type=oci,compression=estargz,force-compression", "dir": "type=oci,tar=false",
        "docker": "type=docker", "docker2": "type=docker,tar=false,compression=uncompressed",
    }  # fmt: skip
    seen = set()
    for name, spec in forms.items():
        dest = tmp_path / name
        build(lab, context, f"{spec},dest={dest}", tags=("peer:1",))
        if name == "docker2":
            (dest / "index.json.lock").unlink()
            dest = tmp_path / "docker2.tar"
            subprocess.run(["tar", "-cf", str(dest), "-C", str(tmp_path / name), "."], check=True)
        kind = "oci" if dest.is_dir() else "docker-archive" if name.startswith("docker") else "oci-archive"
        where = f"{kind}:{dest}:1" if dest.is_dir() else f"{kind}:{dest}"
        told = json.loads(skopeo("inspect", where).stdout)
        assert len(told["Layers"]) == 3, name
        if name in ("docker", "oci", "star", "zstd"):
            seen.add(peer.podman_run(peer.load(dest)).stdout)
        if name == "zstd":  # this umoci does not know it
            continue
        skopeo("copy", where, f"oci:{tmp_path / 'all'}:{name}")
        command = [
            tool("umoci"),
            "unpack",
            "--image",
            f"{tmp_path / 'all'}:{name}",
            str(tmp_path / f"u-{name}"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        root = tmp_path / f"u-{name}" / "rootfs"
        assert (root / "g").read_text() == "text"
        assert (root / "g").stat().st_ino == (root / "f").stat().st_ino
        assert not (root / "etc/passwd").exists()
        assert not (root / "stargz.index.json").exists()
    assert seen == {b"text"}


@row("EXO-02")
def test_the_index(lab: Lab, context: Path, tmp_path: Path) -> None:
    result = build(
        lab, context, f"type=oci,dest={tmp_path / 'o'},source-date-epoch=7", tags=("x", "host:5/y:2")
    )
    index = json.loads(files(tmp_path / "o")["index.json"])
    assert [entry["digest"] for entry in index["manifests"]] == [result.digest] * 2
    created = "org.opencontainers.image.created"
    assert [entry["annotations"] for entry in index["manifests"]] == [
        {NAME: "docker.io/library/x:latest", created: "1970-01-01T00:00:07Z", REF: "latest"},
        {NAME: "host:5/y:2", created: "1970-01-01T00:00:07Z", REF: "2"},
    ]
    build(lab, context, f"type=oci,dest={tmp_path / 'n'}")
    (entry,) = json.loads(files(tmp_path / "n")["index.json"])["manifests"]
    assert set(entry["annotations"]) == {created}


@row("EXO-03")
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_equal_archives(lab: Lab, context: Path, tmp_path: Path, kind: str) -> None:
    found = []
    for number in (1, 2):
        dest = tmp_path / str(number)
        build(lab, context, f"type={kind},dest={dest},source-date-epoch=1", tags=("x",))
        found.append(dest.read_bytes())
    assert found[0] == found[1]
    with tarfile.open(fileobj=io.BytesIO(found[0])) as tar:
        members = tar.getmembers()
    assert {(member.mtime, member.uid, member.gid) for member in members} == {(0, 0, 0)}
    assert (
        [member.name for member in members if member.isdir()]
        == [m.name for m in members[:2]]
        == ["blobs", "blobs/sha256"]
    )
    names = [member.name for member in members[2:]]
    assert names == sorted(names)


@row("EXO-04")
def test_a_directory_is_added_to(lab: Lab, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    texts = [f"FROM scratch\nCOPY f /f{n}\n" for n in range(4)]
    for number in (0, 1):
        lab.build(
            context,
            dockerfile_data=texts[number].encode(),
            tags=(f"n:{number}",),
            outputs=(OutputSpec.parse(f"type=oci,tar=false,dest={layout}"),),
        )
    lab.build(
        context,
        dockerfile_data=texts[2].encode(),
        outputs=(OutputSpec.parse(f"type=oci,tar=false,dest={layout}"),),
    )

    def refs() -> list[str]:
        return [
            entry["annotations"][REF]
            for entry in json.loads((layout / "index.json").read_text())["manifests"]
        ]

    assert refs() == ["0", "1", "latest"]
    failures: list[BaseException] = []

    def one(number: int) -> None:
        from builder.exporter import archive
        from builder.oci.reference import Reference

        try:
            found = lab.store.images.list()[0]
            root = archive.Root(descriptor=found.manifest, names=(Reference.parse(f"t:{number}"),))
            archive.write_directory(
                lab.store.blobs, archive.plan(lab.store.blobs, (root,), docker=False), layout, (root,)
            )
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(refs()) == {"0", "1", "latest", *map(str, range(10, 20))}, "the index is changed under a lock"
    assert not [path for path in layout.rglob("*") if path.name.startswith(".")]


@row("EXO-05")
def test_names_and_destinations(lab: Lab, context: Path, tmp_path: Path, command: Runner) -> None:
    with pytest.raises(PybuildError, match=r"(?i)invalid reference"):
        build(lab, context, f"type=oci,name=Not//Good,dest={tmp_path / 'x'}")
    piped = command.build(context, "--network=none", "-o", "type=oci,dest=-")
    with tarfile.open(fileobj=io.BytesIO(piped.stdout)) as tar:
        assert "oci-layout" in tar.getnames()
    ours, theirs = pty.openpty()
    words = [*command.prefix, "build", "--network=none", "-o", "type=oci,dest=-", str(context)]
    done = subprocess.run(
        words, stdout=theirs, stderr=subprocess.PIPE, env=command.environment(), check=False
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    assert done.returncode != 0
    assert b"refusing to write the oci output to a terminal" in done.stderr
    with pytest.raises(OSError):
        os.read(ours, 1)
    os.close(ours)
    with pytest.raises(UsageError):
        OutputSpec.parse("type=oci,tar=false")
