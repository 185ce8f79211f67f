"""Many processes build and prune one small state directory at once: all builds end well, nothing is damaged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.fsck import check
from tests.support.buildlab import base_tar
from tests.support.cli import Runner

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="builds here run as root"),
]
LIMIT = "16MB"


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path / "root")
    archive = tmp_path / "base.tar"
    archive.write_bytes(base_tar(tmp_path))
    runner.run("import", archive, "busybox")
    yield runner
    runner.clean()


def contexts(tmp_path: Path, count: int) -> list[Path]:
    """Builds that share some of their steps and some of their content."""
    made = []
    for number in range(count):
        path = tmp_path / f"context{number}"
        path.mkdir()
        (path / "file").write_bytes(b"x" * 200_000 * (number % 3 + 1))
        (path / "Dockerfile").write_text(
            f"FROM busybox AS a\nRUN dd if=/dev/zero of=/a bs=100000 count={number % 4 + 1}\nCOPY file /f\n"
            f"FROM busybox\nCOPY --from=a /a /f /\n"
            f"RUN --mount=type=cache,id=m{number % 2},target=/c echo {number} > /c/{number} && cat /a > /b\n"
        )
        made.append(path)
    return made


def storm(
    command: Runner, tmp_path: Path, *, seconds: float, processes: int, seed: int, kills: float = 0
) -> int:
    """Keep so many commands running for so long, and kill this share of them; the number that ended."""
    chance = random.Random(seed)
    places = contexts(tmp_path, 8)
    running: list[tuple[subprocess.Popen[bytes], tuple[str, ...], Path]] = []
    ended = 0
    deadline = time.monotonic() + seconds
    while running or time.monotonic() < deadline:
        while len(running) < processes and time.monotonic() < deadline:
            words = verb(chance, places)
            log = tmp_path / f"log{ended}-{len(running)}-{chance.random()}"
            with open(log, "wb") as out:
                running.append((command.start(*words, stdout=out, stderr=out), words, log))
        for item in list(running):
            process, words, log = item
            if process.poll() is None:
                if chance.random() < kills / 100:
                    os.killpg(process.pid, signal.SIGKILL)
                continue
            running.remove(item)
            ended += 1
            fine = (0, -signal.SIGKILL) if kills else (0,)
            assert process.returncode in fine, f"{' '.join(words)}\n{log.read_text()}"
            log.unlink()
        time.sleep(0.01)
    return ended


def verb(chance: random.Random, places: list[Path]) -> tuple[str, ...]:
    kind = chance.random()
    if kind < 0.7:
        more = ("--no-cache",) if chance.random() < 0.2 else ()
        number = chance.randrange(len(places))
        name = f"t{number}"
        return ("build", "--network=none", f"--max-used={LIMIT}", *more, "-t", name, str(places[number]))
    if kind < 0.85:
        return ("builder", "prune", "--force", "--all")
    if kind < 0.95:
        return ("builder", "prune", "--force", f"--max-used={chance.randrange(1, 8)}MB")
    return ("du",)


def judge(command: Runner) -> None:
    found = check(command.root)
    assert [item for item in found if item.kind == "damage"] == []
    command.run("du")
    assert check(command.root) == ()


def test_builds_and_prunes_do_not_hurt_each_other(command: Runner, tmp_path: Path) -> None:
    assert storm(command, tmp_path, seconds=5, processes=5, seed=1) > 10
    judge(command)


def test_checking_beside_live_processes_finds_nothing(command: Runner, tmp_path: Path) -> None:
    places = contexts(tmp_path, 3)
    words = ("build", "--network=none", "--no-cache", "--max-used=16MB")
    live = [command.start(*words, str(place)) for place in places]
    looked = 0
    while any(process.poll() is None for process in live):
        assert check(command.root) == ()
        looked += 1
    assert looked
    assert [process.returncode for process in live] == [0, 0, 0]


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
def test_a_long_storm(command: Runner, tmp_path: Path, seed: int) -> None:
    kills = 0.5 if seed % 2 else 0
    assert storm(command, tmp_path, seconds=60, processes=10, seed=100 + seed, kills=kills) > 60
    judge(command)
