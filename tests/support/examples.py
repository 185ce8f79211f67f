"""The examples as data: how each is built, and what its image does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.cli import REPO, Runner


@dataclass(frozen=True)
class Example:
    """One image of ``examples/``. ``args`` replace its entry point and command, ``prints`` is what it says then."""

    name: str
    context: Path
    bases: tuple[str, ...]
    flags: tuple[str, ...] = ()
    parent: str = ""
    entrypoint: str = ""
    args: tuple[str, ...] = ()
    prints: str = ""
    files: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return f"example/{self.name}:test"


TOKEN = "canary-5b1f0a77c9"
_DIR = REPO / "examples"
EXAMPLES = (
    Example("hello", _DIR / "hello", (), files=("hello.txt",)),
    Example("c-multistage", _DIR / "c-multistage", ("debian",), prints="hello, world\n", files=("hello",)),
    Example(
        "python-web",
        _DIR / "python-web",
        ("debian-slim",),
        flags=("--secret", "id=build_token,env=BUILD_TOKEN"),
        entrypoint="python3",
        args=("-c", "import os, app; print(os.getuid(), os.getgid(), os.getcwd())"),
        prints="10001 10001 /srv\n",
        files=("srv/app/__main__.pyc", "srv/app/build.json"),
    ),
    Example("parallel", _DIR / "parallel", ("busybox",), prints="five\nfour\none\nsix\nthree\ntwo\n"),
    Example(
        "matrix-args",
        _DIR / "matrix-args",
        ("busybox",),
        flags=("--build-arg", "FLAVOUR=red"),
        parent="matrix-parent:latest",
        prints="flavour red\nversion 1.0\ncolour=red\n",
    ),
)
IDS = tuple(example.name for example in EXAMPLES)


def build(runner: Runner, example: Example, archives: dict[str, Path], *flags: str | Path) -> None:
    """Build an example (and the parent it needs) with its bases loaded; ``flags`` as for ``build``."""
    for base in example.bases:
        runner.load(archives[base])
    env = {"BUILD_TOKEN": TOKEN}
    if example.parent:
        runner.build(example.context / "parent", "-t", example.parent)
    runner.build(example.context, "-t", example.tag, *example.flags, *flags, env=env)
