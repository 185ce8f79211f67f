"""What ``pybuild build`` writes and prints: outputs, compressions, ids, metadata (EXP, BLD and CLI rows)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.support.buildlab import base_tar
from tests.support.cli import Runner

pytestmark = pytest.mark.root

TEXT = "FROM busybox\nRUN mkdir /d && echo run > /d/run && ln /d/run /d/hard && ln -s run /d/soft\nCOPY f /f\nENV A=1\n"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    tmp = tmp_path_factory.mktemp("outputs")
    runner = Runner(tmp / "root")
    (tmp / "base.tar").write_bytes(base_tar(tmp))
    runner.run("import", tmp / "base.tar", "busybox:latest")
    yield runner
    runner.clean()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("context")
    (root / "f").write_text("file")
    (root / "Dockerfile").write_text(TEXT)
    return root


def build(cli: Runner, context: Path | str, *words: str | Path, **more: Any) -> Any:
    return cli.build(context, "--network", "none", *words, **more)


def unpacked(media: str, data: bytes) -> bytes:
    if media.endswith("gzip"):
        return gzip.decompress(data)
    if media.endswith("zstd"):
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    return data


@pytest.mark.parametrize("kind", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_archives(cli: Runner, context: Path, tmp_path: Path, kind: str, compression: str) -> None:
    """EXP rows: every blob is what its digest says, every layer what its diff id says."""
    dest = tmp_path / "out.tar"
    build(
        cli,
        context,
        "-t",
        "out:1",
        "-o",
        f"type={kind},dest={dest},compression={compression},force-compression=true",
    )
    with tarfile.open(dest) as tar:
        blobs = {name.name: tar.extractfile(name).read() for name in tar if name.isfile()}  # type: ignore[union-attr]
    index = json.loads(blobs["index.json"])
    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for name, data in blobs.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]

    def blob(descriptor: dict[str, Any]) -> bytes:
        data = blobs[f"blobs/sha256/{descriptor['digest'].partition(':')[2]}"]
        assert len(data) == descriptor["size"]
        return data

    manifest = json.loads(blob(index["manifests"][0]))
    config = json.loads(blob(manifest["config"]))
    layers = [unpacked(item["mediaType"], blob(item)) for item in manifest["layers"]]
    assert [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers] == config["rootfs"]["diff_ids"]
    suffix = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "tar"}[compression]
    assert {item["mediaType"].replace(".", "+").rpartition("+")[2] for item in manifest["layers"]} == {suffix}
    with tarfile.open(fileobj=io.BytesIO(layers[1])) as tar:
        names = {member.name.strip("./"): member for member in tar}
    assert sorted(names) == ["d", "d/hard", "d/run", "d/soft"]
    assert sum(member.islnk() for member in names.values()) == 1
    if kind == "docker":
        listed = json.loads(blobs["manifest.json"])
        assert listed[0]["RepoTags"] == ["out:1"]
        assert len(listed[0]["Layers"]) == 3


def test_local_and_tar(cli: Runner, context: Path, tmp_path: Path) -> None:
    """EXP: the files of the result; a directory keeps what else is in it."""
    dest = tmp_path / "tree"
    dest.mkdir()
    (dest / "kept").write_text("mine")
    build(cli, context, "-o", dest)
    assert (dest / "d/run").read_text() == "run\n"
    assert os.readlink(dest / "d/soft") == "run"
    assert (dest / "d/hard").stat().st_ino == (dest / "d/run").stat().st_ino
    assert (dest / "kept").exists()
    build(cli, context, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("f").read() == b"file"  # type: ignore[union-attr]
        assert tar.getmember("d/hard").islnk() or tar.getmember("d/run").islnk()
    piped = build(cli, context, "-o", "-")
    with tarfile.open(fileobj=io.BytesIO(piped.stdout)) as tar:
        assert "d/run" in [member.name.removeprefix("./") for member in tar]
    oci = build(cli, context, "-o", "type=oci,dest=-")
    with tarfile.open(fileobj=io.BytesIO(oci.stdout)) as tar:
        assert "index.json" in tar.getnames()


def test_directory_layout(cli: Runner, context: Path, tmp_path: Path) -> None:
    build(cli, context, "-o", f"type=oci,tar=false,dest={tmp_path / 'layout'}")
    assert (tmp_path / "layout/oci-layout").exists()
    assert json.loads((tmp_path / "layout/index.json").read_text())["manifests"]


def test_several_outputs_at_once(cli: Runner, context: Path, tmp_path: Path) -> None:
    words = ["-o", f"type=oci,dest={tmp_path / 'a.tar'}", "-o", f"type=docker,compression=uncompressed,dest={tmp_path / 'b.tar'}",
             "-o", f"type=local,dest={tmp_path / 'c'}", "-o", "type=image,name=many:1", "-t", "many:2"]  # fmt: skip
    build(cli, context, *words)
    assert (tmp_path / "a.tar").exists()
    assert (tmp_path / "b.tar").exists()
    assert (tmp_path / "c/f").read_text() == "file"
    assert cli.image_id("many:1")
    twice = build(cli, context, "-o", "-", "-o", "type=oci,dest=-", status=None)
    assert twice.status != 0


def test_outputs_that_cannot_be_written(cli: Runner, context: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dir").mkdir()
    for output in (f"type=local,dest={tmp_path / 'file'}", f"type=tar,dest={tmp_path / 'dir'}", "type=nonsense",
                   f"type=oci,dest={tmp_path / 'no/such/dir/x.tar'},compression=lz4", "type=local"):  # fmt: skip
        result = build(cli, context, "-o", output, status=None)
        assert result.status != 0, output
        assert "Traceback" not in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir", "file"]


def test_ids_metadata_and_quiet(cli: Runner, context: Path, tmp_path: Path) -> None:
    """BLD: --iidfile, --metadata-file, -q."""
    iid, meta = tmp_path / "iid", tmp_path / "meta.json"
    iid.write_text("old")
    build(cli, context, "--iidfile", iid, "--metadata-file", meta, "-t", "ids:1", "-t", "ids:2")
    assert iid.read_text() == cli.image_id("ids:1") == cli.image_id("ids:2")
    facts = json.loads(meta.read_text())
    assert facts["containerimage.config.digest"] == iid.read_text()
    assert facts["containerimage.descriptor"]["digest"] == facts["containerimage.digest"]
    assert facts["image.name"] == "docker.io/library/ids:1,docker.io/library/ids:2"
    quiet = cli.run("build", "-q", "--network", "none", context)
    assert quiet.out == f"{iid.read_text()}\n"
    assert quiet.err == ""
    again = tmp_path / "again.json"
    build(cli, context, "--metadata-file", again, "-t", "ids:1", "-t", "ids:2")
    assert json.loads(again.read_text()) == facts
    failed = build(cli, tmp_path, "--iidfile", iid, status=None)
    assert failed.status != 0
    assert not iid.exists()


def test_command_line_as_users_type_it(cli: Runner, tmp_path: Path) -> None:
    text = (
        "FROM busybox\nARG A\nARG B=default\nRUN echo $A-$B > /ab; cat /etc/hosts > /h; ulimit -n > /u\n"
        "RUN --mount=type=secret,id=s,env=S echo ${#S} > /n\nRUN --mount=type=secret,id=f wc -c < /run/secrets/f > /m\n"
    )
    (tmp_path / "Dockerfile").write_text(text)
    (tmp_path / "secret").write_text("12345")
    out = tmp_path / "out"
    build(cli, tmp_path, "--build-arg", "A", "--build-arg=B=b", "--add-host", "one:10.0.0.1", "--add-host=two=::1",
          "--ulimit", "nofile=50:60", "--shm-size", "2m", "--label", "l=1", "--secret", "id=s,env=SECRET",
          "--secret", f"id=f,src={tmp_path / 'secret'}", "-o", out, env={"A": "a", "SECRET": "xyz"})  # fmt: skip
    assert (out / "ab").read_text() == "a-b\n"
    assert "10.0.0.1\tone" in (out / "h").read_text()
    assert (out / "u").read_text() == "50\n"
    assert ((out / "n").read_text(), (out / "m").read_text().strip()) == ("3\n", "5")


def test_progress_and_errors_on_the_terminal(cli: Runner, context: Path, tmp_path: Path) -> None:
    """DIA-01, DIA-02, EXIT rows."""
    cached = build(cli, context, "-t", "again:1").err
    assert "CACHED" in cached
    assert "naming to docker.io/library/again:1" in cached
    (tmp_path / "Dockerfile").write_text("FROM busybox\n\nRUN echo said; exit 3\n")
    failed = build(cli, tmp_path, status=None)
    assert failed.status not in (0, 2)
    assert "Dockerfile:3" in failed.err
    assert ">>> RUN echo said; exit 3" in failed.err
    assert "exit code: 3" in failed.err
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPI a b\n")
    parse = build(cli, tmp_path, status=None)
    assert "unknown instruction: COPI" in parse.err
    assert "did you mean COPY" in parse.err
    assert "Dockerfile:2" in parse.err
    quiet = cli.run("build", "-q", tmp_path, status=None)
    assert quiet.status != 0
    assert quiet.out == ""
    assert "unknown instruction" in quiet.err
