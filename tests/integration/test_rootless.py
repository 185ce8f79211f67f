"""Builds and containers of ordinary users, with a range of ids and with one: images equal to root's (EXE-31,
BET-01)."""

from __future__ import annotations

import io
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Runner

pytestmark = [
    pytest.mark.root,  # to make users and become them
    pytest.mark.linux,
    pytest.mark.skipif(
        not (shutil.which("setpriv") and shutil.which("useradd") and shutil.which("newuidmap")),
        reason="needs setpriv, useradd and newuidmap",
    ),
]

EPOCH = 1_700_000_000
COPIES = """
FROM busybox AS stage
COPY --chown=5:6 data /kept
FROM busybox
COPY data /plain
COPY --chown=1000:2000 --chmod=640 data /owned
COPY --from=stage /kept /again
ADD files.tar /unpacked/
COPY --chown=33 <<END /doc
text
END
"""
STEPS = """
FROM busybox AS one
RUN echo one > /one && mkfifo /pipe && ln -s one /link
FROM busybox
COPY --from=one /one /link /
COPY --chown=1000:1000 data /data
RUN --mount=type=cache,target=/cache --mount=type=secret,id=word,uid=1000 --mount=type=bind,from=one,target=/b <<END
set -e
echo again >> /cache/log
cat /cache/log /run/secrets/word /b/one > /seen
echo more >> /data/a
sed -i s/a/b/ /data/a
chown 0:0 /data/sub
rm /data/sub/b
mkdir -p /srv/d
touch /srv/d/f
chown -R 33:44 /srv
test ! -e /no || false
END
USER 1000:1000
WORKDIR /data/shelf
RUN mkdir mine && touch mine/file
"""


class UserRunner(Runner):
    """The command as somebody else."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root)
        self.name = name
        self.env["HOME"] = pwd.getpwnam(name).pw_dir

    @property
    def prefix(self) -> list[str]:
        return ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", *super().prefix]


def _make_user(name: str, ids: int) -> None:
    command = ["useradd", "--create-home", "-K", f"SUB_UID_COUNT={ids}", "-K", f"SUB_GID_COUNT={ids}", name]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, str]]:
    """One user with a range of ids and one without."""
    made = {"range": f"pbr{os.getpid()}", "single": f"pbs{os.getpid()}"}
    try:
        _make_user(made["range"], 65_536)
        _make_user(made["single"], 0)
        yield made
    finally:
        for name in made.values():
            subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that anybody may reach and use."""
    work = Path(tempfile.mkdtemp(prefix="pybuild-rootless-"))
    work.chmod(0o777)
    yield work
    shutil.rmtree(work)


@pytest.fixture(params=["range", "single"])
def runner(request: pytest.FixtureRequest, users: dict[str, str], place: Path) -> Iterator[Runner]:
    """The command on one rung, with busybox loaded."""
    yield from _runner(users[request.param], place)


def _runner(name: str, place: Path) -> Iterator[Runner]:
    runner = UserRunner(place / f"root-{name}", name)
    if runner.run("version", status=None).status != 0:
        pytest.skip(f"an ordinary user cannot execute {sys.executable}")
    yield runner
    runner.clean()


@pytest.fixture
def context(place: Path) -> Path:
    """A context with a directory, links, and an archive with a device; every time is the same."""
    top = place / "context"
    (top / "data" / "sub").mkdir(parents=True)
    (top / "data" / "a").write_text("a\n")
    (top / "data" / "sub" / "b").write_text("b\n")
    (top / "data" / "link").symlink_to("a")
    with tarfile.open(top / "files.tar", "w") as archive:
        for kind, owner, name in (
            (tarfile.REGTYPE, 7, "file"),
            (tarfile.SYMTYPE, 8, "link"),
            (tarfile.FIFOTYPE, 9, "pipe"),
            (tarfile.CHRTYPE, 10, "null"),
            (tarfile.DIRTYPE, 11, "dir"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mtime, info.linkname = kind, owner, owner + 1, EPOCH, "file"
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o640
            info.devmajor, info.devminor = 1, 3
            archive.addfile(info)
    for path in (*top.rglob("*"), top):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return top


def layers(archive: Path) -> list[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Diff id and entries of every layer of a docker archive."""
    with tarfile.open(archive) as outer:

        def member(name: str) -> bytes:
            found = outer.extractfile(name)
            assert found is not None
            return found.read()

        manifest: Any = json.loads(member("manifest.json"))[0]
        config: Any = json.loads(member(manifest["Config"]))
        found = []
        for diff_id, name in zip(config["rootfs"]["diff_ids"], manifest["Layers"], strict=True):
            with tarfile.open(fileobj=io.BytesIO(member(name))) as layer:
                found.append((diff_id, {info.name: info for info in layer}))
        return found


def build(runner: Runner, context: Path, text: str, *words: str) -> Path:
    """Build a Dockerfile and give the docker archive of the result."""
    dockerfile = context.parent / "Dockerfile"
    dockerfile.write_text(text)
    home = runner.root.parent / f"out-{runner.root.name}"
    home.mkdir(exist_ok=True)
    home.chmod(0o777)
    archive = home / "image.tar"
    archive.unlink(missing_ok=True)
    output = f"--output=type=docker,dest={archive},rewrite-timestamp=true"
    env = {"SOURCE_DATE_EPOCH": str(EPOCH)}
    runner.build(context, "--file", dockerfile, output, *words, env=env)
    return archive


def test_copies_make_the_same_layers_as_root(
    runner: Runner, pybuild: Runner, context: Path, busybox: Path
) -> None:
    for each in (runner, pybuild):
        each.load(busybox)
    ours, roots = (layers(build(each, context, COPIES)) for each in (runner, pybuild))
    for (digest, entries), (wanted, wanted_entries) in zip(ours, roots, strict=True):
        for name, info in wanted_entries.items():
            assert entries[name].get_info() == info.get_info(), name
        assert digest == wanted
    unpacked = next(entries for _, entries in ours if "unpacked/null" in entries)
    assert (unpacked["unpacked/null"].type, unpacked["unpacked/null"].uid) == (tarfile.CHRTYPE, 10)
    assert (unpacked["unpacked/link"].uid, unpacked["unpacked/link"].gid) == (8, 9)
    assert not any(info.pax_headers for _, entries in ours[1:] for info in entries.values())


def test_copies_without_overlay_make_the_same_layers(
    runner: Runner, pybuild: Runner, context: Path, busybox: Path
) -> None:
    import sqlite3

    for each in (runner, pybuild):
        each.load(busybox)
    with sqlite3.connect(
        runner.root / "db.sqlite"
    ) as db:  # as the probe would find it on another file system
        db.execute("UPDATE meta SET value=replace(value, 'user', 'no') WHERE key LIKE 'overlay:%'")
    ours, roots = (layers(build(each, context, COPIES)) for each in (runner, pybuild))
    assert [digest for digest, _ in ours] == [digest for digest, _ in roots]


def test_run_steps_with_everything(runner: Runner, context: Path, busybox: Path) -> None:
    runner.load(busybox)
    (context.parent / "word").write_text("secret\n")
    secret = f"--secret=id=word,src={context.parent / 'word'}"
    found = layers(build(runner, context, STEPS, secret))
    step = next(entries for _, entries in found if "seen" in entries)
    assert [(step[name].uid, step[name].gid) for name in ("srv", "srv/d", "srv/d/f")] == [(33, 44)] * 3
    assert (step["data/a"].uid, step["data/a"].gid) == (1000, 1000)
    assert "data/sub/.wh.b" in step
    assert (step["data/sub"].uid, step["data/sub"].gid) == (0, 0)
    assert (step["seen"].uid, step["seen"].gid) == (0, 0)
    made = next(entries for _, entries in found if "data/shelf/mine/file" in entries)
    assert made["data/shelf/mine/file"].uid == 1000
    again = runner.build(context, "--file", context.parent / "Dockerfile", secret)
    assert "CACHED" in again.err + again.out
    out = context.parent / f"out-{runner.root.name}" / "oci.tar"
    runner.build(context, "--file", context.parent / "Dockerfile", secret, f"--output=type=oci,dest={out}")
    with tarfile.open(out) as archive:
        assert "oci-layout" in archive.getnames()


def test_containers(runner: Runner, place: Path, busybox: Path) -> None:
    runner.load(busybox)
    assert runner.run("run", "--rm", "busybox", "id", "-u").out == "0\n"
    runner.run("run", "--detach", "--name", "c", "busybox", "sleep", "100")
    runner.run("exec", "c", "sh", "-c", "echo inside > /file; chown 33:33 /file")
    (place / "given").write_text("given\n")
    runner.run("cp", place / "given", "c:/given")
    assert runner.run("exec", "c", "cat", "/given", "/file").out == "given\ninside\n"
    with tarfile.open(fileobj=io.BytesIO(runner.run("cp", "c:/file", "-").stdout)) as archive:
        assert [(info.name, info.uid, info.gid) for info in archive] == [("file", 33, 33)]
    runner.run("commit", "c", "committed")
    runner.run("stop", "--time", "0", "c")
    runner.run("rm", "c")
    assert runner.run("run", "--rm", "committed", "cat", "/given").out == "given\n"


def test_nothing_is_left(runner: Runner, context: Path, busybox: Path) -> None:
    runner.load(busybox)
    build(
        runner, context, STEPS.replace("id=word,", "id=word,required=false,").replace("/run/secrets/word", "")
    )
    runner.run("build", "--tag", "kept", "-", stdin=b"FROM busybox\nRUN mkdir -m 0 /closed && touch /x\n")
    assert str(runner.root) not in Path("/proc/self/mountinfo").read_text()
    runner.run("prune", "--all", "--force")
    runner.run("rmi", "--force", "busybox", "kept", status=None)
    runner.run("prune", "--all", "--force")
    assert list((runner.root / "snapshots").iterdir()) == []
    assert list((runner.root / "tmp").glob("*probe*")) == []


def test_doctor_names_the_rung(runner: Runner) -> None:
    found = json.loads(runner.run("doctor", "--format=json").out)
    user = next(finding for finding in found if finding.get("topic", finding.get("Topic")) == "user")
    assert "rootless" in json.dumps(user)
    single = "single" in str(user) or "only id" in str(user)
    assert single == runner.root.name.startswith("root-pbs")


def test_verbs_that_need_no_namespace_make_none(runner: Runner) -> None:
    runner.run("version")
    runner.run("build", "--help")
    assert not runner.root.exists()


def test_a_state_directory_of_the_other_kind_is_refused(
    users: dict[str, str], place: Path, busybox: Path
) -> None:
    for runner in _runner(users["single"], place):
        runner.load(busybox)
        root = Runner(runner.root)
        result = root.run("run", "--rm", "busybox", "true", status=125)
        assert re.search("one id", result.err)


def test_containers_get_the_callers_limit_on_open_files(pybuild: Runner, busybox: Path) -> None:
    pybuild.load(busybox)
    command = ["prlimit", "--nofile=700:4096", *pybuild.prefix, "run", "--rm", "--network=none", "busybox"]
    done = subprocess.run(
        [*command, "sh", "-c", "ulimit -Sn; ulimit -Hn"],
        env=pybuild.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["700", "4096"]
