"""The same Dockerfiles by buildah and by us: equal config and equal tree, apart from differences.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Runner
from tests.support.examples import IDS
from tests.support.images import Node, read_docker, read_oci, read_tree, unpack_oci
from tests.support.machine import tool
from tests.support.peers import Peer

pytestmark = [pytest.mark.root, pytest.mark.conformance]
FIELDS = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
    "Healthcheck", "OnBuild", "Shell",
)  # fmt: skip
TABLE = Path(__file__).with_name("differences.md")


@dataclass(frozen=True)
class Case:
    """A Dockerfile with the files around it; a text that starts with ``->`` is a link."""

    name: str
    dockerfile: str
    files: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


CASES = (
    Case(
        "metadata",
        """FROM busybox
ENV A=1 B="two words" C=three\\ words
LABEL one=1 "a.b"="c d" multi="x\\
y"
EXPOSE 80 443/tcp 53/udp
VOLUME /data ["/more"]
USER nobody:nogroup
WORKDIR /work
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo $A"]
""",
    ),
    Case("env-expansion", "FROM busybox\nENV A=x\nENV B=${A}y C=${D:-z} E=${A:+set} PATH=/opt:$PATH\nWORKDIR /$A/$B\n"),
    Case("shell-forms", 'FROM busybox\nENTRYPOINT echo hello\nCMD ["a", "b"]\n'),
    Case(
        "shell-and-healthcheck",
        'FROM busybox\nSHELL ["/bin/sh", "-ec"]\nHEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD true\nCMD echo x\n',
    ),
    Case("cmd-reset-by-entrypoint", 'FROM busybox\nCMD ["x"]\nENTRYPOINT ["y"]\n'),
    Case("onbuild", "FROM busybox\nONBUILD RUN echo x\nONBUILD COPY . /x\n"),
    Case("workdir", "FROM busybox\nWORKDIR a\nWORKDIR b/c\nWORKDIR /d\nWORKDIR e\nRUN pwd > /where\n"),
    Case(
        "copy",
        "FROM busybox\nCOPY a.txt /x/\nCOPY a.txt /y\nCOPY d /z\nCOPY d/ /w/\nCOPY *.txt sub/\nCOPY a.txt b.txt /two/\n",
        {"a.txt": "a", "b.txt": "b", "d/one": "1", "d/e/two": "2", "d/link": "->e/two"},
    ),
    Case(
        "copy-owner-and-mode",
        "FROM busybox\nCOPY --chown=nobody:nogroup a.txt /a\nCOPY --chown=12:34 d /d\nCOPY --chmod=600 a.txt /m\n",
        {"a.txt": "a", "d/one": "1", "d/e/two": "2"},
    ),
    Case("copy-chmod-dir", "FROM busybox\nCOPY --chmod=750 d /created\n", {"d/one": "1"}),
    Case("copy-into-workdir", "FROM busybox\nWORKDIR /w\nCOPY a.txt .\nCOPY a.txt ./b\nCOPY d d\n", {"a.txt": "a", "d/x": "x"}),
    Case(
        "copy-over-existing",
        "FROM busybox\nRUN mkdir -m 700 /d && echo old > /d/one && echo keep > /d/keep\nCOPY d /d\n",
        {"d/one": "new", "d/two": "2"},
    ),
    Case(
        "ignore-file",
        "FROM busybox\nCOPY . /c\n",
        {".dockerignore": "*.log\nskip\n!keep.log\n**/deep.txt\n", "a.log": "", "keep.log": "", "skip/x": "", "s/deep.txt": "", "s/y": ""},
    ),
    Case(
        "stages",
        """FROM busybox AS one
RUN mkdir /o && echo 1 > /o/f && ln -s f /o/l
FROM one AS two
RUN echo 2 > /o/g
FROM busybox
COPY --from=two /o /two
COPY --from=0 /o/f /first
COPY --from=one /o/l /link
""",
    ),
    Case("scratch", "FROM scratch\nCOPY a /\nCOPY d /d/\n", {"a": "a", "d/b": "b"}),
    Case(
        "run-changes",
        """FROM busybox
RUN mkdir -p /a/b && echo 1 > /a/b/c && echo 2 > /a/d && chmod 4755 /a/d && chown 5:6 /a/b
RUN rm -r /a/b && mkdir /a/b && echo 3 > /a/b/new
RUN mv /a/d /a/e && ln /a/e /a/hard && ln -s ../x /a/soft && mkfifo /a/pipe
RUN rm -rf /home && echo file > /home
""",
    ),
    Case("args", "ARG BASE=busybox\nFROM $BASE\nARG A=default\nARG B\nENV X=$A-$B\nRUN echo $A $B > /args\n", flags=("--build-arg", "B=given")),
    Case("arg-not-in-config", "FROM busybox\nARG SECRETISH=x\nRUN echo $SECRETISH > /s\n"),
    Case("users", "FROM busybox\nUSER 12:34\nRUN touch /tmp/mine\nUSER nobody\nRUN touch /tmp/nobody && id -u > /tmp/id\n"),
    Case("volume-then-write", "FROM busybox\nRUN mkdir /v && echo 1 > /v/before\nVOLUME /v\nRUN echo 2 > /v/after || true\n"),
    Case("add-local-archive", "FROM busybox\nADD made.tar.gz /unpacked/\nADD plain.txt /plain\n", {"made.tar.gz": "TAR", "plain.txt": "p"}),
    Case("heredoc-free-continuations", "FROM busybox\nRUN echo a \\\n  # a comment\n  && echo b \\\n\n  > /out\n"),
)  # fmt: skip


@pytest.fixture(scope="module")
def peer(busybox: Path) -> Iterator[Peer]:
    tool("buildah")
    peer = Peer()
    peer.load(busybox)
    yield peer
    peer.close()


def allowed() -> list[tuple[str, re.Pattern[str]]]:
    """The rows of the table; one without a reason is an error."""
    rows = []
    for line in TABLE.read_text().splitlines():
        match = re.fullmatch(r"\|\s*([\w*-]+)\s*\|\s*`(.+?)`\s*\|\s*(.+?)\s*\|", line)
        if match:
            assert len(match[3]) > 10, f"no reason: {line}"
            rows.append((match[1], re.compile(match[2])))
    assert rows
    return rows


def context(case: Case, root: Path) -> Path:
    import io
    import tarfile

    root.mkdir()
    (root / "Dockerfile").write_text(case.dockerfile)
    for name, text in case.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        elif text == "TAR":
            with tarfile.open(path, "w:gz") as tar:
                info = tarfile.TarInfo("in/side.txt")
                info.size, info.uid, info.gid, info.mode = 1, 7, 8, 0o640
                tar.addfile(info, io.BytesIO(b"x"))
        else:
            path.write_text(text)
    return root


def by_buildah(peer: Peer, case: Case, ctx: Path, work: Path) -> tuple[dict[str, Any], dict[str, Node]]:
    tag = f"localhost/case-{case.name}"
    peer.build(ctx, tag, *case.flags)
    archive = work / "buildah.tar"
    peer.buildah("push", tag, f"oci-archive:{archive}:x")
    docker = work / "buildah.docker.tar"
    peer.buildah("push", tag, f"docker-archive:{docker}:{tag}:latest")
    config = read_docker(docker).config["config"]
    return config, read_tree(unpack_oci(archive, work / "buildah"))


def by_us(runner: Runner, case: Case, ctx: Path, work: Path) -> tuple[dict[str, Any], dict[str, Node]]:
    archive = work / "pybuild.tar"
    runner.build(ctx, *case.flags, "--output", f"type=oci,dest={archive}")
    return read_oci(archive).config["config"], read_tree(unpack_oci(archive, work / "pybuild"))


def config_differences(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in FIELDS:
        their, our = theirs.get(name) or None, ours.get(name) or None
        if isinstance(their, dict) or isinstance(our, dict):
            for key in sorted({*(their or {}), *(our or {})}):
                left, right = (their or {}).get(key), (our or {}).get(key)
                if (left or None) != (right or None):
                    found[f"config.{name}.{key}"] = f"buildah {left!r}, pybuild {right!r}"
        elif their != our:
            found[f"config.{name}"] = f"buildah {their!r}, pybuild {our!r}"
    return found


def tree_differences(theirs: dict[str, Node], ours: dict[str, Node]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted({*theirs, *ours}):
        if theirs.get(path) != ours.get(path):
            found[f"tree:{path}"] = f"buildah {theirs.get(path)}, pybuild {ours.get(path)}"
    return found


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_same_image(peer: Peer, shared: Runner, busybox: Path, tmp_path: Path, case: Case) -> None:
    shared.load(busybox)
    ctx = context(case, tmp_path / "ctx")
    their_config, their_tree = by_buildah(peer, case, ctx, tmp_path)
    our_config, our_tree = by_us(shared, case, ctx, tmp_path)
    found = config_differences(their_config, our_config) | tree_differences(their_tree, our_tree)
    rows = [pattern for name, pattern in allowed() if name in {"*", case.name}]
    unknown = {where: what for where, what in found.items() if not any(row.fullmatch(where) for row in rows)}
    assert not unknown, "\n".join(f"{where}: {what}" for where, what in unknown.items())


def test_every_case_of_the_table_exists() -> None:
    names = {case.name for case in CASES} | {f"example-{name}" for name in IDS}
    assert {name for name, _ in allowed()} <= {*names, "*"}
