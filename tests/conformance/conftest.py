"""Fixtures of the conformance tests: one laboratory and one web server for all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.web import directory


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Real builds over a store with ``busybox:latest``."""
    made = Lab(tmp_path_factory.mktemp("conformance"))
    yield made
    made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Lab]:
    """A laboratory that a test has for itself."""
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server on the loopback: its address and the directory that it serves."""
    root = tmp_path_factory.mktemp("site")
    with directory(root) as url:
        yield url, root


@pytest.fixture(scope="session")
def repository(lab: Lab, site: tuple[str, Path]) -> tuple[str, str]:
    """A git repository on the web server: its URL, and the commit that tag v1 names; ``main`` is one ahead."""
    url, root = site
    work = lab.context(
        {
            "Dockerfile": "FROM scratch\nCOPY . /\n",
            ".dockerignore": "a\n",
            "a": "one",
            "sub/Dockerfile": "FROM scratch\nCOPY b /b\n",
            "sub/b": "two",
        }
    )
    date = "2011-12-13T14:15:16Z"
    env = {"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date, "PATH": "/usr/bin:/bin", "HOME": str(work)}

    def git(*words: str) -> str:
        command = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.com", *words]
        return subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD")
    (work / "a").write_text("newer")
    git("commit", "-qam", "two")
    git("clone", "-q", "--bare", str(work), str(root / "r.git"))
    subprocess.run(["git", "-C", str(root / "r.git"), "update-server-info"], check=True, env=env)
    return f"{url}/r.git", commit


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[Runner]:
    """The command over the laboratory's store."""
    runner = Runner(lab.store.root)
    yield runner
