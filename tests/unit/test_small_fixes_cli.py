"""Completion of values, and command lines with something misspelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.remotecache.spec import CacheSpec, parse_all
from cli import main

DOCKERFILE = "FROM scratch\nCOPY Dockerfile /\n"


def completed(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> list[str]:
    capsys.readouterr()
    assert main.main(["--root", str(root), "__complete", "--", *words]) == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("build", "--progress", ""), ["auto", "plain", "quiet", "rawjson", "tty"]),
        (("build", "--progress", "=", "pl"), ["plain"]),  # as bash parts words
        (("build", "--progress", "="), ["auto", "plain", "quiet", "rawjson", "tty"]),
        (("build", "--progress=pl"), ["--progress=plain"]),  # as zsh has them
        (("build", "--on-error", ""), ["shell"]),
        (("build", "--call", "c"), ["check"]),
        (("build", "-o", "type", "=", "l"), ["local"]),
        (("build", "--output", "type=o"), ["type=oci"]),
        (("build", "--file", ""), []),
        (("build", "--build-arg", "A", "=", "b", "--progr"), ["--progress"]),
        (("history", "l"), ["logs", "ls"]),
        (("image", "history", "l"), []),
        (("history", "logs", "--progress", ""), ["plain", "rawjson", "tty"]),
    ],
)
def test_completion_of_values(
    words: tuple[str, ...], offered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(capsys, tmp_path / "root", *words) == offered


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("build", "--progress", "foo", "-q", "."), "invalid progress mode foo"),
        (("build", "--progress", "foo", "--check", "."), "invalid progress mode foo"),
        (("build", "--platform", "linux/a/b/c", "."), "invalid platform 'linux/a/b/c'"),
        (("build", "--check", "--platform", "nope", "."), "invalid platform 'nope'"),
        (("pull", "--platform", "nope", "x"), "invalid platform 'nope'"),
        (("save", "--platform", "nope", "-o", "out.tar", "x"), "invalid platform 'nope'"),
        (("build", "--cache-to", "type=registry,reff=x", "."), "(did you mean ref?)"),
        (("build", "--cache-from", "type=local,scr=x", "."), "(did you mean src?)"),
        (("build", "-o", "type=oci,dest=x,compresion=zstd", "."), "(did you mean compression?)"),
    ],
)
def test_misspelled(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    monkeypatch.chdir(tmp_path)
    assert main.main(["--root", str(tmp_path / "root"), *words]) == 2
    assert said in capsys.readouterr().err


def test_output_attributes_of_nobody_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    monkeypatch.chdir(tmp_path)
    words = ["build", "--output", "type=oci,dest=out.tar,foo.bar=1", "."]
    assert main.main(["--root", str(tmp_path / "root"), *words]) == 0
    assert "attribute 'foo.bar' of output type=oci has no effect" in capsys.readouterr().err
    assert (tmp_path / "out.tar").exists()


def test_cache_attributes() -> None:
    whole = "ref=r/x,mode=max,image-manifest=true,oci-mediatypes=true,compression=zstd,ignore-error=true"
    (spec,) = CacheSpec.parse(f"type=registry,{whole},mounts=false,merge=false")
    assert spec.attr("ref") == "r/x"
    with pytest.raises(UsageError) as caught:
        parse_all(["type=s3,bucket=b,secret_access_key=abc,def=="])
    assert "def" not in f"{caught.value.message} {caught.value.hint}", "it may be a part of the secret"
