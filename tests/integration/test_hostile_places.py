"""Outputs that cannot be written, streams that are closed, containers that go: found by trying them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pybuild
from builder.errors import ExportError, UsageError
from builder.exporter import preflight
from builder.exporter.types import OutputSpec
from builder.sources.contexttree import ContextTree
from cli.commands.login import registry_name
from tests.support import bases
from tests.support.cli import REPO, Runner

pytestmark = [pytest.mark.linux]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("type=oci,dest={}/no/x.tar", "there is no directory"),
        ("type=oci,dest={}/file/x.tar", "is not a directory"),
        ("type=tar,dest={}/dir", "is a directory"),
        ("type=local,dest={}/file", "is not a directory"),
        ("type=local,dest={}/dangling", "leads nowhere"),
        ("type=docker,tar=false,dest={}/file", "is not a directory"),
        ("type=local,mode=delete,dest={}", "would remove the state directory"),
        ("type=local,mode=delete,dest=/", "would remove the whole file system"),
        ("type=docker", "has no destination"),
        ("type=registry", "tag is needed when pushing"),
        ("type=image,name=a:1,push-by-digest=true", "can't push tagged ref docker.io/library/a:1 by digest"),
        ("type=image,name=a..b/c", "bad registry host"),
        ("type=image,dangling-name-prefix=A b", "invalid reference"),
    ],
)
def test_what_must_fail_is_said_before_the_build(tmp_path: Path, output: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    spec = OutputSpec.parse(output.format(tmp_path))
    with pytest.raises((UsageError, ExportError), match=said):
        preflight.check([spec], tmp_path / "root")
    assert not (tmp_path / "no").exists()


def test_two_outputs_do_not_share_a_file(tmp_path: Path) -> None:
    outputs = [OutputSpec.parse(f"type={kind},dest={tmp_path}/x") for kind in ("oci", "tar")]
    with pytest.raises(UsageError, match="two outputs go to"):
        preflight.check(outputs, Path("/nowhere"))
    preflight.check([OutputSpec.parse("type=tar,dest=/dev/null")] * 2, Path("/nowhere"))


@pytest.mark.parametrize("url", ["http://[::1/x", "https://[::1/x.git"])
def test_a_malformed_url_is_no_bug(tmp_path: Path, url: str) -> None:
    with pytest.raises(pybuild.PybuildError, match=r"URL|reference"):
        pybuild.build(url, root=tmp_path / "root")


@pytest.mark.parametrize("text", ["[::1", "[]", "x:99999", "a b", "a\nb", "http://", "x:y"])
def test_a_malformed_registry_is_no_bug(text: str) -> None:
    with pytest.raises(UsageError, match="invalid registry"):
        registry_name(text)


def test_directories_that_vanish_while_the_context_is_read(tmp_path: Path) -> None:
    (tmp_path / "gone" / "below").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    with ContextTree(tmp_path, name="context") as tree:
        assert [name for name, _ in tree.scandir("")] == ["gone", "kept"]
        shutil.rmtree(tmp_path / "gone")
        assert [path for path, _ in tree.walk()] == ["gone", "kept"]


def test_places_that_will_do(tmp_path: Path) -> None:
    outputs = [
        f"type=local,dest={tmp_path}/a/b",
        "type=tar,dest=/dev/null",
        f"type=oci,dest={tmp_path}/x",
        "-",
    ]
    preflight.check(map(OutputSpec.parse, outputs), Path("/nowhere"))
    assert not list(tmp_path.iterdir())


def test_an_epoch_is_a_date() -> None:
    assert OutputSpec.parse("type=tar,dest=x,source-date-epoch=253402300799").epoch == 253402300799
    with pytest.raises(UsageError, match="source-date-epoch"):
        OutputSpec.parse("type=tar,dest=x,source-date-epoch=253402300800")


@pytest.mark.parametrize(("attribute", "meant"), [("compresion=zstd", "compression"), ("colour=red", "")])
def test_the_library_knows_its_attributes(tmp_path: Path, attribute: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"unknown attribute.*{meant}"):
        pybuild.build(
            {"Dockerfile": b"FROM scratch\n"},
            root=tmp_path / "root",
            outputs=[f"type=oci,dest={tmp_path}/x,{attribute}"],
        )


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path / "root")
    made.load(bases.archive("busybox"))
    yield made
    made.clean()


def _shell(root: Path, line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    command = f"'{sys.executable}' -m pybuild --root '{root}' {line}"
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        timeout=30,
        check=False,
        cwd=REPO,
        env={**os.environ, **env},
    )


@pytest.mark.root
def test_closed_streams_and_full_ones(runner: Runner, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    assert _shell(runner.root, f"build {context} <&- >&- 2>&-").returncode == 0
    for line in (f"build -q {context} >&-", "images >&-", f"build -o - {context} >&-"):
        done = _shell(runner.root, line)
        assert done.returncode == 1
        assert b"Bad file descriptor" in done.stderr
        assert b"Traceback" not in done.stderr
    assert b"empty" in _shell(runner.root, "build - <&-").stderr
    for line in (f"build --iidfile /dev/full {context}", f"build --trace /dev/full {context}"):
        assert b"pybuild: /dev/full: No space left on device" in _shell(runner.root, line).stderr
    for line in (f"build -q {context} >/dev/full", "images >/dev/full"):
        assert b"standard output: No space left on device" in _shell(runner.root, line).stderr
    done = _shell(runner.root, "run --rm busybox echo hi >/dev/full")
    assert (done.returncode, b"cannot write the output of the container" in done.stderr) == (125, True)
    assert b"busybox" not in _shell(runner.root, "ps -a").stdout


@pytest.mark.root
def test_a_running_container_that_removes_itself_can_be_removed(runner: Runner) -> None:
    found = runner.run("run", "-d", "--rm", "busybox", "sleep", "60").out.strip()
    assert _shell(runner.root, f"rm -f {found}").stdout.decode().strip() == found
    assert found[:12] not in runner.run("ps", "-a").out


@pytest.mark.root
def test_an_id_file_that_is_a_device_stays_one(runner: Runner, tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    assert _shell(runner.root, f"build --iidfile {device} {tmp_path}").returncode == 0
    assert stat.S_ISCHR(device.stat().st_mode)
    done = _shell(runner.root, f"build --metadata-file {tmp_path}/no/x {tmp_path}")
    assert (done.returncode, b"there is no directory" in done.stderr) == (2, True)


@pytest.mark.root
def test_names_do_not_depend_on_the_locale(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY \u00fc /\nLABEL \u00e9=\u00fc\n")
    (tmp_path / "\u00fc").touch()
    line = f"build -q --no-cache --label \u00e4=\u00f6 --output type=image,source-date-epoch=0 {tmp_path}"
    other = _shell(runner.root, line, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (other.returncode, other.stdout) == (0, _shell(runner.root, line).stdout)
