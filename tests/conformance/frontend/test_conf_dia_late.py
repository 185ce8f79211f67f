"""Failures that a variable without a value leads to, and warnings of builds that fail (ARG-01…04, DIA-05)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.errors import PybuildError, SolveError
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.dockerfiles import FakeResolver, converted
from tests.support.rows import row

root_only = pytest.mark.root
LATE = "ARG v is declared on line 3, after its use: move it up"


@row("ARG-02", "ARG-04")
@root_only
@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("FROM scratch\nCOPY dist-$v /x\nARG v=1\n", 2, LATE),
        ("# check=skip=all\nFROM scratch\nADD dist-${v} /x\nARG v=1\n", 3, LATE.replace("3", "4")),
        ("FROM scratch\nCOPY a dist-$v \\\n  /x\nARG v=1\n", 2, LATE.replace("3", "4")),
        ("FROM scratch AS one\nCOPY dist-$v /x\nARG v=1\nFROM one\n", 2, LATE),
        ("ARG v=1\nFROM scratch\nCOPY dist-$v /x\n", 3,
         "ARG v on line 1 is for FROM only: declare it again in this stage, with ARG v"),
        ("FROM scratch AS one\nARG v=1\nFROM scratch\nCOPY dist-$v /x\n", 4,
         "ARG v on line 2 is of another stage: declare it in this one, too, with ARG v"),
        ("FROM scratch\nARG v\nCOPY dist-$v /x\n", 3,
         "ARG v has no value: give it a default, or build with --build-arg v=…"),
        ("FROM scratch\nARG vers=1\nCOPY dist-$ver /x\n", 3, "$ver is not set here (did you mean vers?)"),
        ("FROM scratch\nCOPY dist-$TARGETARCH /x\n", 2, "declare it in this stage, with ARG TARGETARCH"),
        ("FROM busybox\nRUN --mount=source=dist-$v,target=/d true\nARG v=1\n", 2, LATE),
        ("FROM scratch\nADD http://127.0.0.1:1/$v /x\nARG v=1\n", 2, LATE),
    ],
)  # fmt: skip
def test_a_missing_source_with_a_variable(lab: Lab, text: str, line: int, hint: str) -> None:
    with pytest.raises(SolveError) as caught:
        lab.quick(text, {"a": ""})
    assert (caught.value.first_line, (caught.value.hint or "").partition("; ")[0]) == (line, hint)


@row("ARG-04")
@root_only
def test_other_hints_stay(lab: Lab) -> None:
    with pytest.raises(SolveError) as caught:
        lab.quick("FROM scratch\nCOPY dist-$v /x\nARG v=1\n", {"dist-1": ""})
    assert caught.value.hint == f"{LATE}; did you mean dist-1?"
    for text in ("COPY dist-1 /x\nARG v=1", "ARG v=1\nCOPY dist-$v /x"):
        with pytest.raises(SolveError) as plain:
            lab.quick(f"FROM scratch\n{text}\n", {"a": ""})
        assert plain.value.hint is None, text


@row("ARG-04", "DIA-03")
def test_what_cannot_be_converted() -> None:
    with pytest.raises(PybuildError) as caught:
        converted("FROM a\nEXPOSE $port/tcp\nARG port=80\n")
    assert "no port specified" in caught.value.message
    assert caught.value.hint == LATE.replace(" v ", " port ")


@row("ARG-01", "FRM-08", "FRM-10")
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("FROM a:$v\nARG v=1\n", "ARG v is declared on line 2, inside a stage: FROM sees only what stands before the first FROM"),
        ("FROM a:x$v\nARG v=1\n", "ARG v is declared on line 2, inside a stage: FROM sees only what stands before the first FROM"),
        ("FROM $v\n", "ARG v is not declared before the first FROM"),
        ("FROM a:x${v}\n", "ARG v is not declared before the first FROM"),
        ("ARG v\nFROM a:$v\n", "ARG v has no value: give it a default, or build with --build-arg v=…"),
        ("ARG w=x$v\nFROM scratch\nFROM a:$w\n", None),
        ("ARG w=x$v\n\nARG v=1\nFROM a:$w\n", LATE),
        ("ARG w=x$v\n\nARG v=1\nFROM a:$w\n", LATE),
        ("FROM --platform=linux/$v a\nARG v=arm\n", "ARG v is declared on line 2, inside a stage: FROM sees only what stands before the first FROM"),
        ("FROM a:x\n", None),
    ],
)  # fmt: skip
def test_a_base_with_a_variable(text: str, hint: str | None) -> None:
    class Nothing(FakeResolver):
        def image(self, ref, platform, *, mode):  # type: ignore[no-untyped-def]
            raise SolveError(f"{ref}: not found")

    with pytest.raises(PybuildError) as caught:
        converted(text, Nothing())
    assert caught.value.hint == hint


@row("DIA-05")
@root_only
@pytest.mark.parametrize(
    ("tail", "more"),
    [
        ("COPPY a /\n", 0),
        ("CMD x\nEXPOSE none\n", 1),
        ("COPY none /\nCMD x\n", 1),
        ("RUN --network=none exit 3\n", 0),
        ("FROM nowhere.invalid/x AS Own\n", 1),
    ],
)
def test_warnings_of_a_build_that_fails(command: Runner, tmp_path: Path, tail: str, more: int) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox AS Big\nMAINTAINER me\n" + tail)
    (tmp_path / "a").write_text("")
    lines = command.run("build", "--progress=plain", tmp_path, status=1).err.splitlines()
    at = lines.index(f" {2 + more} warnings found (use --debug to expand):")
    told = lines[at + 1 : at + 3 + more]
    assert told[0] == " - StageNameCasing: Stage name 'Big' should be lowercase (line 1)"
    assert any(line.startswith(" - MaintainerDeprecated: ") for line in told)
    assert next(i for i, line in enumerate(lines) if line.startswith("ERROR: ")) > at, "the error comes last"
    assert sum(line.startswith(" - ") for line in lines) == 2 + more


@row("DIA-05")
@root_only
def test_how_a_failed_build_tells_its_warnings(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox AS Big\nCOPPY a /\n")
    expanded = command.run("--debug", "build", "--progress=plain", tmp_path, status=1).err
    assert "   1 | >>> FROM busybox AS Big" in expanded.splitlines()
    assert "Stage names should be lowercase" in expanded
    assert "warning" not in command.run("build", "-q", tmp_path, status=1).err
    raw = command.run("build", "--progress=rawjson", tmp_path, status=1).err
    events = [json.loads(line) for line in raw.splitlines() if line.startswith("{")]
    assert [one["short"] for event in events for one in event.get("warnings") or ()] != []
    (tmp_path / "Dockerfile").write_text("# check=skip=StageNameCasing\nFROM busybox AS Big\nCOPPY a /\n")
    assert "warning" not in command.run("build", "--progress=plain", tmp_path, status=1).err


@row("CPY-04", "DIA-02")
@root_only
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("FROM scratch\nCOPY a \\\n  # no\n  dist-$v /x/\n", (4, 3, 10)),
        ('FROM scratch\nENV v=1\nCOPY ["a", "gone/$v", "/x/"]\n', (3, 12, 21)),
        ("FROM scratch\nCOPY --parents a b/./gone /x/\n", (2, 18, 26)),
        ("FROM scratch AS b\nFROM scratch\nCOPY --from=b gone /x\n", (3, 15, 19)),
        ("FROM scratch\nADD http://127.0.0.1:1/$v /x\n", (2, 5, 26)),
    ],
)
def test_the_word_that_a_failure_is_about(lab: Lab, text: str, place: tuple[int, int, int]) -> None:
    with pytest.raises(SolveError) as caught:
        lab.quick(text, {"a": "", "b/f": ""})
    line, column, end = place
    assert caught.value.range == ((line, column), (line, end))
