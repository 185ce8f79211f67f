"""kill -9 at any moment: the next build is right, nothing is repaired, nothing is left (promise 3)."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.cli import Runner
from tests.support.images import read_docker, read_oci
from tests.support.leaks import mounts_below

pytestmark = pytest.mark.root
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
DOCKERFILE = """\
FROM busybox AS a
RUN for n in $(seq 200); do echo $n > /f$n; done
FROM busybox AS b
COPY data /data
RUN --mount=type=cache,target=/c echo x >> /c/log && rm -rf /data/1* && mkdir -p /o/p && echo y > /o/p/q
FROM busybox
COPY --from=a /f1 /f2 /f3 /a/
COPY --from=b /o /o
COPY data /data
RUN rm /data/22 && chmod 700 /data && echo done > /done
"""


def context(tmp_path: Path) -> Path:
    ctx = tmp_path / "ctx"
    (ctx / "data").mkdir(parents=True)
    for number in range(300):
        (ctx / "data" / str(number)).write_text(str(number) * 100)
    (ctx / "Dockerfile").write_text(DOCKERFILE)
    return ctx


def survive(pybuild: Runner, busybox: Path, tmp_path: Path, kills: int) -> None:
    ctx = context(tmp_path)
    output = "type=oci,dest={},rewrite-timestamp=true"
    reference = Runner(tmp_path / "reference" / "root")
    reference.load(busybox)
    began = time.monotonic()
    reference.build(ctx, "--output", output.format(tmp_path / "want.tar"), env=EPOCH)
    whole = time.monotonic() - began
    want = read_oci(tmp_path / "want.tar")
    reference.clean()

    seed = int(os.environ.get("PYBUILD_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    sys.stderr.write(f"PYBUILD_TEST_SEED={seed}\n")
    dice = random.Random(seed)
    for number in range(kills):
        if number % 10 == 0:
            pybuild.clean()
            pybuild._loaded.clear()
            pybuild.load(busybox)
        flags = ["--no-cache"] if dice.random() < 0.3 else []
        dest = tmp_path / "got.tar"
        process = pybuild.start("build", *flags, "-t", "victim", "--output", output.format(dest), str(ctx))
        time.sleep(dice.uniform(0, whole * 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if dest.exists():
            assert read_oci(dest).config["rootfs"]["diff_ids"], "half an archive under its final name"
    settle(pybuild)
    pybuild.build(ctx, "-t", "victim", "--output", output.format(tmp_path / "after.tar"), env=EPOCH)
    after = read_oci(tmp_path / "after.tar")
    assert after.config["rootfs"] == want.config["rootfs"]
    pybuild.build(ctx, "-t", "victim")
    pybuild.run("save", "--output", tmp_path / "saved.tar", "victim")
    read_docker(tmp_path / "saved.tar")
    pybuild.run("builder", "prune", "--all", "--force")
    pybuild.build(ctx, "-t", "victim")
    assert not mounts_below(pybuild.root)


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


def test_five_kills(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    survive(pybuild, busybox, tmp_path, 5)


@pytest.mark.soak
def test_fifty_kills(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    survive(pybuild, busybox, tmp_path, 50)
