"""One project, many single changes: exactly the steps run again that must, and the cause is named.

Each case starts from the same project with a warm cache, makes one change that no other case makes, and says
by hand which steps must run. A step whose result comes out as it was ends the chain (early cut-off).
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builder import images
from builder.solver.causes import Cause
from builder.solver.types import Secret
from tests.support.buildlab import Lab, base_tar

pytestmark = [pytest.mark.root, pytest.mark.linux]

TEXT = """\
ARG BASE=busybox
FROM ${BASE} AS base
ARG USED=1
ARG IDLE=1
ENV COLOR=red
WORKDIR /src
RUN echo prepare

FROM base AS build
COPY go.mod go.sum ./
RUN cat go.mod go.sum > /deps
COPY src src
COPY --chmod=0755 run.sh /usr/bin/run
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=token \\
    cp -R src /out && echo $USED > /out/used
RUN --mount=type=bind,source=assets,target=/assets find /assets > /listing

FROM base AS test
COPY tests tests
RUN ls tests

FROM busybox AS final
COPY --from=build /out /out
COPY --from=build /deps /deps
COPY docs /docs
ENV MODE=prod
RUN echo $MODE > /mode
LABEL stage=final
CMD ["/usr/bin/run"]
"""

STEPS = {
    "prepare": "RUN echo prepare",
    "mods": "COPY go.mod go.sum",
    "deps": "RUN cat go.mod",
    "src": "COPY src src",
    "run": "COPY --chmod=0755 run.sh",
    "build": "cp -R src",
    "assets": "find /assets",
    "tests": "COPY tests",
    "ls": "RUN ls tests",
    "out": "COPY --from=build /out",
    "deps2": "COPY --from=build /deps",
    "docs": "COPY docs",
    "mode": "> /mode",
}
FINAL = {"out", "deps2", "docs", "mode"}
AFTER_SRC = {"src", "run", "build", "assets"} | FINAL
AFTER_MODS = {"mods", "deps", "src", "run", "build", "assets"} | {"deps2", "docs", "mode"}
RUNS = {"prepare", "deps", "build", "assets"}
NOTHING: set[str] = set()

SRC = [f"src/{name}" for name in ("a.go", "b.go", "pkg/c.go", "pkg/d.go", "pkg/deep/e.go", "name with space")]
DOCS = ["docs/index.md", "docs/guide/one.md"]
ASSETS = ["assets/logo.svg", "assets/img/x.png"]
OTHER = ["README", "tests/t1", "notes.log", "src/pkg/debug.log", ".git/HEAD", "tests/deep/t2"]

Change = Callable[[Path], "dict[str, Any] | None"]


@dataclass(frozen=True, slots=True)
class Case:
    """A change, the steps that it makes run, and the causes one of which must be named for the first of them.

    What a value was before is not compared: the nearest earlier step may be one of another case.
    """

    name: str
    change: Change
    expected: set[str]
    causes: tuple[Cause, ...] = field(default=())


def _content(path: str, unique: str) -> Change:
    return lambda root: _none((root / path).write_text(f"changed {unique}\n"))


def _append(path: str, unique: str) -> Change:
    return lambda root: _none((root / path).write_text((root / path).read_text() + unique))


def _same_size(path: str, unique: str) -> Change:
    def change(root: Path) -> None:
        size = (root / path).stat().st_size
        stat = (root / path).stat()
        (root / path).write_text(f"{hash(unique):x}".ljust(size, "~")[:size])
        os.utime(root / path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    return change


def _mode(path: str, mode: int) -> Change:
    return lambda root: (root / path).chmod(mode)


def _mtime(path: str, seconds: int) -> Change:
    return lambda root: os.utime(root / path, (seconds, seconds))


def _owner(path: str, uid: int) -> Change:
    return lambda root: os.chown(root / path, uid, uid)


def _rename(path: str, unique: str) -> Change:
    return lambda root: _none((root / path).rename(root / (path + unique)))


def _remove(path: str) -> Change:
    return lambda root: (root / path).unlink()


def _add(path: str, unique: str) -> Change:
    return lambda root: _none((root / path).with_name(unique).write_text(f"new {unique}"))


def _add_directory(path: str, unique: str) -> Change:
    return lambda root: (root / path).with_name(unique).mkdir()


def _link(path: str, unique: str) -> Change:
    def change(root: Path) -> None:
        (root / path).unlink()
        (root / path).symlink_to(f"/nowhere/{unique}")

    return change


def _rewritten(path: str) -> Change:
    """The same bytes in another inode."""

    def change(root: Path) -> None:
        other = root / (path + ".new")
        shutil.copy(root / path, other)
        other.rename(root / path)

    return change


def _dockerfile(old: str, new: str, **options: Any) -> Change:
    def change(root: Path) -> dict[str, Any]:
        text = (root / "Dockerfile").read_text()
        assert old in text, old
        (root / "Dockerfile").write_text(text.replace(old, new, 1))
        return options

    return change


def _options(**options: Any) -> Change:
    return lambda _: options


def _none(_: object) -> None:
    return None


def _context_cases() -> Iterator[Case]:
    """Every kind of change in every kind of place."""
    places = [
        *((path, AFTER_SRC) for path in SRC),
        *((path, {"docs", "mode"}) for path in DOCS),
        *((path, {"assets"}) for path in ASSETS),
    ]
    for path, steps in places:
        name = path.rpartition("/")[2]
        one = f"{path}:"
        yield Case(one + "content", _content(path, one + "c"), steps, (Cause("file-changed", path),))
        yield Case(one + "append", _append(path, one + "a"), steps, (Cause("file-changed", path),))
        yield Case(one + "same size and time", _same_size(path, one), steps, (Cause("file-changed", path),))
        yield Case(one + "mode x", _mode(path, 0o755), steps, (Cause("file-mode", path, "0644", "0755"),))
        yield Case(one + "mode r", _mode(path, 0o600), steps, (Cause("file-mode", path, "0644", "0600"),))
        yield Case(one + "removed", _remove(path), steps, (Cause("file-removed", path),))
        yield Case(
            one + "renamed",
            _rename(path, ".renamed"),
            steps,
            (Cause("file-removed", path), Cause("file-added", path + ".renamed")),
        )
        added = f"added to {name}"
        yield Case(
            one + "added", _add(path, added), steps, (Cause("file-added", path.removesuffix(name) + added),)
        )
        yield Case(
            one + "directory added",
            _add_directory(path, f"dir at {name}"),
            steps,
            (Cause("file-added", path.removesuffix(name) + f"dir at {name}"),),
        )
        yield Case(one + "became a link", _link(path, one), steps, (Cause("file-changed", path),))
        yield Case(one + "mtime", _mtime(path, 1_000_000_000), NOTHING)
        yield Case(one + "future", _mtime(path, 4_000_000_000), NOTHING)
        yield Case(one + "owner", _owner(path, 1234), NOTHING)
        yield Case(one + "rewritten", _rewritten(path), NOTHING)
    for path in OTHER:
        one = f"{path}:"
        yield Case(one + "content", _content(path, one), NOTHING)
        yield Case(one + "mode", _mode(path, 0o700), NOTHING)
        yield Case(one + "removed", _remove(path), NOTHING)
        yield Case(one + "added", _add(path, "another.log"), NOTHING)


def _special_cases() -> Iterator[Case]:
    for path in ("go.mod", "go.sum"):
        yield Case(path, _content(path, f"{path}!"), AFTER_MODS, (Cause("file-changed", path),))
        yield Case(path + " mtime", _mtime(path, 12345), NOTHING)
    # The copied bytes count for /deps, the mode does not: `cat` reads only the text.
    yield Case(
        "go.mod mode",
        _mode("go.mod", 0o600),
        {"mods", "deps", "src", "run", "build", "assets"},
        (Cause("file-mode", "go.mod", "0644", "0600"),),
    )
    # What the script says is not copied on, what --chmod overrides does not reach the tree.
    yield Case(
        "run.sh", _content("run.sh", "r"), {"run", "build", "assets"}, (Cause("file-changed", "run.sh"),)
    )
    yield Case(
        "run.sh mode", _mode("run.sh", 0o700), {"run"}, (Cause("file-mode", "run.sh", "0644", "0700"),)
    )
    yield Case("run.sh mtime", _mtime("run.sh", 5), NOTHING)
    for old, new in (
        ("FROM base AS build\n", "# a comment\nFROM base AS build\n"),
        ("COPY src src\n", "\n\n\nCOPY src src\n"),
        ("COPY src src\n", "copy src src\n"),
        ("COPY src src\n", "COPY    src   src\n"),
        ("WORKDIR /src", "workdir /src"),
        ("FROM base AS test", "from base as test"),
        ("RUN ls tests", "RUN ls tests && false"),
        ("COPY tests tests", "COPY tests checks"),
        ("LABEL stage=final", "LABEL stage=other"),
        ('CMD ["/usr/bin/run"]', 'CMD ["/usr/bin/run", "-v"]'),
        ('CMD ["/usr/bin/run"]\n', 'CMD ["/usr/bin/run"]\nEXPOSE 80\nUSER 12\nSTOPSIGNAL 9\n'),
        ("ARG BASE=busybox\n", "ARG BASE=busybox\nARG LATER=1\n"),
        ("ARG BASE=busybox", "ARG BASE=docker.io/library/busybox:latest"),
        ("FROM busybox AS final", "FROM busybox AS finale"),
        ("--mount=type=cache,target=/root/.cache ", "--mount=target=/root/.cache,type=cache "),
        ("COPY --from=build /deps /deps", "COPY --from=BUILD /deps /deps"),
    ):
        yield Case(f"text {new!r}", _dockerfile(old, new), NOTHING)
    yield Case(
        "prepare text",
        _dockerfile("RUN echo prepare", "RUN echo prepare1"),
        {"prepare1"},
        (Cause("command", "", "RUN echo prepare", "RUN echo prepare1"),),
    )
    yield Case(
        "prepare leaves a file",
        _dockerfile("RUN echo prepare", "RUN echo prepare > /p"),
        {"prepare > /p", "mods", "deps", "src", "run", "build", "assets"},
    )
    yield Case(
        "ENV in base",
        _dockerfile("COLOR=red", "COLOR=blue"),
        RUNS,
        (Cause("variable", "COLOR", "red", "blue"),),
    )
    yield Case(
        "ENV added", _dockerfile("COLOR=red", "COLOR=red MORE=1"), RUNS, (Cause("variable", "MORE", "", "1"),)
    )
    yield Case(
        "ENV in final",
        _dockerfile("MODE=prod", "MODE=dev"),
        {"mode"},
        (Cause("variable", "MODE", "prod", "dev"),),
    )
    yield Case(
        "default of ARG",
        _dockerfile("ARG USED=1", "ARG USED=2"),
        RUNS | FINAL,
        (Cause("variable", "USED", "1", "2"),),
    )
    yield Case(
        "ARG of the step",
        _options(build_args=(("USED", "3"),)),
        RUNS | FINAL,
        (Cause("variable", "USED", "1", "3"),),
    )
    yield Case(
        "ARG that only stands in the environment",
        _options(build_args=(("IDLE", "2"),)),
        RUNS,
        (Cause("variable", "IDLE", "1", "2"),),
    )
    yield Case("ARG at its default", _options(build_args=(("USED", "1"),)), NOTHING)
    yield Case("ARG nobody declares", _options(build_args=(("NOBODY", "2"),)), NOTHING)
    yield Case("proxy", _options(build_args=(("HTTP_PROXY", "http://127.0.0.1:9"),)), NOTHING)
    yield Case("label", _options(labels=(("a", "b"),)), NOTHING)
    yield Case("tag", _options(tags=("other:1",)), NOTHING)
    yield Case("secret's value", _options(secrets=(Secret(id="token", data=b"2"),)), NOTHING)
    yield Case("no secret", _options(secrets=()), NOTHING)
    yield Case("a secret nobody asks for", _options(secrets=(Secret(id="x", data=b"2"),)), NOTHING)
    yield Case("parallelism", _options(max_parallelism=1), NOTHING)
    yield Case(
        "secret's id",
        _dockerfile("id=token", "id=token2"),
        {"build"},
    )
    yield Case(
        "cache mount's place",
        _dockerfile("target=/root/.cache", "target=/root/.other"),
        {"build"},
    )
    yield Case(
        "order of two copies",
        _dockerfile(
            "COPY src src\nCOPY --chmod=0755 run.sh /usr/bin/run\n",
            "COPY --chmod=0755 run.sh /usr/bin/run\nCOPY src src\n",
        ),
        {"run", "src", "build", "assets"},
    )
    yield Case("WORKDIR", _dockerfile("WORKDIR /src", "WORKDIR /src/"), NOTHING)
    yield Case(
        "a host's address",
        _options(extra_hosts=(("db", "10.0.0.1"),)),
        RUNS | {"mode"},
        (Cause("option", "--add-host"),),
    )
    yield Case("no cache", _options(no_cache=True), set(STEPS) - {"tests", "ls"}, (Cause("no-cache"),))
    yield Case("no cache for a stage", _options(no_cache_filter=("final",)), FINAL, (Cause("no-cache"),))
    yield Case("target base", _options(target="base"), NOTHING)
    yield Case("target test", _options(target="test"), {"tests", "ls"}, (Cause("new"),))
    yield Case("target test again", _options(target="test"), NOTHING)
    yield Case(
        "a test's text", lambda root: _content("tests/t1", "t")(root) or {"target": "test"}, {"tests", "ls"}
    )
    yield Case(
        "ignored from now on",
        lambda root: _none((root / ".dockerignore").write_text("*.log\n.git\nsrc/b.go\n")),
        AFTER_SRC,
        (Cause("file-removed", "src/b.go"),),
    )
    yield Case(
        "ignore file says the same",
        lambda root: _none((root / ".dockerignore").write_text("# logs\n**/*.log\n*.log\n.git\n")),
        NOTHING,
    )
    yield Case("another hard link", lambda root: os.link(root / "src/a.go", root / "linked.log"), NOTHING)
    yield Case(
        "attribute",
        lambda root: os.setxattr(root / "docs/index.md", "user.a", b"1"),
        {"docs", "mode"},
    )


CASES = [*_context_cases(), *_special_cases()]


class Project:
    """The project and its warm store."""

    def __init__(self, tmp: Path) -> None:
        self.lab = Lab(tmp)
        self.pristine = self.lab.context(
            {
                "Dockerfile": TEXT,
                ".dockerignore": "**/*.log\n.git\n",
                "go.mod": "module m\n",
                "go.sum": "sum\n",
                "run.sh": "#!/bin/sh\n",
                **{path: f"this is {path}\n" for path in (*SRC, *DOCS, *ASSETS, *OTHER)},
            }
        )
        self.count = 0
        self.causes_right = 0
        self.causes_asked = 0
        assert self.ran(self.build(self.pristine)) == set(STEPS) - {"tests", "ls"}

    def copy(self) -> Path:
        """The project in another place."""
        self.count += 1
        root = self.lab.tmp / f"copy{self.count}"
        shutil.copytree(self.pristine, root, symlinks=True)
        return root

    def build(self, root: Path, **options: Any) -> Any:
        """Build it."""
        return self.lab.build(root, **{"secrets": (Secret(id="token", data=b"1"),), **options})

    def ran(self, result: Any) -> set[str]:
        """The short names of the steps that ran; a step with another text goes by what follows ``RUN echo``."""
        found = set()
        for step in result.steps:
            if step.status == "ran" and "] FROM " not in step.name and "WORKDIR" not in step.name:
                names = [short for short, part in STEPS.items() if part.lower() in step.name.lower()]
                exact = [name for name in names if step.name.endswith(STEPS[name])]
                if names == ["prepare"] and not exact:
                    names = [step.name.partition("RUN echo ")[2]]
                found.add(names[0] if names else step.name)
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("mutations"))
    yield made
    made.lab.close()


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 200
    assert sum(1 for case in CASES if case.causes) >= 100


def test_every_change_runs_what_it_must(project: Project) -> None:
    wrong: list[str] = []
    blamed: list[str] = []
    asked = 0
    for case in CASES:
        root = project.copy()
        options = case.change(root) or {}
        result = project.build(root, **options)
        ran = project.ran(result)
        shutil.rmtree(root)
        if ran != case.expected:
            wrong.append(
                f"{case.name}: not run {sorted(case.expected - ran)}, run too often {sorted(ran - case.expected)}"
            )
            continue
        if case.causes:
            asked += 1
            first = next(step for step in result.steps if step.status == "ran")
            named = {(cause.kind, cause.subject) for cause in first.causes}
            if not named & {(cause.kind, cause.subject) for cause in case.causes}:
                blamed.append(f"{case.name}: {first.name}: {[cause.text for cause in first.causes]}")
    assert not wrong, "\n".join(wrong)
    assert len(blamed) <= asked // 100, "\n".join(blamed)
    assert not project.ran(project.build(project.copy()))


def test_a_moved_base(project: Project) -> None:
    """A tag that names other content runs everything; the same content under another digest nothing."""
    lab = project.lab
    before = lab.base
    data = base_tar(lab.tmp)
    try:
        images.import_(lab.store, io.BytesIO(data), "busybox:latest", changes=("LABEL moved=1",))
        assert project.ran(project.build(project.copy())) == set()
        images.import_(lab.store, io.BytesIO(_with_file(data)), "busybox:latest")
        result = project.build(project.copy())
        assert project.ran(result) == set(STEPS) - {"tests", "ls"}
        first = next(step for step in result.steps if step.status == "ran")
        assert [cause.kind for cause in first.causes] == ["base"]
    finally:
        images.import_(lab.store, io.BytesIO(data), "busybox:latest")
    assert before
    assert project.ran(project.build(project.copy())) == set()


def _with_file(data: bytes) -> bytes:
    import tarfile

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
    assert project.ran(project.build(project.copy())) == set()
