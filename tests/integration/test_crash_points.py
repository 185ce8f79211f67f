"""A process that dies, or whose disk fills up, between any two durable operations: nothing is lost, nothing is wrong.

For a build, an export, a pull, a prune and a cache import: the command is struck at its fault points
(``builder.cache.faults``, docs/formats/store.md), once per point. Afterwards the store has no fault that ``debug fsck``
finds, and an ordinary build gives the image that it should. By default the first and the last passing of every point
is struck; ``make soak`` strikes every single one.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import REPO, Runner
from tests.support.images import read_oci
from tests.support.registryd import RegistryDaemon

pytestmark = [pytest.mark.root, pytest.mark.linux]

TEXT = """\
FROM busybox AS build
COPY a b /in/
RUN cat /in/a /in/b > /both && rm /in/a
FROM busybox
RUN echo done > /done
COPY --from=build /both /both
CMD ["cat", "/both"]
"""
EPOCH = "SOURCE_DATE_EPOCH=1700000000"


class Zygote:
    """The process that forks a child for every command line."""

    def __init__(self, home: Path) -> None:
        env = Runner(home / "root").environment()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.faulty"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPO, env=env, text=True,
        )  # fmt: skip

    def run(self, argv: list[str], fault: str = "none", at: int = -1) -> dict[str, Any]:
        """Run one command line, struck at one point or at none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"argv": argv, "fault": fault, "at": at}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Scene:
    """A store in the state before an operation, and the operation's command line ({root} and {out} are filled in)."""

    zygote: Zygote
    home: Path
    context: Path
    busybox: Path
    name: str = ""
    argv: tuple[str, ...] = ()

    def fresh(self) -> Path:
        """A copy of the store to work on."""
        root = self.home / "work"
        out = self.home / "out"
        for path in (root, out):
            if path.exists():
                shutil.rmtree(path)
        out.mkdir()
        subprocess.run(
            ["cp", "-a", "--reflink=auto", str(self.home / f"before-{self.name}"), str(root)], check=True
        )
        return root

    def words(self, root: Path) -> list[str]:
        """The command line over one store."""
        filled = (word.format(root=root, out=self.home / "out", context=self.context) for word in self.argv)
        return ["--root", str(root), *filled]

    def check(self, root: Path, what: str) -> None:
        """The next build gives the right image, and the store is without findings."""
        if self.name == "prune":  # the base image is gone, which is right
            assert (
                self.zygote.run(["--root", str(root), "load", "-q", "-i", str(self.busybox)])["status"] == 0
            )
        dest = self.home / "after.tar"
        built = self.zygote.run(build_words(root, self.context, f"type=oci,dest={dest}"))
        assert built["status"] == 0, f"{what}: {built['err']}"
        assert image_of(dest) == image_of(self.home / "want.tar"), what
        fsck = self.zygote.run(["--root", str(root), "debug", "fsck"])
        assert fsck["status"] == 0, f"{what}: {fsck['out']}{fsck['err']}"


def build_words(root: Path, context: Path, *outputs: str) -> list[str]:
    more = [word for output in outputs for word in ("-o", f"{output},rewrite-timestamp=true")]
    return [
        "--root",
        str(root),
        "build",
        "--network=none",
        "--build-arg",
        EPOCH,
        "-t",
        "app",
        *more,
        str(context),
    ]


def image_of(archive: Path) -> object:
    image = read_oci(archive)
    return image.config["rootfs"], image.config["config"]


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path, registry: RegistryDaemon
) -> Iterator[Scene]:
    """Everything that the scenes start from."""
    home = tmp_path_factory.mktemp("crash")
    zygote = Zygote(home)
    context = home / "context"
    context.mkdir()
    for name in ("a", "b"):
        (context / name).write_text(name * 1000)
    (context / "Dockerfile").write_text(TEXT)

    def prepare(name: str, *commands: list[str]) -> None:
        root = home / f"before-{name}"
        for words in commands:
            done = zygote.run([str(root) if word == "{root}" else word for word in words])
            assert done["status"] == 0, done["err"]

    load = ["--root", "{root}", "load", "-q", "-i", str(busybox)]
    build = build_words(Path("{root}"), context)
    name = f"{registry.address}/crash/app"
    prepare("build", load)
    prepare("pack", load)
    prepare("export", load, build)
    prepare(
        "prune",
        load,
        build,
        ["--root", "{root}", "volume", "create", "v"],
        ["--root", "{root}", "create", "--name", "c", "app"],
    )
    cache = f"type=local,dest={home / 'cache'}"
    prepare("import", load)
    prepare("other", load, [*build[:-1], "--cache-to", cache + ",mode=max", build[-1]])
    prepare("pull", load)
    push = ["--root", "{root}", "push", "-q", name]
    prepare("other", ["--root", "{root}", "tag", "app", name], push)
    want = build_words(home / "before-other", context, f"type=oci,dest={home / 'want.tar'}")
    assert zygote.run(want)["status"] == 0
    yield Scene(zygote, home, context, busybox)
    zygote.close()


OUT = "type=oci,dest={out}/layout,tar=false", "type=docker,dest={out}/app.tar", "type=local,dest={out}/tree"
OPERATIONS: dict[str, tuple[str, ...]] = {
    "build": ("build", "--network=none", "--build-arg", EPOCH, "-t", "app", "{context}"),
    "pack": ("build", "--network=none", "--build-arg", EPOCH, "-o", "type=oci,dest={out}/app.tar", "{context}"),
    "export": (
        "build", "--network=none", "--build-arg", EPOCH, *(w for o in OUT for w in ("-o", o)), "{context}",
    ),
    "pull": ("pull", "-q", "REGISTRY/crash/app"),
    "prune": ("system", "prune", "--all", "--volumes", "--force"),
    "import": (
        "build", "--network=none", "--build-arg", EPOCH, "-t", "app", "--cache-from",
        "type=local,src={home}/cache", "{context}",
    ),
}  # fmt: skip


@pytest.fixture(params=sorted(OPERATIONS))
def scene(request: pytest.FixtureRequest, stage: Scene, registry: RegistryDaemon) -> Scene:
    name = request.param
    words = (
        word.replace("REGISTRY", registry.address).replace("{home}", str(stage.home))
        for word in OPERATIONS[name]
    )
    return replace(stage, name=name, argv=tuple(words))


def chosen(points: list[str], *, all_of_them: bool) -> list[int]:
    """The numbers of the points to strike."""
    if all_of_them:
        return list(range(len(points)))
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, name in enumerate(points):
        first.setdefault(name, number)
        last[name] = number
    return sorted({*first.values(), *last.values()})


def strike(scene: Scene, fault: str, *, all_of_them: bool) -> None:
    root = scene.fresh()
    whole = scene.zygote.run(scene.words(root))
    assert whole["status"] == 0, whole["err"]
    assert whole["points"], f"{scene.name} passes no fault point"
    for number in chosen(whole["points"], all_of_them=all_of_them):
        root = scene.fresh()
        struck = scene.zygote.run(scene.words(root), fault, number)
        if len(struck["points"]) <= number:
            continue  # threads took another course, and this one was shorter
        what = f"{scene.name}, {fault} at {number} ({struck['points'][number]})"
        if fault == "kill":
            assert struck["status"] == -signal.SIGKILL, f"{what}: {struck}"
        else:
            assert struck["status"] in (0, 1), f"{what}: {struck['err']}"
            assert "Traceback" not in struck["err"], f"{what}: {struck['err']}"
            if struck["status"]:
                assert "pybuild: " in struck["err"] or "ERROR: " in struck["err"], f"{what}: {struck['err']}"
        scene.check(root, what)


@pytest.mark.parametrize("fault", ["kill", "ENOSPC", "EIO"])
def test_struck_at_every_kind_of_point(scene: Scene, fault: str) -> None:
    strike(scene, fault, all_of_them=False)


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["kill", "ENOSPC", "EIO"])
def test_struck_at_every_point(scene: Scene, fault: str) -> None:
    strike(scene, fault, all_of_them=True)
