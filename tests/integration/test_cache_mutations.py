"""One project, many single changes: exactly the steps run again that must, and their true causes are named.

Each case begins where the project was just built, makes one change, and says by hand which steps must run and
why (``tests.support.mutationcases``, ``mutationtexts``). A step whose result comes out as it was ends the chain (early cut-off).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from builder.solver.causes import Cause
from tests.support.buildlab import base_tar
from tests.support.mutationcases import Case, context_cases, file_cases
from tests.support.mutations import NAMES, Project, content
from tests.support.mutationtexts import option_cases, text_cases, value_cases

pytestmark = [pytest.mark.root, pytest.mark.linux]

CASES = [*context_cases(), *file_cases(), *text_cases(), *value_cases(), *option_cases()]
RIGHT = 0.99
"""Of the cases that make steps run, in how many every cause must be the true one."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("mutations"))
    yield made
    made.lab.close()


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.causes for case in CASES if case.expected)


def blame(case: Case, steps: dict[str, Any]) -> Iterator[str]:
    """Where the causes that are named are not those that the case says."""
    for position, (name, step) in enumerate(steps.items()):
        expected = case.causes_of(name, first=position == 0)
        if set(step.causes) != expected or len(step.causes) != len(expected):
            wanted = sorted(cause.text for cause in expected)
            yield f"{case.name}: {step.name}: {[cause.text for cause in step.causes]} instead of {wanted}"


def test_every_change_runs_what_it_must_and_is_named(project: Project) -> None:
    wrong: list[str] = []
    blamed: list[str] = []
    explained = right = 0
    for case in CASES:
        given = case.change(project.root) or {}
        ran = project.ran(project.build(**given))
        project.restore()
        project.forget()
        if ran.keys() != case.expected:
            wrong.append(
                f"{case.name}: not run {sorted(case.expected - ran.keys())},"
                f" run too often {sorted(ran.keys() - case.expected)}"
            )
        if ran:
            found = list(blame(case, ran))
            blamed += found
            explained += 1
            right += not found
    assert not wrong, "\n".join(wrong)
    assert explained == sum(1 for case in CASES if case.expected) >= 130
    assert right / explained >= RIGHT, f"{right} of {explained}\n" + "\n".join(blamed)
    assert not project.reran()


def test_a_moved_base(project: Project) -> None:
    """A tag that names other content runs everything; the same content under another digest nothing."""
    data = base_tar(project.lab.tmp)
    before = project.base_digest()
    try:
        project.base(data, changes=("LABEL moved=1",))
        assert project.reran() == set()
        after = project.base(_with_file(data))
        ran = project.ran(project.build())
        assert ran.keys() == NAMES.keys() - {"tests", "ls"}
        name = "docker.io/library/busybox:latest"
        moved = Cause("base", name, f"{name}@{before}", f"{name}@{after}")
        assert ran["prepare"].causes == (Cause("upstream", "[base 2/3] WORKDIR /src"),)
        assert moved in ran["out"].causes
        (workdir,) = [step for step in project.last.steps if "WORKDIR" in step.name]
        assert workdir.causes == (moved,)
    finally:
        project.base(data)
    assert project.reran() == set()


def test_many_builds_in_one_directory(project: Project) -> None:
    """What is named is the change from the build that differs least, here the last one."""
    for number in ("2", "3"):
        ran = project.ran(project.build(build_args=(("IDLE", number),)))
        assert ran["prepare"].causes == (Cause("argument", "IDLE", "1", number, "given with --build-arg"),)
        assert not project.reran()
    for text in ("one", "two"):
        content("src/a.go", text)(project.root)
        assert project.ran(project.build())["src"].causes == (Cause("file-changed", "src/a.go"),)
    project.restore()


def _with_file(data: bytes) -> bytes:
    out = io.BytesIO(data)
    with tarfile.open(fileobj=out, mode="a") as tar:
        info = tarfile.TarInfo("newer")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"1"))
    return out.getvalue()


def test_cache_mount_content_does_not_count(project: Project) -> None:
    names = [path for path in (project.lab.store.root / "cachemounts").iterdir() if path.is_dir()]
    for path in names:
        (path / "other").write_text("x")
    assert project.reran() == set()
