"""Many processes over one store: builds, runs, tags, deletes and prunes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cli import REPO, Runner
from tests.support.leaks import mounts_below

pytestmark = [pytest.mark.root, pytest.mark.linux]


def hammer(pybuild: Runner, busybox: Path, processes: int, seconds: float) -> None:
    pybuild.load(busybox)
    seed = int(os.environ.get("PYBUILD_TEST_SEED", time.time_ns() % 1_000_000))
    sys.stderr.write(f"PYBUILD_TEST_SEED={seed}\n")
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.hammer", str(pybuild.root), str(seconds), str(seed + number)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPO, env=pybuild.environment(), text=True,
        )
        for number in range(processes)
    ]  # fmt: skip
    wrong: list[str] = []
    done = 0
    for worker in workers:
        out, err = worker.communicate(timeout=seconds + 300)
        lines = [json.loads(line) for line in out.splitlines()]
        if worker.returncode or not lines or "done" not in lines[-1]:
            wrong.append(f"a process ended with {worker.returncode}: {err[-2000:]}")
            continue
        wrong += [json.dumps(line) for line in lines[:-1]]
        done += lines[-1]["done"]
    assert not wrong, "\n".join(wrong[:5])
    assert done >= processes
    pybuild.run("debug", "fsck")
    assert not mounts_below(pybuild.root)
    pybuild.run("system", "prune", "-af")
    pybuild.run("debug", "fsck")


def test_eight_processes(pybuild: Runner, busybox: Path) -> None:
    hammer(pybuild, busybox, 8, 10)


@pytest.mark.soak
def test_thirty_two_processes_for_two_minutes(pybuild: Runner, busybox: Path) -> None:
    hammer(pybuild, busybox, 32, 120)
