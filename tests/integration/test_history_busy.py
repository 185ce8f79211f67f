"""Builds at the same time, while others list, read and remove what is on record."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from builder.build import history
from builder.cache.store import Store
from builder.errors import PybuildError
from builder.solver.progress import LogEvent
from tests.support.buildlab import Lab
from tests.support.cli import Runner

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    lab = Lab(tmp_path)
    lab.close()
    return Runner(lab.store.root)


def test_reading_and_removing_while_others_build(runner: Runner, tmp_path: Path) -> None:
    builds: list[subprocess.Popen[bytes]] = []
    for number in range(4):
        context = tmp_path / f"c{number}"
        context.mkdir()
        status = 3 if number == 3 else 0
        text = f"FROM busybox\nRUN for i in $(seq 200); do echo {number} line $i; done; exit {status}\n"
        (context / "Dockerfile").write_text(text)
        builds.append(runner.start("build", "--network=none", "--no-cache", context))
    stop, problems = threading.Event(), []

    def read() -> None:
        with Store.open(runner.root) as store:
            while not stop.is_set():
                for record in list(history.records(store)):
                    try:
                        for _ in history.events(store, record, follow=False):
                            pass
                    except PybuildError as error:
                        problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    removed: set[str] = set()
    while any(build.poll() is None for build in builds):
        done = json.loads(f"[{','.join(runner.run('history', 'ls', '--format=json').out.splitlines())}]")
        victims = [item["Ref"] for item in done if item["Status"] == "Completed"][:1]
        if victims and not removed:
            runner.run("history", "rm", *victims)
            removed.update(victims)
        time.sleep(0.05)
    stop.set()
    reader.join()
    assert not problems
    assert sorted(build.wait() for build in builds) == [0, 0, 0, 1]
    with Store.open(runner.root) as store:
        left = list(history.records(store))
        assert len(left) == 4 - len(removed)
        for record in left:
            said = b"".join(e.data for e in history.events(store, record) if isinstance(e, LogEvent))
            lines = said.decode().splitlines()
            assert len(lines) == 200
            assert len({line.split()[0] for line in lines}) == 1
        assert sorted(path.name for path in (runner.root / "history").iterdir()) == sorted(
            r.ref for r in left
        )


def test_logs_follow_a_running_build(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo first; sleep 1.5; echo second\n")
    build = runner.start("build", "--network=none", tmp_path)
    for _ in range(100):
        if runner.run("history", "ls", "-q", "--filter", "status=running").out:
            break
    followed = runner.run("history", "logs").out
    assert build.wait() == 0
    assert "first" in followed
    assert "second" in followed
    assert runner.run("history", "ls", "-q", "--filter", "status=running").out == ""


def test_only_the_display_is_clipped(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN yes 0123456789 | head -n 100000; echo the end; exit 3\n"
    )

    def shown(**env: str) -> str:
        return runner.build(tmp_path, "--network=none", env=env, status=1).err

    display = shown()
    assert "[output clipped, log limit 200KiB/s reached]" in display
    assert "the end" in display  # kept, since the step failed
    assert display.count("0123456789\n") < 60_000
    assert runner.run("history", "logs").out.count("0123456789\n") >= 100_000
    by_size = shown(BUILDKIT_STEP_LOG_MAX_SPEED="-1", BUILDKIT_STEP_LOG_MAX_SIZE="524288")
    assert "[output clipped, log limit 0.5MiB reached]" in by_size
    whole = shown(BUILDKIT_STEP_LOG_MAX_SPEED="-1", BUILDKIT_STEP_LOG_MAX_SIZE="-1")
    assert "clipped" not in whole
    assert whole.count("0123456789\n") >= 100_000
