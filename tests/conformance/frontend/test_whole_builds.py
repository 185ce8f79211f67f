"""Whole builds of what the language's last rows are about: triggers kept, names nearly right, platforms twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from builder.errors import PybuildError
from builder.frontend import parser
from tests.support.buildlab import Lab
from tests.support.cli import Runner

pytestmark = pytest.mark.root


def test_triggers_of_a_base_are_parsed_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.quick("FROM busybox\nONBUILD COPY f /f\nONBUILD RUN <<E\necho ran >> /f\nE\n", tags=("trg:1",))
    text = "FROM trg:1\nRUN echo own >> /f\n"
    assert lab.quick(text, {"f": "1\n"}).read("f") == "1\nran\nown\n"
    parser.grammar.cache_clear()
    monkeypatch.setitem(sys.modules, "lark", None)
    try:
        assert lab.quick(text, {"f": "2\n"}).read("f") == "2\nran\nown\n"
    finally:
        parser.grammar.cache_clear()


def test_a_source_that_is_nearly_there(lab: Lab) -> None:
    files = {"src/main.c": "", "src/other": "", "readme": "", "secret": "", ".dockerignore": "secret\n"}
    for source, hint in (
        ("src/mian.c", "did you mean src/main.c?"),
        ("redme", "did you mean readme?"),
        ("sorce/main.c", None),
        ("secrt", None),
    ):
        with pytest.raises(PybuildError) as caught:
            lab.quick(f"FROM scratch\nCOPY {source} /\n", files)
        assert caught.value.hint == hint, source


def test_an_argument_declared_too_late_for_a_source(lab: Lab) -> None:
    result = lab.quick("FROM scratch\nCOPY a$v /\nARG v=1\n", {"a": ""}).result
    assert [warning.hint for warning in result.warnings] == [
        "ARG v is declared on line 3, after its use: move it up"
    ]
    with pytest.raises(PybuildError) as caught:
        lab.quick("FROM scratch\nCOPY file$v /\nARG v=1\n", {"file1": ""})
    assert "move it up" in str(caught.value.hint) or "did you mean file1?" in str(caught.value.hint)


def test_a_platform_twice(lab: Lab, command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch AS Big\nCOPY Dockerfile /\n")
    twice = "--platform=linux/amd64,linux/x86_64"
    found = json.loads(command.run("build", "--call=check,format=json", twice, tmp_path, status=1).out)
    assert len(found["warnings"]) == 1
    assert command.run("build", "--call=convertllb", twice, tmp_path).out.count('"metadata"') == 1
    result = lab.build(tmp_path, platforms=("linux/amd64", "linux/x86_64"))
    assert result.metadata["containerimage.descriptor"]["mediaType"].endswith("manifest.v1+json")
