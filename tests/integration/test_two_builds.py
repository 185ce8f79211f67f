"""Several processes over one state directory: equal work is done once, nothing is mixed up (BLD, kaniko#3310)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Runner
from tests.support.images import read_oci

pytestmark = pytest.mark.root


def finish(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err.decode(errors="replace")


def test_equal_builds_share_their_steps(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    pybuild.load(busybox)
    ctx = tmp_path / "ctx"
    ctx.mkdir()
    (ctx / "Dockerfile").write_text("FROM busybox\nRUN sleep 0.5; head -c 16 /dev/urandom | md5sum > /r\n")
    outputs = [tmp_path / f"{number}.tar" for number in range(3)]
    finish(
        [
            pybuild.start("build", "--output", f"type=oci,dest={out}", str(ctx), stderr=subprocess.PIPE)
            for out in outputs
        ]
    )
    found = [read_oci(out).config["rootfs"]["diff_ids"] for out in outputs]
    assert found[0] == found[1] == found[2]


def test_different_builds_do_not_mix(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    pybuild.load(busybox)
    processes = []
    for number in range(6):
        ctx = tmp_path / f"ctx{number}"
        ctx.mkdir()
        (ctx / f"only{number}").write_text(str(number))
        (ctx / "Dockerfile").write_text(
            f"FROM busybox\nCOPY . /c/\nRUN mkdir /r && ls /c > /r/list && echo {number} > /r/n\n"
        )
        processes.append(pybuild.start("build", "-t", f"mix:{number}", str(ctx), stderr=subprocess.PIPE))
    finish(processes)
    for number in range(6):
        done = pybuild.run("run", "--rm", "--network=none", f"mix:{number}", "cat", "/r/list", "/r/n")
        assert done.out == f"Dockerfile\nonly{number}\n{number}\n"


def test_locked_cache_mount_is_used_by_one_at_a_time(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    pybuild.load(busybox)
    step = (
        "test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy && echo x >> /c/log && wc -l < /c/log"
    )
    processes = []
    for number in range(4):
        ctx = tmp_path / f"ctx{number}"
        ctx.mkdir()
        (ctx / "Dockerfile").write_text(
            f"FROM busybox\nRUN --mount=type=cache,id=one,target=/c,sharing=locked {step} && echo {number} > /n\n"
        )
        processes.append(pybuild.start("build", str(ctx), stderr=subprocess.PIPE))
    finish(processes)
    ctx = tmp_path / "ctx"
    done = pybuild.dockerfile(
        ctx, "FROM busybox\nRUN --mount=type=cache,id=one,target=/c echo lines=$(wc -l < /c/log)\n"
    )
    assert "lines=4" in done.err


def test_same_tag_at_once_ends_as_one_of_them(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    pybuild.load(busybox)
    processes = []
    for number in range(4):
        ctx = tmp_path / f"ctx{number}"
        ctx.mkdir()
        (ctx / "Dockerfile").write_text(f"FROM busybox\nRUN echo {number} > /n\n")
        processes.append(pybuild.start("build", "-t", "same", str(ctx), stderr=subprocess.PIPE))
    finish(processes)
    assert pybuild.run("run", "--rm", "--network=none", "same", "cat", "/n").out.strip() in set("0123")


def test_prune_beside_a_build_takes_nothing_from_it(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    pybuild.load(busybox)
    ctx = tmp_path / "ctx"
    ctx.mkdir()
    steps = "".join(f"RUN echo {number} > /f{number}; sleep 0.1\n" for number in range(8))
    (ctx / "Dockerfile").write_text(f"FROM busybox\n{steps}")
    process = pybuild.start("build", "-t", "kept", str(ctx), stderr=subprocess.PIPE)
    while process.poll() is None:
        pybuild.run("builder", "prune", "--all", "--force")
    finish([process])
    pybuild.run("builder", "prune", "--all", "--force")
    done = pybuild.run("run", "--rm", "--network=none", "kept", "sh", "-c", "cat /f*")
    assert done.out.split() == [str(number) for number in range(8)]
