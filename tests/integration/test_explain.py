"""Builds, one change, and the cause that is named for it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import images
from builder.build import BuildResult
from builder.build.report import find_report, reports
from builder.errors import PybuildError
from builder.solver.causes import Cause
from builder.solver.types import Secret
from tests.support.buildlab import Lab, base_tar
from tests.support.cli import Runner

pytestmark = [pytest.mark.root, pytest.mark.linux]

TEXT = """\
FROM busybox
ARG V=1
ENV E=1
WORKDIR /app
COPY . src
RUN echo $V > /v
RUN --mount=type=secret,id=s true
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("explain"))
    yield lab
    lab.close()


def causes(result: BuildResult, part: str) -> list[Cause]:
    """Why the step ran whose name holds ``part``."""
    (step,) = [step for step in result.steps if part in step.name]
    assert step.status == "ran", step
    return list(step.causes)


def edit(old: str, new: str) -> Callable[[Lab, Path], dict[str, Any]]:
    def change(lab: Lab, root: Path) -> dict[str, Any]:
        text = (root / "Dockerfile").read_text()
        assert old in text
        (root / "Dockerfile").write_text(text.replace(old, new))
        return {}

    return change


def files(change: Callable[[Path], object], **options: Any) -> Callable[[Lab, Path], dict[str, Any]]:
    def changed(lab: Lab, root: Path) -> dict[str, Any]:
        change(root)
        return options

    return changed


def options(**given: Any) -> Callable[[Lab, Path], dict[str, Any]]:
    return files(Path.exists, **given)


CHANGES: dict[str, tuple[Callable[[Lab, Path], dict[str, Any]], str, list[Cause]]] = {
    "file changed": (files(lambda r: (r / "a").write_text("new\n")), "COPY", [Cause("file-changed", "a")]),
    "file added": (files(lambda r: (r / "d/new").write_text("")), "COPY", [Cause("file-added", "d/new")]),
    "file removed": (files(lambda r: (r / "d/b").unlink()), "COPY", [Cause("file-removed", "d/b")]),
    "file mode": (files(lambda r: (r / "a").chmod(0o755)), "COPY", [Cause("file-mode", "a", "0644", "0755")]),
    "ignored": (
        files(lambda r: (r / ".dockerignore").write_text("d/b\nDockerfile\n.dockerignore\n")),
        "COPY",
        [Cause("ignored", "d/b", note="line 1 of .dockerignore: d/b")],
    ),
    "build argument": (options(build_args=(("V", "2"),)), "echo", [Cause("argument", "V", "1", "2", "given with --build-arg")]),
    "argument default": (edit("ARG V=1", "ARG V=3"), "echo", [Cause("argument", "V", "1", "3", "the default in the Dockerfile")]),
    "variable": (edit("ENV E=1", "ENV E=2"), "echo", [Cause("variable", "E", "1", "2")]),
    "command": (
        edit("echo $V >", "echo other >"), "echo",
        [Cause("command", "", "RUN echo $V > /v", "RUN echo other > /v")],
    ),
    "workdir": (edit("WORKDIR /app", "WORKDIR /srv"), "COPY", [
        Cause("value", "its destination", "/app/src", "/srv/src"),
        Cause("upstream", "[2/5] WORKDIR /srv"),
    ]),
    "user": (edit("RUN --mount", "USER app\nRUN --mount"), "--mount", [Cause("user", "", "root", "app")]),
    "shell": (edit("RUN echo", 'SHELL ["/bin/sh", "-ec"]\nRUN echo'), "echo",
              [Cause("shell", "", "/bin/sh -c", "/bin/sh -ec")]),
    "chmod": (edit("COPY . src", "COPY --chmod=700 . src"), "COPY",
              [Cause("command", "", "COPY . src", "COPY --chmod=700 . src")]),
    "upstream": (files(lambda r: (r / "a").write_text("x")), "echo", [Cause("upstream", "[3/5] COPY . src")]),
    "no cache": (options(no_cache=True), "echo", [Cause("no-cache", "--no-cache")]),
    "inserted step": (edit("RUN echo", "RUN seq 3\nRUN echo"), "echo",
                      [Cause("upstream", "[4/6] RUN seq 3", "[3/5] COPY . src", "[4/6] RUN seq 3")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_change(lab: Lab, name: str) -> None:
    root = lab.context(
        {"a": "one\n", "d/b": "two\n", "own": name, ".dockerignore": "Dockerfile\n.dockerignore\n"}
    )
    secrets = (Secret(id="s", data=b"hush"),)
    text = TEXT.replace("ENV E=1", f"ENV E=1 TEST={name.replace(' ', '-')}")
    first = lab.build(root, text, secrets=secrets)
    assert all(step.causes for step in first.steps if step.status == "ran")
    change, step, expected = CHANGES[name]
    second = lab.build(root, **{"secrets": secrets, **change(lab, root)})
    assert causes(second, step) == expected
    kept = find_report(lab.store, str(second.build_id))
    assert kept.steps == second.steps
    assert (kept.status, kept.image_id) == ("completed", second.image_id)


def test_base_that_moved(lab: Lab, tmp_path: Path) -> None:
    def base(text: str) -> None:
        images.import_(lab.store, io.BytesIO(base_tar(tmp_path)), "moving:1", (f"LABEL a={text}",))

    base("1")
    root = lab.context({"a": "one\n"})
    lab.build(root, "FROM moving:1\nRUN echo base")
    (tmp_path / "busybox-tree/added").write_text("x")
    base("2")
    (cause,) = causes(lab.build(root), "RUN")
    assert (cause.kind, cause.subject) == ("base", "docker.io/library/moving:1")
    assert "moved: sha256:" in cause.text


def test_unchanged_build_has_nothing_to_explain(lab: Lab) -> None:
    root = lab.context()
    assert lab.build(root, "FROM busybox\nRUN echo memo").build_id
    before = reports(lab.store)
    again = lab.build(root)
    assert again.steps == ()
    recalled = lab.store.builds.get(str(again.build_id))
    assert recalled is not None
    assert recalled.data["recalled"]
    assert reports(lab.store) == before


def test_failed_step_and_the_next_try(lab: Lab) -> None:
    root = lab.context()
    with pytest.raises(PybuildError):
        lab.build(root, "FROM busybox\nRUN true\nRUN exit 3", build_id="failing")
    report = find_report(lab.store, "failing")
    assert report.status == "error"
    assert [step.status for step in report.steps] == ["ran", "failed"]
    assert "exit" in report.error
    with pytest.raises(PybuildError):
        lab.build(root, build_id="failing-again")
    (step,) = find_report(lab.store, "failing-again").find_steps("3")
    assert step.causes == (Cause("unfinished"),)


def test_result_that_was_pruned(lab: Lab) -> None:
    root = lab.context()
    first = lab.build(root, "FROM busybox\nRUN echo pruned")
    for step in first.steps:
        lab.store.records.forget(step.key)
    assert causes(lab.build(root), "RUN") == [Cause("gone")]


def test_the_same_dockerfile_elsewhere_is_compared_too(lab: Lab) -> None:
    text = "FROM busybox\nCOPY . /elsewhere\nRUN echo elsewhere"
    lab.build(lab.context({"a": "1", "b": "1"}), text)
    second = lab.build(lab.context({"a": "2", "b": "1"}), text)
    assert causes(second, "COPY") == [Cause("file-changed", "a")]


def test_the_command_line_explains(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "root")
    (tmp_path / "base.tar").write_bytes(base_tar(tmp_path))
    runner.run("import", tmp_path / "base.tar", "busybox")
    context = tmp_path / "context"
    context.mkdir()
    (context / "a\x1b[1m").write_text("1")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY . /x\nRUN true\n")
    words = ("build", "--network=none", "--progress=quiet", "--explain", context)
    assert "never built before" in runner.run(*words).err
    assert "Nothing had to run: 2 steps" in runner.run(*words).err
    (context / "a\x1b[1m").write_text("2")
    shown = runner.run(*words).err
    assert "[1m changed" in shown
    assert "\x1b[" not in shown
    assert "builds on [2/3] COPY" in runner.run("explain", "last", "3").out
    found = json.loads(runner.run("explain", "--format=json").out)
    assert found["status"] == "completed"
    assert found["steps"][0]["causes"][0]["kind"] == "file-changed"
    listed = json.loads(runner.run("explain", "--list", "--format=json").out)
    assert listed[0]["id"] == found["id"]
    assert runner.run("explain", found["id"][:6], "COPY").out.count("because") == 1
    assert "no such build" in runner.run("explain", "zzz", "2", status=2).err
    assert "has no step" in runner.run("explain", "zzz", status=2).err
    assert "[3/3] RUN true" in runner.run("explain", "3").out
    assert "has no step" in runner.run("explain", "last", "77", status=2).err
