"""kill -9 at any moment: the next build is right, nothing is repaired, nothing is left (promise 3)."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.cli import REPO, Runner
from tests.support.images import read_oci
from tests.support.leaks import mounts_below

pytestmark = pytest.mark.root
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
EXAMPLE = REPO / "examples" / "c-multistage"


def survive(pybuild: Runner, debian: Path, tmp_path: Path, kills: int) -> None:
    """Kill a build of the example ``kills`` times, each time followed by an ordinary build."""

    def build(runner: Runner, name: str) -> dict[str, object]:
        dest = tmp_path / f"{name}.tar"
        output = f"type=oci,dest={dest},rewrite-timestamp=true"
        runner.build(EXAMPLE, "-t", "victim", "--output", output, env=EPOCH)
        return read_oci(dest).config

    reference = Runner(tmp_path / "reference" / "root")
    reference.load(debian)
    began = time.monotonic()
    want = build(reference, "want")
    whole = time.monotonic() - began
    reference.clean()

    seed = int(os.environ.get("PYBUILD_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    sys.stderr.write(f"PYBUILD_TEST_SEED={seed}\n")
    dice = random.Random(seed)
    pybuild.load(debian)
    for number in range(kills):
        dest = tmp_path / "got.tar"
        output = f"type=oci,dest={dest}"
        process = pybuild.start("build", "--no-cache", "-t", "victim", "--output", output, str(EXAMPLE))
        time.sleep(dice.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if dest.exists():
            assert read_oci(dest).config["rootfs"], "half an archive under its final name"
            dest.unlink()
        if number % 5 == 4:
            pybuild.run("builder", "prune", "--all", "--force")
        after = build(pybuild, "after")
        assert after["rootfs"] == want["rootfs"], f"after kill {number}"
        assert after["config"] == want["config"]
    settle(pybuild)
    assert not mounts_below(pybuild.root)
    pybuild.run("system", "prune", "--all", "--force")
    assert_empty(pybuild.root)


def assert_empty(root: Path) -> None:
    """Nothing but the skeleton of a state directory is left."""
    left = [
        str(path.relative_to(root))
        for name in ("content/blobs", "snapshots", "tmp", "cachemounts", "containers", "volumes", "git")
        for path in (root / name).rglob("*")
        if not path.is_dir()
    ]
    assert not left
    assert not list((root / "snapshots").iterdir())


def settle(runner: Runner) -> None:
    """Children of a killed build end by themselves, soon."""
    root = os.fsencode(runner.root)
    for _ in range(100):
        alive = [pid for pid in os.listdir("/proc") if pid.isdigit() and root in _command(pid)]
        if not alive:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes of a killed build live on: {alive}")


def _command(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""


def test_fifty_kills(pybuild: Runner, debian: Path, tmp_path: Path) -> None:
    survive(pybuild, debian, tmp_path, 50)


@pytest.mark.soak
def test_five_hundred_kills(pybuild: Runner, debian: Path, tmp_path: Path) -> None:
    survive(pybuild, debian, tmp_path, 500)
