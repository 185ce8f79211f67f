"""``build --call``, ``--check`` and warnings, as a user sees them (rows SUB-01…07, DIA-05, LNT-04, FWD-01)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.support.cli import Runner

TEXT = """# syntax=docker/dockerfile:1.7
# VERSION is what to build
ARG VERSION=1
# base holds the tools
FROM registry.invalid/none:1 AS base
WORKDIR $FROM_THE_BASE
FROM base
ARG VERSION
ENV A b
RUN --mount=type=secret,id=token,required=true --mount=type=ssh true
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    root.mkdir()
    (root / "Dockerfile").write_text(TEXT)
    return root


def test_outline(pybuild: Runner, context: Path) -> None:
    assert pybuild.run("build", "--call=outline", context).out == (
        "BUILD ARG   VALUE   DESCRIPTION\nVERSION     1       is what to build\n\n"
        "SECRET   REQUIRED\ntoken    true\n\nSSH       REQUIRED\ndefault\n\n"
    )
    found = json.loads(pybuild.run("build", "--call=outline,format=json", "--target=base", context).out)
    assert found == {
        "name": "base",
        "description": "holds the tools",
        "sources": [base64.b64encode(TEXT.encode()).decode()],
    }
    found = json.loads(pybuild.run("build", "--call=frontend.outline,format=json", context).out)
    assert found["args"] == [
        {
            "name": "VERSION",
            "description": "is what to build",
            "value": "1",
            "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}], "sourceIndex": 0},
        }
    ]
    assert found["secrets"][0]["required"] is True
    assert "required" not in found["ssh"][0]


def test_targets(pybuild: Runner, context: Path) -> None:
    assert pybuild.run("build", "--call=targets", context).out == (
        "TARGET      DESCRIPTION\nbase        holds the tools\n(default)\n"
    )
    found = json.loads(pybuild.run("build", "--call=targets,format=json", context).out)
    assert [target.get("default") for target in found["targets"]] == [None, True]
    assert found["sources"] == [base64.b64encode(TEXT.encode()).decode()]


def test_check_asks_no_registry(pybuild: Runner, context: Path) -> None:
    found = pybuild.run("build", "--check", context, status=1)
    assert "WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/" in found.out
    assert "UndefinedVar" not in found.out
    (context / "Dockerfile").write_text("FROM registry.invalid/none:1\nRUN true\n")
    assert pybuild.run("build", "--check", context).out == "Check complete, no warnings found.\n"


def test_errors_of_the_file_are_part_of_the_answer(pybuild: Runner, context: Path) -> None:
    (context / "Dockerfile").write_text("from scratch\nRUN a\nCOPY --from=c x y\nFROM scratch AS c\n")
    found = json.loads(pybuild.run("build", "--call=check,format=json", context, status=1).out)
    assert found["buildError"]["message"].startswith('cannot copy from stage "c"')
    assert found["buildError"]["location"]["ranges"] == [{"start": {"line": 3}, "end": {"line": 3}}]
    assert [warning["ruleName"] for warning in found["warnings"]] == ["ConsistentInstructionCasing"]
    (context / "Dockerfile").write_text("FROM scratch\nRUNN a\n")
    found = pybuild.run("build", "--check", context, status=1)
    assert "unknown instruction: RUNN (did you mean RUN?)" in found.out
    assert ">>> RUNN a" in found.out


def test_subrequests(pybuild: Runner, context: Path) -> None:
    assert "convertllb             0.1.0" in pybuild.run("build", "--call=subrequests.describe", context).out
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    found = json.loads(pybuild.run("build", "--call=convertllb", context).out)
    assert sorted(found) == ["def", "metadata", "source"]
    assert len(found["def"]) == 3
    wrong = pybuild.run("build", "--call=outlin", context, status=2)
    assert "unsupported subrequest outlin" in wrong.err
    assert "did you mean outline?" in wrong.err


@pytest.mark.root
def test_warnings_are_told_again_by_a_cached_build(pybuild: Runner, tmp_path: Path) -> None:
    text = "FROM scratch\nENV A b\nENV X=$LATER\nARG LATER\nCOPY Dockerfile /\n"
    first = pybuild.dockerfile(tmp_path / "c", text, "--build-arg=LATE=1")
    again = pybuild.build(tmp_path / "c", "--build-arg=LATE=1")
    summary = first.err[first.err.index(" 2 warnings found (use --debug to expand):") :]
    assert summary.splitlines()[1:] == [
        ' - LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)',
        " - UndefinedVar: Usage of undefined variable '$LATER' (line 3)",
        "   hint: ARG LATER is declared on line 4, after its use: move it up",
    ]
    assert again.err.endswith(summary)
    assert "load build definition" not in again.err, "the cached build was planned again"
    for result in (first, again):
        assert "build-args [LATE] were not consumed\nhint: LATE: did you mean LATER?" in result.err
    loud = pybuild.run("--debug", "build", "--progress=plain", "--build-arg=LATE=1", tmp_path / "c")
    assert "   2 | >>> ENV A b" in loud.err


@pytest.mark.root
def test_error_true_fails_the_build(pybuild: Runner, tmp_path: Path) -> None:
    text = "# check=skip=StageNameCasing;error=true\nFROM scratch AS A\nENV A b\nCOPY Dockerfile /\n"
    failed = pybuild.dockerfile(tmp_path / "c", text, status=1)
    assert "ERROR: failed to solve: lint violation found for rules: LegacyKeyValueFormat\n" in failed.err
    assert ">>> ENV A b" in failed.err
    pybuild.build(tmp_path / "c", "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true")


@pytest.mark.root
def test_other_frontends_are_refused_before_anything_runs(pybuild: Runner, tmp_path: Path) -> None:
    text = "# syntax=example.com/own/frontend:1\nFROM scratch\nRUN boom\n"
    refused = pybuild.dockerfile(tmp_path / "c", text, status=1)
    assert "frontend example.com/own/frontend:1 is not supported" in refused.err
    assert "] RUN" not in refused.err
    text = (
        "# syntax=docker/dockerfile-upstream:master@sha256:"
        + "0" * 64
        + "\nFROM scratch\nCOPY Dockerfile /\n"
    )
    pybuild.dockerfile(tmp_path / "c", text)
    refused = pybuild.build(tmp_path / "c", "--build-arg=BUILDKIT_SYNTAX=other/thing", status=1)
    assert "frontend other/thing is not supported" in refused.err


@pytest.mark.root
def test_a_missing_source_names_the_rule_that_hides_it(pybuild: Runner, tmp_path: Path) -> None:
    root = tmp_path / "c"
    root.mkdir()
    (root / ".dockerignore").write_text("# nothing secret\n*.key\n")
    (root / "a.key").write_text("")
    failed = pybuild.dockerfile(root, "FROM scratch\nCOPY a.key /\n", status=1)
    assert '"/a.key": not found' in failed.err
    assert "a.key exists, but line 2 of .dockerignore leaves it out: *.key" in failed.err
