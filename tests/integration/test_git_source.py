"""Git contexts from a real server on the loopback (SGI-01…07, GHSA-hw3h-2gp9-cxpv, CVE-2026-33748)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import InvalidValue, PybuildError, SourceUnavailable
from builder.llb.gitref import parse_git_ref
from builder.sources.contexts import prepare_context
from builder.sources.git import GitSource
from builder.sources.steps import SilentStep
from tests.support.ministore import MiniStore

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

STEP = SilentStep()


class Server:
    """``git daemon`` over a directory of repositories."""

    def __init__(self, base: Path) -> None:
        self.base = base
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.process = subprocess.Popen(
            [
                "git",
                "daemon",
                "--reuseaddr",
                "--export-all",
                "--listen=127.0.0.1",
                f"--port={self.port}",
                f"--base-path={base}",
                str(base),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(100):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("git daemon did not start")

    def url(self, name: str, rest: str = "") -> str:
        return f"git://127.0.0.1:{self.port}/{name}{rest}"

    def close(self) -> None:
        os.killpg(self.process.pid, 15)
        self.process.wait()


def git(repo: Path, *args: str) -> str:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
        "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
    }
    return subprocess.run(
        ["git", "-C", str(repo), *args], env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(repo: Path, message: str = "x") -> str:
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", message)
    return git(repo, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("git")
    repo = base / "one"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    (repo / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (repo / "docker/web").mkdir(parents=True)
    (repo / "docker/web/Dockerfile").write_text("FROM web\n")
    (repo / "run.sh").write_text("#!/bin/sh\n")
    (repo / "run.sh").chmod(0o755)
    (repo / "out").symlink_to("/etc")
    (repo / "up").symlink_to("../../../../../../etc")
    (repo / "in").symlink_to("docker/web")
    (repo / ".dockerignore").write_text("*\n")
    commit(repo)
    git(repo, "tag", "-a", "v1", "-m", "v1")
    git(repo, "checkout", "-q", "-b", "feature")
    (repo / "feature.txt").write_text("f")
    commit(repo)
    git(repo, "checkout", "-q", "main")
    running = Server(base)
    yield running
    running.close()


@pytest.fixture
def store(tmp_path: Path) -> MiniStore:
    return MiniStore(tmp_path / "state")


def source(store: MiniStore, url: str, **more: object) -> GitSource:
    ref = parse_git_ref(url)
    assert ref is not None
    return GitSource(store=store, ref=ref, **more)  # type: ignore[arg-type]


def take(store: MiniStore, url: str, dest: Path, **more: object) -> Path:
    one = source(store, url, **more)
    return one.checkout(one.resolve(STEP), dest, STEP)


def test_default_branch(server: Server, store: MiniStore, tmp_path: Path) -> None:
    root = take(store, server.url("one"), tmp_path / "out")
    assert sorted(os.listdir(root)) == [".dockerignore", "Dockerfile", "docker", "in", "out", "run.sh", "up"]
    assert (root / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (root / "Dockerfile").stat().st_mode & 0o777 == 0o644


def test_branch_tag_and_commit(server: Server, store: MiniStore, tmp_path: Path) -> None:
    repo = server.base / "one"
    main, feature = git(repo, "rev-parse", "main"), git(repo, "rev-parse", "feature")
    assert source(store, server.url("one", "#v1")).resolve(STEP) == main
    assert source(store, server.url("one", "#feature")).resolve(STEP) == feature
    assert (take(store, server.url("one", f"#{feature}"), tmp_path / "a") / "feature.txt").exists()
    assert not (take(store, server.url("one", "#v1"), tmp_path / "b") / "feature.txt").exists()


def test_commit_that_is_here_needs_no_server(server: Server, store: MiniStore, tmp_path: Path) -> None:
    url = server.url("one")
    one = source(store, url)
    sha = one.resolve(STEP)
    one.checkout(sha, tmp_path / "a", STEP)
    (server.base / "one").rename(server.base / "away")
    try:
        assert take(store, f"{url}#{sha}", tmp_path / "b").is_dir()
    finally:
        (server.base / "away").rename(server.base / "one")


def test_unknown_ref(server: Server, store: MiniStore) -> None:
    with pytest.raises(SourceUnavailable, match="repository does not contain ref nope"):
        source(store, server.url("one", "#nope")).resolve(STEP)


def test_unreachable_remote(store: MiniStore) -> None:
    with pytest.raises(SourceUnavailable, match=r"failed to fetch remote git://127.0.0.1:1/x"):
        source(store, "git://127.0.0.1:1/x").resolve(STEP)


def test_checksum(server: Server, store: MiniStore) -> None:
    with pytest.raises(SourceUnavailable, match="expected checksum to match abcdef0"):
        source(store, server.url("one", "?checksum=abcdef0")).resolve(STEP)


def test_subdir(server: Server, store: MiniStore, tmp_path: Path) -> None:
    assert take(store, server.url("one", "#main:docker/web"), tmp_path / "a").name == "web"
    assert take(store, server.url("one", "#:in"), tmp_path / "b").name == "web"


@pytest.mark.parametrize("subdir", ["out", "up", "nope", "run.sh", "out/ssl"])
def test_subdir_stays_inside(server: Server, store: MiniStore, tmp_path: Path, subdir: str) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        take(store, server.url("one", f"#:{subdir}"), tmp_path / "a")
    assert caught.value.code == "git-no-such-subdir"


def test_keep_git_dir(server: Server, store: MiniStore, tmp_path: Path) -> None:
    root = take(store, server.url("one", "?keep-git-dir=true"), tmp_path / "a")
    assert git(root, "rev-parse", "HEAD") == git(server.base / "one", "rev-parse", "main")
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "config", "remote.origin.url") == server.url("one")


def test_commit_times(server: Server, store: MiniStore, tmp_path: Path) -> None:
    root = take(store, server.url("one", "?mtime=commit"), tmp_path / "a")
    assert (root / "run.sh").stat().st_mtime == 1577836800


def test_context_has_no_git_and_no_ignore(server: Server, store: MiniStore) -> None:
    with prepare_context(
        store,
        server.url("one", "#:docker"),
        compile_ignore=lambda _: pytest.fail("ignored"),
        dockerfile="web/Dockerfile",
    ) as prepared:
        assert prepared.main is not None
        assert prepared.dockerfile == b"FROM web\n"
        assert [path for path, _ in prepared.main.walk()] == ["web", "web/Dockerfile"]
        assert prepared.revision == git(server.base / "one", "rev-parse", "main")
    assert store.staged == []


def test_submodules(server: Server, store: MiniStore, tmp_path: Path) -> None:
    repo = server.base / "outer"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    sha = git(server.base / "one", "rev-parse", "main")
    (repo / ".gitmodules").write_text('[submodule "s"]\n\tpath = lib/s\n\turl = ../one\n')
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{sha},lib/s")
    git(repo, "add", ".gitmodules")
    git(repo, "commit", "-q", "-m", "x")
    root = take(store, server.url("outer"), tmp_path / "a")
    assert (root / "lib/s/Dockerfile").exists()
    bare = take(store, server.url("outer", "?submodules=false"), tmp_path / "b")
    assert os.listdir(bare / "lib/s") == []


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% CANARY", "file:///etc", "/etc", "--upload-pack=touch CANARY", "-x"]
)
def test_submodule_urls_run_nothing(server: Server, store: MiniStore, tmp_path: Path, url: str) -> None:
    repo = server.base / f"evil-{abs(hash(url))}"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    (repo / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = "{url}"\n')
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},s")
    git(repo, "add", ".gitmodules")
    git(repo, "commit", "-q", "-m", "x")
    with pytest.raises(InvalidValue):
        take(store, server.url(repo.name), tmp_path / "a")


def test_hooks_and_attributes_run_nothing(server: Server, store: MiniStore, tmp_path: Path) -> None:
    repo = server.base / "filters"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    canary = tmp_path / "canary"
    (repo / ".gitattributes").write_text("* filter=evil\n*.txt export-ignore\n")
    (repo / "a.txt").write_text("a")
    commit(repo)
    root = take(store, server.url("filters"), tmp_path / "a")
    for mirror in (store.root / "git").iterdir():
        (mirror / "hooks").mkdir(exist_ok=True)
        (mirror / "hooks/post-checkout").write_text(f"#!/bin/sh\ntouch {canary}\n")
        (mirror / "hooks/post-checkout").chmod(0o755)
    assert take(store, server.url("filters"), tmp_path / "b").is_dir()
    assert (root / "a.txt").read_text() == "a"
    assert not canary.exists()


def test_credentials_reach_no_file(store: MiniStore) -> None:
    with pytest.raises(PybuildError) as caught:
        source(store, "http://user:hunter2@127.0.0.1:1/x.git").resolve(STEP)
    told = " ".join([str(caught.value), *caught.value.context])
    assert "hunter2" not in told
    for path in store.root.rglob("*"):
        assert "hunter2" not in str(path)
        if path.is_file():
            assert b"hunter2" not in path.read_bytes()
