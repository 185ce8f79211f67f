"""When a build fails: what goes on, what is tried again, what is kept, and what can be brought out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pybuild
from builder import images
from builder.build.failed import MAX_FAILED, kept_steps
from builder.cache.store import Store
from tests.support.buildlab import base_tar
from tests.support.cli import Runner
from tests.support.web import Handler, serving

pytestmark = pytest.mark.root

TWO_FAIL = """\
FROM busybox AS one
RUN echo first; exit 3
FROM busybox AS two
COPY gone /
FROM busybox AS three
RUN sleep 0.3; echo fine > /three
FROM busybox
COPY --from=one / /one
COPY --from=two / /two
COPY --from=three /three /
RUN echo never
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    base = tmp_path_factory.mktemp("failures")
    with Store.open(base / "root") as store:
        images.import_(store, io.BytesIO(base_tar(base)), "busybox:latest")
    yield Runner(base / "root")


def build(runner: Runner, tmp: Path, text: str, *words: str | Path, **more):
    return runner.dockerfile(tmp, text, "--network=none", *words, **more)


def test_keep_going_reports_every_failure_and_runs_the_rest(runner: Runner, tmp_path: Path) -> None:
    done = build(runner, tmp_path, TWO_FAIL, "--keep-going", status=1)
    assert "Dockerfile:2\n" in done.err
    assert "Dockerfile:4\n" in done.err
    assert "exit code: 3" in done.err
    assert '"/gone": not found' in done.err
    assert done.err.endswith("ERROR: 2 steps failed\n")
    assert "[three 2/2] RUN sleep" in done.err
    assert "RUN echo never" not in done.err.replace(TWO_FAIL, "")
    told = runner.run(
        "--error-format=json", "build", "-q", "--keep-going", "--network=none", tmp_path, status=1
    )
    error = json.loads(told.err.splitlines()[-1])["error"]
    assert error["code"] == "several-steps-failed"
    assert [item["location"]["start_line"] for item in error["failures"]] == [4, 2]
    # What went well in spite of them is there for the next build.
    (tmp_path / "gone").touch()
    fixed = build(runner, tmp_path, TWO_FAIL.replace("exit 3", "exit 0"))
    assert "[three 2/2] RUN sleep 0.3; echo fine > /three\n" in fixed.err
    assert "CACHED" in fixed.err


def test_one_failure_without_keep_going_is_told_alone(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "gone").touch()
    done = build(runner, tmp_path, TWO_FAIL.replace("first", "alone"), status=1)
    assert done.err.count("failed to solve") == 1
    assert "steps failed" not in done.err


def test_a_step_that_takes_too_long_is_killed(runner: Runner, tmp_path: Path) -> None:
    done = build(
        runner, tmp_path, "FROM busybox\nRUN echo begun; sleep 63\n", "--step-timeout=600ms", status=1
    )
    assert done.seconds < 8
    assert (
        'process "/bin/sh -c echo begun; sleep 63" did not complete within 600ms and was killed' in done.err
    )
    assert "hint: raise --step-timeout" in done.err
    for bad in ("soon", "-3s", "0"):
        assert runner.build(tmp_path, f"--step-timeout={bad}", status=2).status == 2


def test_retries_start_from_a_clean_tree_and_are_told(runner: Runner, tmp_path: Path) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=cache,target=/c,id=retry test ! -e /left || exit 99; touch /left; "
        "echo x >> /c/n; test $(wc -l < /c/n) -eq 3\nRUN cat /left\n"
    )
    done = build(runner, tmp_path, text, "--retry=3")
    assert "attempt 1 of 4 failed: process" in done.err
    assert "attempt 2 of 4 failed: process" in done.err
    assert "attempt 3" not in done.err
    failed = build(runner, tmp_path, "FROM busybox\nRUN echo once more; exit 5\n", "--retry=1", status=1)
    assert failed.err.count("attempt 1 of 2 failed") >= 1
    assert "exit code: 5" in failed.err
    assert len(_trees(runner)) <= MAX_FAILED


def test_a_source_that_fails_is_asked_again(runner: Runner, tmp_path: Path) -> None:
    asked: list[str] = []

    class Flaky(Handler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.answer(b"ok", 200 if len(asked) > 1 else 503)

    with serving(Flaky) as url:
        text = f"FROM scratch\nADD {url}/f /f\n"
        assert "503" in build(runner, tmp_path, text, status=1).err
        asked.clear()
        done = build(runner, tmp_path, text, "--retry=1")
        assert "attempt 1 of 2 failed: invalid response status 503" in done.err


def test_the_python_api_takes_the_same_options(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(pybuild.PybuildError) as caught:
        pybuild.build(
            tmp_path, dockerfile=TWO_FAIL.encode(), root=runner.root, network="none", keep_going=True
        )
    assert {type(item).__name__ for item in caught.value.failures} == {"StepFailed", "SolveError"} or len(
        caught.value.failures
    ) == 2
    began = time.monotonic()
    with pytest.raises(pybuild.StepFailed, match="did not complete within 500ms"):
        pybuild.build(
            {"Dockerfile": "FROM busybox\nRUN sleep 64\n"},
            root=runner.root,
            network="none",
            step_timeout=0.5,
            retry=1,
        )
    assert 1.5 < time.monotonic() - began < 10


def test_files_come_out_of_a_failed_build_and_never_through_links(runner: Runner, tmp_path: Path) -> None:
    text = (
        "FROM busybox AS lib\nRUN mkdir /out && echo lib > /out/log\n"
        "FROM busybox AS work\nCOPY --from=lib /out/log /log\n"
        "RUN mkdir -p /r/sub && echo data > /r/sub/f && ln -s /etc/passwd /r/link && ln -s / /root-link && "
        "chmod 4755 /r/sub/f && exit 1\n"
    )
    out = tmp_path / "out"
    rescues = ["work:/r=" + f"{out}/r", "lib:/out/log=" + f"{out}/log", "WORK:/r/sub/f=" + f"{out}/one"]
    bad = ["work:/root-link/etc/passwd=x", "work:/r/link=x", "work:/nothing=x", "other:/r=x"]
    words = [f"--output-on-failure={item}" for item in (*rescues, *bad)]
    done = build(runner, tmp_path / "c", text, *words, status=1, cwd=tmp_path)
    assert (out / "r/sub/f").read_text() == "data\n"
    assert (out / "r/sub/f").stat().st_mode & 0o7777 == 0o755
    assert os.readlink(out / "r/link") == "/etc/passwd"
    assert (out / "log").read_text() == "lib\n"
    assert (out / "one").read_text() == "data\n"
    assert not (tmp_path / "x").exists()
    assert done.err.count("WARNING: --output-on-failure") == len(bad)
    for wrong in ("work", "work:r=x", "work:/r", "work:/../r=x"):
        assert (
            "STAGE:/path=dest"
            in build(runner, tmp_path / "c", text, f"--output-on-failure={wrong}", status=2).err
        )
    # A directory that is there already is written into, and not through a link in it.
    (out / "r2").mkdir()
    (tmp_path / "victim").mkdir()
    (out / "r2/sub").symlink_to(tmp_path / "victim")
    build(runner, tmp_path / "c", text, f"--output-on-failure=work:/r={out}/r2", status=1)
    assert not list((tmp_path / "victim").iterdir())


def _trees(runner: Runner) -> list[str]:
    with Store.open(runner.root) as store:
        return [
            info.description for info in store.snapshots.list() if info.description.startswith("failed: ")
        ]


def test_only_the_last_failed_builds_keep_their_trees(runner: Runner, tmp_path: Path) -> None:
    for number in range(MAX_FAILED + 2):
        build(runner, tmp_path, f"FROM busybox\nRUN echo {number} > /kept; exit 1\n", status=1)
    trees = _trees(runner)
    assert len(trees) == MAX_FAILED
    assert not any("echo 0 " in name or "echo 1 " in name for name in trees)
    assert f"failed: [2/2] RUN echo {MAX_FAILED + 1} > /kept" in runner.run("du", "--verbose").out
    # It is no result: the same build runs its step again, and fails again.
    again = build(runner, tmp_path, f"FROM busybox\nRUN echo {MAX_FAILED + 1} > /kept; exit 1\n", status=1)
    assert "CACHED" not in again.err.partition("[2/2]")[2]
    # The tree goes with a prune; the shell then says so.
    runner.run("builder", "prune", "--force")
    assert _trees(runner) == []
    gone = runner.run("debug", "shell", "--", "true", status=2)
    assert "is gone" in gone.err
    assert "a prune removes it" in gone.err


def test_a_tree_that_somebody_looks_at_is_not_taken_away(runner: Runner, tmp_path: Path) -> None:
    build(runner, tmp_path, "FROM busybox\nRUN echo looked > /at; exit 1\n", status=1)
    shell = subprocess.Popen(
        [*runner.prefix, "debug", "shell"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=runner.environment(),
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(b"echo ready\n")
    shell.stdin.flush()
    assert shell.stdout.readline() == b"ready\n"
    runner.run("builder", "prune", "--all", "--force")
    for number in range(MAX_FAILED):
        build(runner, tmp_path, f"FROM busybox\nRUN echo more {number}; exit 1\n", status=1)
    out, _ = shell.communicate(b"cat /at; echo changed > /at; exit 6\n", timeout=20)
    assert out == b"looked\n"
    assert shell.returncode == 6
    assert os.listdir(runner.root / "tmp") == []
    with Store.open(runner.root) as store:
        assert store.db.all("SELECT 1 FROM snapshots WHERE kind='active'") == []


def _kept(runner: Runner) -> list[str]:
    """The builds that have kept a failed step."""
    with Store.open(runner.root) as store:
        return [row.id for row in store.builds.list() if any(s.failed for s in kept_steps(store, row.id))]


def test_kill_9_while_failures_are_kept_leaves_nothing_broken(runner: Runner, tmp_path: Path) -> None:
    tmp_path.joinpath("Dockerfile").write_text(
        "FROM busybox AS a\nRUN echo early > /early; exit 1\nFROM busybox AS b\nRUN sleep 65\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n"
    )
    before = _kept(runner)
    process = runner.start("build", "--keep-going", "--network=none", tmp_path)
    end = time.monotonic() + 15
    while not set(_kept(runner)) - set(before) and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert runner.run("debug", "shell", "--", "cat", "/early").out == "early\n"
    with Store.open(runner.root) as store:
        assert store.db.all("SELECT 1 FROM snapshots WHERE kind='active'") == []
        newest = store.builds.list(limit=1)[0]
        assert newest.status in ("canceled", "error")
        assert [step.failed for step in kept_steps(store, newest.id)].count(True) == 1


def test_wrong_uses_are_explained(runner: Runner, tmp_path: Path) -> None:
    build(runner, tmp_path, "FROM busybox AS q\nRUN echo q1\nRUN echo q2 > /q2\n")
    assert "no such build" in runner.run("debug", "shell", "zzz", status=2).err
    assert "has no step '9'" in runner.run("debug", "shell", ":9", status=2).err
    several = runner.run("debug", "shell", ":echo q", status=2).err
    assert "[2/3] RUN echo q1" in several
    assert "[3/3] RUN echo q2" in several
    assert runner.build(tmp_path, "--on-error=fix", status=2).err.count("shell is known") == 1
    conflict = runner.run("build", "--on-error=shell", "-f", "-", tmp_path, stdin=b"FROM scratch\n", status=2)
    assert "standard input" in conflict.err
    scratch = build(runner, tmp_path, "FROM scratch\nCOPY Dockerfile /\n")
    assert scratch.status == 0
    assert "has no shell" in runner.run("debug", "shell", status=2).err
