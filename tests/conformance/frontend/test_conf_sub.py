"""Questions about a Dockerfile that need no build (SUB rows)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = pytest.mark.root
TEXT = """\
# the base of all
ARG BASE=scratch
# tools makes things
FROM ${BASE} AS tools
# flags for the compiler
ARG FLAGS=-O2
# level is how much is said
ARG level
RUN --mount=type=secret,id=token,required=true --mount=type=ssh make $FLAGS
FROM scratch AS unused
ARG never
FROM scratch AS Final
ARG stamp=now
COPY --from=tools /x /x
RUN --mount=type=secret,id=other,env=O --mount=type=ssh,id=deploy,required=true x
"""


class Ask:
    """Asks about one Dockerfile."""

    def __init__(self, command: Runner, root: Path) -> None:
        self.command, self.root = command, root
        self.write(TEXT)

    def write(self, text: str) -> None:
        (self.root / "Dockerfile").write_text(text)

    def text(self, what: str, *words: str, status: int = 0) -> str:
        return self.command.run("build", f"--call={what}", *words, self.root, status=status).out

    def json(self, what: str, *words: str, status: int = 0) -> Any:
        return json.loads(self.text(f"{what},format=json", *words, status=status))


@pytest.fixture
def ask(command: Runner, tmp_path: Path) -> Ask:
    return Ask(command, tmp_path)


def lines_of(item: Any) -> tuple[int, int]:
    (found,) = item["location"]["ranges"]
    return found["start"]["line"], found["end"]["line"]


@row("SUB-01")
def test_what_can_be_asked(ask: Ask) -> None:
    found = {item["name"]: item["version"] for item in ask.json("subrequests.describe")}
    assert found == {
        "frontend.outline": "1.0.0",
        "frontend.targets": "1.0.0",
        "frontend.lint": "1.0.0",
        "frontend.convertllb": "0.1.0",
        "frontend.subrequests.describe": "1.0.0",
    }
    for name in found:
        assert ask.text(name, status=1 if name == "frontend.lint" else 0)
    told = ask.command.run("build", "--call=frontend.nonsense", ask.root, status=None)
    assert told.status not in (0, 1)
    assert "unsupported subrequest frontend.nonsense" in told.err


@row("SUB-02")
def test_how_it_is_asked(ask: Ask) -> None:
    ask.write("FROM scratch AS Big\n")
    by_call = ask.text("check", status=1)
    assert by_call == ask.command.run("build", "--check", ask.root, status=1).out
    assert ask.command.run("build", "--print=targets", ask.root).out == ask.text("targets")
    assert json.loads(ask.text("check,format=json", status=1)) == ask.json("check", status=1)
    ask.write("FROM scratch AS small\n")
    ask.text("check", status=0)
    ask.command.run("build", "--call=build", "--quiet", ask.root)


@row("SUB-03")
def test_targets(ask: Ask) -> None:
    ask.write(
        "# one is the first\nFROM --platform=linux/amd64 busybox AS one\nFROM one\nFROM scratch AS Two\n"
    )
    found = ask.json("targets")
    one, other, two = found["targets"]
    assert lines_of(one) == (2, 2)
    assert {key: one[key] for key in one if key != "location"} == {
        "name": "one",
        "description": "is the first",
        "base": "busybox",
        "platform": "linux/amd64",
    }
    assert set(other) == {"base", "location"}
    assert (two["name"], two["default"], two["base"]) == ("two", True, "scratch")
    assert base64.b64decode(found["sources"][0]) == (ask.root / "Dockerfile").read_bytes()
    rows = ask.text("targets").splitlines()
    assert rows[0].split() == ["TARGET", "DESCRIPTION"]
    assert rows[1].split(None, 1) == ["one", "is the first"]
    assert rows[2].strip() == ""
    assert rows[3].strip() == "two (default)"
    ask.write("FROM scratch AS one\nFROM scratch\n")
    assert ask.text("targets").splitlines()[2].strip() == "(default)"


@row("SUB-04")
def test_outline(ask: Ask) -> None:
    found = ask.json("outline")
    assert found["name"] == "final"
    args = {item["name"]: item for item in found["args"]}
    assert list(args) == ["BASE", "FLAGS", "level", "stamp"]
    assert (args["FLAGS"]["value"], args["level"].get("description")) == ("-O2", "is how much is said")
    assert "value" not in args["level"]
    assert lines_of(args["BASE"]) == (2, 2)
    secrets = {item["name"]: item.get("required", False) for item in found["secrets"]}
    assert secrets == {"token": True, "other": False}
    assert {item["name"]: item.get("required", False) for item in found["ssh"]} == {
        "default": False,
        "deploy": True,
    }
    assert base64.b64decode(found["sources"][0]) == TEXT.encode()
    assert [item["name"] for item in ask.json("outline", "--target=tools")["args"]] == [
        "BASE",
        "FLAGS",
        "level",
    ]
    given = ask.json("outline", "--build-arg=stamp=then")
    assert {item["name"]: item.get("value") for item in given["args"]}["stamp"] == "then"


@row("SUB-04")
def test_outline_as_text(ask: Ask) -> None:
    lines = [line.rstrip() for line in ask.text("outline", "--target=tools").splitlines()]
    assert lines[2] == ""
    assert lines[0].split() == ["TARGET:", "tools"]
    assert lines[1].split() == ["DESCRIPTION:", "makes", "things"]
    assert lines[3] == "BUILD ARG   VALUE     DESCRIPTION"
    assert lines[4] == "BASE        scratch"
    assert lines[5].split() == ["FLAGS", "-O2", "for", "the", "compiler"]
    assert lines[6].split() == ["level", "is", "how", "much", "is", "said"]
    assert lines[7] == ""
    assert lines[8:10] == ["SECRET   REQUIRED", "token    true"]
    assert lines[11:13] == ["SSH       REQUIRED", "default"]


@row("SUB-05")
def test_lint(ask: Ask) -> None:
    ask.write("FROM scratch AS unused\nCMD x\nFROM scratch AS Big\n")
    found = ask.json("check", status=1)
    one, two = found["warnings"]
    assert one["ruleName"] == "JSONArgsRecommended"
    assert one["url"] == "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    assert one["description"].startswith("JSON arguments recommended for ENTRYPOINT/CMD")
    assert one["detail"].startswith("JSON arguments recommended for CMD to prevent")
    assert (lines_of(one), lines_of(two)) == ((2, 2), (3, 3))
    assert base64.b64decode(found["sources"][0]["data"]).startswith(b"FROM scratch AS unused")
    assert "buildError" not in found
    lines = ask.text("check", status=1).splitlines()
    at = lines.index(
        "WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
    )
    assert lines[at - 1] == ""
    assert lines[at + 1] == "Stage name 'Big' should be lowercase"
    assert lines[at + 2 : at + 4] == ["Dockerfile:3", "-" * 20]
    assert "   3 | >>> FROM scratch AS Big" in lines
    assert len(ask.json("check", "--target=big", status=1)["warnings"]) == 1


@row("SUB-05", "SUB-07")
def test_warnings_before_a_mistake(ask: Ask) -> None:
    ask.write(
        "# check=skip=MaintainerDeprecated\nFROM scratch AS Big\nMAINTAINER me\nENV a b\nRNU x\nENV c d\n"
    )
    found = ask.json("check", status=1)
    assert [(item["ruleName"], lines_of(item)) for item in found["warnings"]] == [
        ("StageNameCasing", (2, 2)),
        ("LegacyKeyValueFormat", (4, 4)),
    ]
    assert "unknown instruction: RNU (did you mean RUN?)" in found["buildError"]["message"]
    assert lines_of(found["buildError"]) == (5, 5)


@row("SUB-06")
def test_convertllb(ask: Ask) -> None:
    ask.write("FROM scratch\nCOPY a /b\n")
    (ask.root / "a").write_text("")
    found = ask.json("convertllb")
    assert set(found) == {"def", "metadata", "source"}
    assert all(digest.startswith("sha256:") for digest in found["def"])
    assert len(found["def"]) == 3
    copy = next(digest for digest, op in found["def"].items() if "file" in op.get("Op", {}))
    assert found["metadata"][copy]["description"]["llb.customname"] == "[1/1] COPY a /b"
    assert found["source"]["locations"][copy]["locations"][0]["ranges"][0]["start"]["line"] == 2


@row("SUB-07")
@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("FROM scratch AS Big\nRNU x\n", "unknown instruction: RNU", 2),
        ("FROM scratch\nCOPY --from=$x a b\n", "variable expansion is not supported for --from", 2),
        ("FROM scratch\nSTOPSIGNAL nope\n", "nope", 2),
    ],
)
def test_a_broken_file(ask: Ask, text: str, message: str, line: int) -> None:
    ask.write(text)
    found = ask.json("check", status=1)
    assert message in found["buildError"]["message"]
    assert lines_of(found["buildError"]) == (line, line)
    assert message in ask.text("check", status=1)


@row("SUB-07")
def test_what_a_broken_file_still_says(ask: Ask) -> None:
    ask.write(
        "ARG v=1\nFROM scratch AS one\nRNU x \\\n  y\nARG w=2\nRUN --mount=type=odd x\nFROM scratch AS two\n"
        "RUN --mount=type=secret,id=s x\nCOPY --from=one a b\nRUN <<EOF\nnever ends\n"
    )
    found = ask.json("targets", status=1)
    assert [target["name"] for target in found["targets"]] == ["one", "two"]
    assert lines_of(found["targets"][1]) == (7, 7)
    assert (
        "unknown instruction: RNU" in found["buildError"]["message"]
        or "heredoc" in found["buildError"]["message"]
    )
    assert ask.text("targets", status=1).split() == ["TARGET", "DESCRIPTION", "one", "two", "(default)"]
    outline = ask.json("outline", status=1)
    assert [arg["name"] for arg in outline["args"]] == ["w"]
    assert [secret["name"] for secret in outline["secrets"]] == ["s"]
    assert "location" in outline["buildError"]


@row("SUB-07")
def test_a_file_without_stages_says_nothing(ask: Ask) -> None:
    ask.write("ARG a=1\nRUN x\n")
    told = ask.command.run("build", "--call=targets", ask.root, status=1)
    assert "no build stage in current context" in told.err
