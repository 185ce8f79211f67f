"""What is said when something is wrong (DIA rows)."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import PybuildError
from builder.frontend.errors import suggestion
from cli.render.snippet import Place, snippet
from tests.support.cli import Runner
from tests.support.dockerfiles import FakeResolver, converted
from tests.support.rows import row

root_only = pytest.mark.root


def failed(command: Runner, tmp_path: Path, text: str, *words: str) -> str:
    (tmp_path / "Dockerfile").write_text(text)
    return command.run("build", "--progress=plain", *words, tmp_path, status=1).err


@row("DIA-01")
@root_only
def test_a_failing_step(command: Runner, tmp_path: Path) -> None:
    text = "FROM busybox\nENV a=b\nRUN for i in 1 2 3; do echo line-$i; done; exit 7\nENV c=d\nENV e=f\nENV g=h\n"
    lines = failed(command, tmp_path, text, "--network=none").splitlines()
    tail = lines[max(i for i, line in enumerate(lines) if line == "Dockerfile:3") :]
    before = lines[: len(lines) - len(tail)]
    assert any("line-3" in line for line in before[-8:]), "the last lines of its output come first"
    assert tail.count("-" * 20) == 2
    assert [line for line in tail if ">>>" in line] == ["   3 | >>> " + text.splitlines()[2]]
    error = next(line for line in tail if line.startswith("ERROR:"))
    assert error.startswith("ERROR: failed to solve: ")
    assert "exit code: 7" in error
    assert tail.index(error) > tail.index("-" * 20)


@row("DIA-02")
def test_snippets() -> None:
    text = tuple(f"line {number}" for number in range(1, 8))
    rule = "-" * 20
    assert list(snippet(Place("D", 4, 4, text))) == [
        "D:4",
        rule,
        "   2 |     line 2",
        "   3 |     line 3",
        "   4 | >>> line 4",
        "   5 |     line 5",
        "   6 |     line 6",
        rule,
    ]
    assert list(snippet(Place("D", 3, 4, text)))[2:-1] == [
        "   2 |     line 2",
        "   3 | >>> line 3",
        "   4 | >>> line 4",
        "   5 |     line 5",
    ]
    assert list(snippet(Place("D", 1, 1, text)))[2:-1] == [
        "   1 | >>> line 1",
        "   2 |     line 2",
        "   3 |     line 3",
    ]
    assert list(snippet(Place("D", 7, 7, text)))[-2] == "   7 | >>> line 7"


@row("DIA-03")
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("FROM a\nRNU x\n", "RUN"),
        ("FROM a\nCOPY --form=x a b\n", "--from"),
        ("FROM a\nRUN --mount=type=cahce,target=/t x\n", "cache"),
        ("FROM a\nRUN --mount=tpye=cache,target=/t x\n", "type"),
        ("FROM a\nRUN --mount=type=cache,target=/t,sharing=lokced x\n", "locked"),
    ],
)
def test_suggestions(text: str, hint: str) -> None:
    with pytest.raises(PybuildError) as caught:
        converted(text)
    assert f" (did you mean {hint}?)" in caught.value.message


@row("DIA-03")
def test_more_suggestions() -> None:
    with pytest.raises(PybuildError, match=r"\(did you mean build\?\)"):
        converted("FROM a AS build\n", target="biuld")
    variable = converted("FROM a\nARG name\nENV x=$nmae\n").warnings[0].message
    assert variable.endswith(" (did you mean $name?)")
    argument = converted("ARG vers=1\nFROM a$ver\n").warnings[0].message
    assert argument.endswith(" (did you mean vers?)")
    with pytest.raises(PybuildError) as caught:
        converted("FROM alpone\n", FakeResolver(missing=("docker.io/library/alpone:latest",)))
    assert "did you mean alpine?" in f"{caught.value.message} {caught.value.hint}"
    assert suggestion("abc", ["abcdef", "xyz"]) == "", "three edits are too many"
    assert suggestion("abc", ["abd", "abc"]) == "", "never next to an exact match"
    assert suggestion("", ["id"]) == "", "nothing is like nothing"
    assert suggestion("foo", ["ro", "from"]) == suggestion("foo", ["from", "ro"]), "in any order"
    other_case = converted("FROM a\nARG version\nENV x=$VERSION\n").warnings[0].message
    assert other_case.endswith(" (did you mean $version?)")


@row("DIA-04")
@root_only
def test_several_places(command: Runner, tmp_path: Path) -> None:
    text = "FROM scratch AS one\nCOPY --from=two x y\n\n\n\nFROM scratch AS two\nCOPY --from=one x y\n"
    told = failed(command, tmp_path, text)
    assert "circular dependency detected on stage" in told
    assert {"Dockerfile:2", "Dockerfile:7"} <= set(told.splitlines())
    assert {"   2 | >>> COPY --from=two x y", "   7 | >>> COPY --from=one x y"} <= set(told.splitlines())
    assert told.count("-" * 20) == 4


@row("DIA-05")
@root_only
def test_warnings_after_a_build(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch AS Big\nCMD x\n")
    lines = command.build(tmp_path).err.splitlines()
    at = lines.index(" 2 warnings found (use --debug to expand):")
    assert lines[at + 1] == " - StageNameCasing: Stage name 'Big' should be lowercase (line 1)"
    assert lines[at + 2].startswith(" - JSONArgsRecommended: ")
    expanded = command.run("--debug", "build", "--progress=plain", tmp_path).err
    assert "Stage names should be lowercase" in expanded
    assert "   1 | >>> FROM scratch AS Big" in expanded.splitlines()
    (tmp_path / "Dockerfile").write_text("FROM scratch AS Big\n")
    assert " 1 warning found (use --debug to expand):" in command.build(tmp_path).err.splitlines()
