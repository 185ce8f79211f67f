"""Git sources (SGI rows)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.cache.store import Store
from builder.errors import PybuildError, SourceUnavailable
from builder.llb.gitref import parse_git_ref
from builder.solver.types import Secret
from builder.sources.git import GitSource
from builder.sources.gitcmd import Git
from builder.sources.policy import Policy
from builder.sources.steps import SilentStep
from tests.support.buildlab import Built, Lab
from tests.support.rows import row

root_only = pytest.mark.root
DATE_S = 1323785716


class Repository:
    """A repository below what a ``git daemon`` on ``port`` serves; ``work`` is where commits are made."""

    def __init__(self, work: Path, port: int) -> None:
        self.work = work
        self.port = port
        date = f"{DATE_S} +0000"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": "/nowhere",
            "GIT_COMMITTER_DATE": date,
            "GIT_AUTHOR_DATE": date,
        }

    def git(self, *words: str) -> str:
        command = ["git", "-C", str(self.work), "-c", "user.name=t", "-c", "user.email=t@e", *words]
        return subprocess.run(
            command, env=self.env, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, files: dict[str, str], *flags: str) -> str:
        for name, text in files.items():
            (self.work / name).parent.mkdir(exist_ok=True)
            (self.work / name).write_text(text)
        self.git("add", "-A")
        self.git(*flags, "commit", "-qm", "x")
        return self.git("rev-parse", "HEAD")

    def url(self, rest: str = "", name: str = "") -> str:
        return f"git://127.0.0.1:{self.port}/{name or self.work.name}{rest}"

    @property
    def first(self) -> str:
        return self.git("rev-parse", "refs/tags/v1^{}")

    @property
    def second(self) -> str:
        return self.git("rev-parse", "refs/heads/main")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A repository of two commits, the first called v1 and ``side``, and the daemon."""
    base = tmp_path_factory.mktemp("git")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    made = Repository(base / "template", port)
    made.work.mkdir()
    made.git("init", "-q", "-b", "main")
    made.git("config", "uploadpack.allowAnySHA1InWant", "true")
    made.commit({"a": "1", "sub/b": "2"})
    made.git("tag", "-a", "v1", "-m", "v1")
    made.git("branch", "side")
    made.commit({"a": "newer"})
    words = ["git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen(
        [*words, f"--base-path={base}", str(base)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(500):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield made
    os.killpg(process.pid, 15)
    process.wait()


@pytest.fixture
def repo(served: Repository, tmp_path: Path) -> Repository:
    """A copy of the repository, for one test."""
    work = served.work.parent / tmp_path.name
    shutil.copytree(served.work, work, symlinks=True)
    return Repository(work, served.port)


def source(store: Store, text: str, **more: Any) -> GitSource:
    ref = parse_git_ref(text)
    assert ref is not None
    return GitSource(store=store, ref=ref, **more)


def resolve(store: Store, text: str, **more: Any) -> str:
    return source(store, text, **more).resolve(SilentStep())


def checkout(store: Store, text: str, dest: Path, **more: Any) -> Path:
    found = source(store, text, **more)
    return found.checkout(found.resolve(SilentStep()), dest, SilentStep())


@row("SGI-01")
def test_the_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "GIT_DIR",
        "GIT_SSH",
        "GIT_EXEC_PATH",
        "LD_PRELOAD_X",
        "GIT_CONFIG_COUNT",
        "GIT_PROXY_COMMAND",
    ):
        monkeypatch.setenv(name, "evil")
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nenv | cut -d= -f1 | sort > "$PWD/env"; env > "$PWD/full"; echo "$@" > "$PWD/args"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    Git(proxy_env=(("https_proxy", "p"), ("other", "x")), ssh_socket="/agent").run(["version"], cwd=tmp_path)
    names = set((tmp_path / "env").read_text().split())
    assert not names & {
        "GIT_DIR",
        "GIT_SSH",
        "GIT_EXEC_PATH",
        "LD_PRELOAD_X",
        "GIT_CONFIG_COUNT",
        "GIT_PROXY_COMMAND",
        "other",
        "USER",
    }
    assert {"https_proxy", "SSH_AUTH_SOCK"} <= names
    full = (tmp_path / "full").read_text()
    for said in (
        "GIT_TERMINAL_PROMPT=0",
        "LC_ALL=C",
        "GIT_CONFIG_NOSYSTEM=1",
        "GIT_CONFIG_GLOBAL=/dev/null",
        "HOME=/dev/null",
    ):
        assert said in full
    assert "ssh -F /dev/null" in full
    assert "StrictHostKeyChecking=accept-new" in full
    assert "UserKnownHostsFile=/hosts" in Git(known_hosts=Path("/hosts"))._ssh()
    assert "StrictHostKeyChecking=yes" in Git(known_hosts=Path("/hosts"))._ssh()


@row("SGI-01")
def test_one_mirror_per_remote(store: Store, repo: Repository, tmp_path: Path) -> None:
    checkout(store, repo.url("#main"), tmp_path / "x")
    checkout(store, repo.url("#side"), tmp_path / "y")
    mirrors = [path for path in (store.root / "git").iterdir() if (path / "HEAD").exists()]
    assert len(mirrors) == 1
    assert (mirrors[0] / "objects").is_dir()
    assert not (mirrors[0] / "index").exists()


@row("SGI-02")
def test_resolving(store: Store, repo: Repository) -> None:
    repo.git("tag", "main", repo.first)  # a tag by the name of a branch: the branch wins
    repo.git("update-ref", "refs/odd/one", repo.first)
    for rest, commit in (
        ("", repo.second), ("#main", repo.second), ("#side", repo.first), ("#v1", repo.first), ("#refs/tags/main", repo.first),
        ("#heads/side", repo.first), ("#odd/one", repo.first), (f"#{'a' * 40}", "a" * 40),
    ):  # fmt: skip
        assert resolve(store, repo.url(rest)) == commit
    with pytest.raises(SourceUnavailable, match="repository does not contain ref nothing, output: "):
        resolve(store, repo.url("#nothing"))
    with pytest.raises(SourceUnavailable, match=r"failed to fetch remote git://127\.0\.0\.1:1/one"):
        resolve(store, "git://127.0.0.1:1/one#x")


@row("SGI-03")
def test_fetching(store: Store, repo: Repository, tmp_path: Path) -> None:
    checkout(store, repo.url("#main"), tmp_path / "shallow")
    mirror = next(path for path in (store.root / "git").iterdir() if (path / "HEAD").exists())
    assert (mirror / "shallow").exists()  # one commit, no history
    assert (
        "refs/tags"
        not in subprocess.run(
            ["git", "-C", mirror, "for-each-ref"], capture_output=True, text=True, check=True
        ).stdout
    )
    (mirror / "shallow.lock").write_text("")
    (mirror / "config.lock").write_text("")
    commit_there = repo.first
    checkout(store, repo.url(f"#{commit_there}"), tmp_path / "by-commit")
    assert (tmp_path / "by-commit/a").read_text() == "1"
    repo.work.rename(repo.work.with_name("away"))  # a commit that is here needs no server
    try:
        assert (checkout(store, repo.url(f"#{commit_there}"), tmp_path / "again") / "a").read_text() == "1"
    finally:
        repo.work.with_name("away").rename(repo.work)
    moving = source(store, repo.url("#side"))
    commit = moving.resolve(SilentStep())
    repo.git("checkout", "-q", "side")
    repo.commit({"a": "moved"})
    assert (moving.checkout(commit, tmp_path / "moved", SilentStep()) / "a").read_text() == "1"
    gone = source(store, repo.url("#side"))
    gone._resolved = ("b" * 40, "refs/heads/side")
    with pytest.raises(
        SourceUnavailable,
        match=f"fetched ref refs/heads/side does not match expected commit {'b' * 40} and commit can not be found",
    ):
        gone.checkout("b" * 40, tmp_path / "gone", SilentStep())


@row("SGI-03")
@root_only
def test_servers_without_shallow_support(lab: Lab, repository: tuple[str, str]) -> None:
    """Plain files on a web server: no depth, no commit by name."""
    context = lab.context({"Dockerfile": f"FROM scratch\nADD {repository[0]}#{repository[1]} /\n"})
    assert Built(lab, lab.build(context)).read("a") == "one"


@row("SGI-04")
def test_checkouts(store: Store, repo: Repository, tmp_path: Path) -> None:
    inner = repo.work.parent / "inner"
    subprocess.run(["git", "init", "-q", "-b", "main", str(inner)], check=True)
    (inner / "i").write_text("inner")
    for words in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@e", "commit", "-qm", "i"]):
        subprocess.run(["git", "-C", str(inner), *words], check=True)
    commit = subprocess.run(
        ["git", "-C", str(inner), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (repo.work / ".gitmodules").write_text(
        f'[submodule "m"]\n\tpath = m\n\turl = git://127.0.0.1:{repo.port}/inner\n'
    )
    repo.git("add", ".gitmodules")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit},m")
    repo.git("commit", "-qm", "module")
    plain = checkout(store, repo.url("#main"), tmp_path / "plain")
    assert not (plain / ".git").exists()
    assert (plain / "m/i").read_text() == "inner"
    skipped = checkout(store, repo.url("?submodules=false#main"), tmp_path / "skipped")
    assert not (skipped / "m/i").exists()
    kept = checkout(store, repo.url("#main"), tmp_path / "kept", keep_git_dir=True)

    def said(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(kept), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    assert said("symbolic-ref", "HEAD") == "refs/heads/main"
    assert said("remote", "get-url", "origin") == repo.url()
    assert said("rev-list", "--count", "HEAD") == "1"
    assert said("rev-parse", "--is-shallow-repository") == "true"


@row("SGI-05")
@root_only
def test_subdirectories_and_times(lab: Lab, repo: Repository) -> None:
    built = lab.quick(
        f"FROM scratch\nADD {repo.url('?subdir=sub')} /\nADD {repo.url('?mtime=commit#v1')} /old/\n"
    )
    assert built.read("b") == "2"
    st = built.stat("b")
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (0, 0, 0o644)
    assert abs(st.st_mtime - time.time()) < 600
    assert built.stat("old/a").st_mtime == DATE_S
    with pytest.raises(PybuildError, match="subdirectory 'nowhere' not found"):
        lab.quick(f"FROM scratch\nADD {repo.url('#main:nowhere')} /\n")


@row("SGI-06")
def test_credentials(store: Store) -> None:
    import base64

    def header(url: str, tokens: dict[str, str]) -> str:
        return source(store, url, tokens=tokens)._remote(url)[1].authorization

    url = "https://git.example/a.git"
    basic = "Basic " + base64.b64encode(b"x-access-token:t1").decode()
    assert header(url, {"GIT_AUTH_TOKEN": "t1\n"}) == basic
    assert header(url, {"GIT_AUTH_TOKEN.git.example": "t1", "GIT_AUTH_TOKEN": "t2"}) == basic
    assert header(url, {"GIT_AUTH_HEADER": "Bearer x"}) == "Bearer x"
    assert header(url, {"GIT_AUTH_HEADER.other": "Bearer x"}) == ""
    given = "https://me:pass@git.example/a.git"
    found = source(store, given)
    remote, git = found._remote(given)
    assert remote == url
    assert git.authorization == "Basic " + base64.b64encode(b"me:pass").decode()
    assert found._remote("https://git.example/sub.git")[1].authorization == git.authorization  # a submodule
    assert found._remote("https://git.example.org/sub.git")[1].authorization == ""
    assert "pass" not in found.ref.display
    assert not any(
        "pass" in value for value in git._env(local=False).values()
    )  # only encoded, by environment


@row("SGI-06")
@root_only
def test_credentials_are_nowhere(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    secret = "s3cr3t-canary"
    secrets = (Secret(id="GIT_AUTH_TOKEN", data=secret.encode()),)
    with pytest.raises(PybuildError) as caught:
        lab.quick(f"FROM scratch\nADD http://me:{secret}@127.0.0.1:1/r.git /\n", secrets=secrets)
    assert secret not in str(caught.value) + repr(caught.value.context)
    assert not any(secret in repr(event) for event in lab.watcher.events)
    lab.store.close()
    try:
        for path in lab.store.root.rglob("*"):
            if path.is_file() and path.stat().st_size < 1 << 20:
                assert secret.encode() not in path.read_bytes(), path
    finally:
        lab.store = Store.open(lab.store.root)


@row("SGI-07")
def test_checksums(store: Store, repo: Repository, tmp_path: Path) -> None:
    assert resolve(store, repo.url(f"?checksum={repo.second[:9]}#main")) == repo.second
    tag = repo.git("rev-parse", "refs/tags/v1")
    assert tag != repo.first and resolve(store, repo.url(f"?checksum={tag}#v1")) == repo.first
    with pytest.raises(
        SourceUnavailable, match=f"expected checksum to match {repo.first}, got {repo.second}"
    ):
        resolve(store, repo.url(f"?checksum={repo.first}#main"))
    folder = repo.work.parent / "long"
    subprocess.run(["git", "init", "-q", "-b", "main", "--object-format=sha256", str(folder)], check=True)
    (folder / "f").write_text("long")
    for words in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@e", "commit", "-qm", "l"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    found = checkout(store, f"git://127.0.0.1:{repo.port}/long#main", tmp_path / "long")
    assert (found / "f").read_text() == "long"
    assert len(resolve(store, f"git://127.0.0.1:{repo.port}/long#main")) == 64


@row("SGI-08")
def test_fetch_by_commit(store: Store, repo: Repository, tmp_path: Path) -> None:
    """Without asking what the ref is now."""
    text = repo.url(f"?fetch-by-commit=true&checksum={repo.first}#nothing")
    assert (checkout(store, text, tmp_path / "x") / "a").read_text() == "1"
    with pytest.raises(PybuildError, match="needs a whole commit"):
        resolve(store, repo.url(f"?fetch-by-commit=true&checksum={repo.first[:9]}#main"))


@row("SGI-08")
@root_only
def test_signatures(lab: Lab, repo: Repository, tmp_path: Path) -> None:
    for name in ("good", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True
        )
    flags = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={tmp_path}/good", "-c", "commit.gpgsign=true")
    repo.commit({"a": "signed"}, *flags)
    remote = repo.url().removeprefix("git://")

    def build(key: str, ref: str) -> Built:
        rule = {
            "action": "CONVERT",
            "selector": {"identifier": f"git://{remote}#*"},
            "updates": {"attrs": {"git.sig.pubkey": key}},
        }
        swap = Policy.parse(json.dumps({"rules": [rule]}).encode())
        return lab.quick(f"FROM scratch\nADD {repo.url(ref)} /\n", source_policies=(swap,))

    good, other = ((tmp_path / f"{name}.pub").read_text() for name in ("good", "other"))
    assert build(good, "#main").read("a") == "signed"
    for key, ref in ((other, "#main"), (good, "#v1")):
        with pytest.raises(SourceUnavailable, match="is not signed by the key that is asked for"):
            build(key, ref)
    with pytest.raises(PybuildError, match="neither an OpenSSH nor an armored PGP key"):
        build("key", "#main")
    ring = tmp_path / "ring"
    ring.mkdir(mode=0o700)
    repo.env |= {"GNUPGHOME": str(ring)}
    gpg = [
        "gpg",
        "--homedir",
        str(ring),
        "--batch",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
    ]
    subprocess.run([*gpg, "--quick-generate-key", "t@e", "ed25519", "sign"], check=True, capture_output=True)
    public = subprocess.run(
        [*gpg, "--armor", "--export", "t@e"], check=True, capture_output=True, text=True
    ).stdout
    repo.commit({"a": "by gpg"}, "-c", "commit.gpgsign=true", "-c", "user.signingkey=t@e")
    subprocess.run(["gpgconf", "--homedir", str(ring), "--kill", "all"], check=False, capture_output=True)
    assert build(public, "#main").read("a") == "by gpg"
    with pytest.raises(SourceUnavailable, match="is not signed"):
        build(public, "#v1")
