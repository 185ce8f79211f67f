"""Bad input gives a message, a hint and an exit status; never a traceback, never a hang."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.cli import Result, Runner


def is_polite(result: Result) -> None:
    assert "Traceback" not in result.err
    assert "bug:" not in result.err
    assert result.err.strip(), "nothing was said"


USAGE = [
    ["nosuchverb"],
    ["build"],
    ["build", "--nope", "."],
    ["build", "a", "b"],
    ["build", "--platform", "not/a/real/platform", "examples/hello"],
    ["build", "-t", "UPPER:case", "examples/hello"],
    ["build", "-t", "a:" + "x" * 200, "examples/hello"],
    ["build", "--output", "type=nope", "examples/hello"],
    ["build", "--output", "type=oci,nope", "examples/hello"],
    ["build", "--build-arg", "=x", "examples/hello"],
    ["build", "--secret", "nope", "examples/hello"],
    ["build", "--network", "bridge:x:y", "examples/hello"],
    ["build", "--build-context", "x", "examples/hello"],
    ["build", "--build-context", "context=.", "examples/hello"],
    ["run"],
    ["run", "--memory", "lots", "busybox"],
    ["run", "-p", "x:y:z:w", "busybox"],
    ["run", "-v", "::", "busybox"],
    ["tag", "a"],
    ["push", "UPPER"],
    ["pull", "a@sha256:short"],
    ["pull", "../../etc/passwd"],
    ["save"],
    ["cp", "a", "b"],
    ["inspect"],
    ["logs"],
    ["commit"],
    ["--root", "/dev/null/x", "images"],
    ["--root", "/proc/1", "images"],
]


@pytest.mark.parametrize("words", USAGE, ids=lambda words: " ".join(words)[:60])
def test_command_lines(pybuild: Runner, words: list[str]) -> None:
    result = pybuild.run(*words, status=None, timeout_s=60)
    assert result.status in {1, 2, 125}
    is_polite(result)


DOCKERFILES = {
    "empty": b"",
    "comments only": b"# nothing\n\n",
    "only an argument": b"ARG A=1\n",
    "no from": b"RUN true\n",
    "unknown instruction": b"FROM scratch\nFRO x\n",
    "unknown flag": b"FROM scratch\nCOPY --nope a b\n",
    "copy of nothing": b"FROM scratch\nCOPY\n",
    "copy of a missing file": b"FROM scratch\nCOPY missing /\n",
    "copy from a later stage": b"FROM scratch AS a\nCOPY --from=b x /\nFROM scratch AS b\nFROM a\n",
    "copy from itself": b"FROM scratch AS a\nCOPY --from=a x /\n",
    "bad number of stage": b"FROM scratch\nCOPY --from=9 x /\n",
    "bad base name": b"FROM UPPER/case\n",
    "empty base": b"ARG B\nFROM $B\n",
    "unset variable": b"FROM scratch\nENV A=${B:?not set}\n",
    "unclosed variable": b"FROM scratch\nENV A=${B\n",
    "unclosed quote": b'FROM scratch\nENV A="b\n',
    "unclosed heredoc": b"FROM scratch\nCOPY <<EOF /x\nabc\n",
    "bad json form": b'FROM scratch\nCOPY ["a", ]\n',
    "bad chmod": b"FROM scratch\nCOPY --chmod=99999 Dockerfile /\n",
    "bad chown": b"FROM scratch\nCOPY --chown=a:b:c Dockerfile /\n",
    "bad mount": b"FROM scratch\nRUN --mount=type=nope true\n",
    "bad mount option": b"FROM scratch\nRUN --mount=type=cache,target=/x,bind-propagation=rshared true\n",
    "bad port": b"FROM scratch\nEXPOSE 99999999\n",
    "bad health check": b"FROM scratch\nHEALTHCHECK --interval=soon CMD true\n",
    "bad signal": b"FROM scratch\nSTOPSIGNAL SIGNOPE\n",
    "bad onbuild": b"FROM scratch\nONBUILD FROM x\n",
    "bad platform": b"FROM --platform=a/b/c/d scratch\n",
    "foreign frontend": b"# syntax=example.com/other/frontend\nFROM scratch\n",
    "binary": bytes(range(256)) * 4,
    "one long line": b"FROM " + b"a" * 1_000_000 + b"\n",
    "many stages": b"".join(b"FROM scratch AS s%d\n" % number for number in range(300)) + b"COPY x /\n",
    "invalid utf-8": b"FROM scratch\nLABEL a=\xff\xfe\nCOPY \xff /\n",
    "nul": b"FROM scratch\nCOPY a\0b /\n",
    "run without a shell": b"FROM scratch\nRUN true\n",
}


@pytest.mark.parametrize("text", DOCKERFILES.values(), ids=DOCKERFILES.keys())
def test_dockerfiles(pybuild: Runner, tmp_path: Path, text: bytes) -> None:
    ctx = tmp_path / "ctx"
    ctx.mkdir()
    (ctx / "Dockerfile").write_bytes(text)
    result = pybuild.build(ctx, status=None, timeout_s=60)
    assert result.status == 1
    is_polite(result)


@pytest.mark.parametrize("text", [b"\x1f\x8b\x08broken", b"\0" * 10240, b"BZh9broken", b"\xfd7zXZ\0broken"])
def test_broken_archives_on_stdin(pybuild: Runner, text: bytes) -> None:
    result = pybuild.run("build", "-", stdin=text, status=None, timeout_s=60)
    assert result.status == 1
    is_polite(result)
    result = pybuild.run("load", stdin=text, status=None, timeout_s=60)
    assert result.status == 1
    is_polite(result)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[1]",
        b'[{"Config":"../../../etc/passwd","RepoTags":null,"Layers":[]}]',
        b'[{"Config":"c.json","RepoTags":["UPPER"],"Layers":["missing"]}]',
        b"[" * 100_000,
    ],
)
def test_broken_image_archives(pybuild: Runner, tmp_path: Path, manifest: bytes) -> None:
    import io
    import tarfile

    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
    result = pybuild.run("load", "-i", path, status=None, timeout_s=60)
    assert result.status == 1
    is_polite(result)


def test_damaged_state_directory(pybuild: Runner) -> None:
    pybuild.run("images")
    (pybuild.root / "VERSION").write_text("999\n")
    result = pybuild.run("images", status=None)
    assert result.status == 1
    is_polite(result)
    assert "hint" in result.err.lower()


def test_error_as_json(pybuild: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY missing /\n")
    result = pybuild.run("--error-format=json", "build", "--progress=quiet", tmp_path, status=1)
    told = json.loads(result.err.strip().splitlines()[-1])["error"]
    assert told["code"]
    assert "missing" in told["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_failing_run_names_the_line_and_the_status(pybuild: Runner, busybox: Path, tmp_path: Path) -> None:
    pybuild.load(busybox)
    result = pybuild.dockerfile(
        tmp_path, "FROM busybox\nRUN echo before\nRUN exit 13\nRUN echo after\n", status=1
    )
    assert "exit code: 13" in result.err
    assert "Dockerfile:3" in result.err
    assert ">>> RUN exit 13" in result.err
    is_polite(result)


def test_ignored_file_is_told_apart_from_a_missing_one(pybuild: Runner, tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("secret\n")
    (tmp_path / "secret").write_text("x")
    result = pybuild.dockerfile(tmp_path, "FROM scratch\nCOPY secret /\n", status=1)
    assert "not found" in result.err
    assert ".dockerignore" in result.err
