"""Text, lines and directives: rows LEX and DIR."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.errors import PybuildError
from builder.frontend.parser import Dockerfile, parse
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.dockerfiles import converted, execs, rules
from tests.support.rows import row


def runs(text: bytes | str) -> list[str]:
    """The texts of the RUN instructions of a file."""
    data = text if isinstance(text, bytes) else text.encode()
    return [item.command.args[0] for item in parse(data).instructions if type(item).__name__ == "Run"]


def read(text: str) -> Dockerfile:
    return parse(text.encode())


def message(text: str, **options: Any) -> str:
    with pytest.raises(PybuildError) as caught:
        converted(text, **options)
    return caught.value.message


@row("LEX-01")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"FROM a\r\nRUN b\r\n", ["b"]),
        (b"FROM a\r\nRUN b \\\r\n c\r\n", ["b  c"]),
        (b"FROM a\nRUN b", ["b"]),
        (b"\xef\xbb\xbfFROM a\nRUN b\n", ["b"]),
        (b"FROM a\nRUN \xef\xbb\xbfb\n", ["\ufeffb"]),
        (b"FROM a\nRUN \xe9\n", ["\udce9"]),
    ],
)
def test_bytes_become_lines(data: bytes, expected: list[str]) -> None:
    assert runs(data) == expected


@row("LEX-01")
def test_a_byte_order_mark_is_no_part_of_another_line() -> None:
    with pytest.raises(PybuildError, match="unknown instruction"):
        parse(b"FROM a\n\xef\xbb\xbfRUN b\n")


@row("LEX-01")
def test_another_encoding_is_named() -> None:
    for encoding in ("utf-16", "utf-16-be"):
        data = "\ufeff"[: encoding != "utf-16"].encode("utf-16-be") + "FROM a\n".encode(encoding)
        with pytest.raises(PybuildError, match="cannot hold NUL bytes") as caught:
            parse(data)
        assert caught.value.hint == "the file is UTF-16: save it as UTF-8"


@row("LEX-02")
def test_blanks_before_an_instruction_go_those_of_its_next_lines_stay() -> None:
    assert runs("FROM a\n \t RUN b \\\n\t  c\\\n d\n") == ["b \t  c d"]


@row("LEX-03")
def test_comments_are_whole_lines() -> None:
    assert runs("# x\nFROM a\n  # y\nRUN echo a # b\n#RUN c\n") == ["echo a # b"]
    assert execs(converted("FROM a\nRUN echo a # b\n"))[0].meta.args[-1] == "echo a # b"


@row("LEX-04")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN a\\\nb\n", ["ab"]),
        ("RUN a \\ \t \nb\n", ["a b"]),
        ("RUN a \\\n\\\n\\\nb\n", ["a b"]),
        ("RUN a \\\\\nRUN b\n", ["a \\\\", "b"]),
        ("RUN a \\\\\\\nRUN b\n", ["a \\\\\\", "b"]),
        ("RUN a \\ x\n", ["a \\ x"]),
    ],
)
def test_continuations(text: str, expected: list[str]) -> None:
    assert runs("FROM a\n" + text) == expected


@row("LEX-05")
def test_comments_inside_an_instruction_are_dropped() -> None:
    assert runs("FROM a\nRUN a \\\n# one\n  # two \\\n  b\nRUN c\n") == ["a   b", "c"]


@row("LEX-06")
def test_blank_lines_inside_an_instruction_warn_once() -> None:
    text = "FROM a\nRUN a \\\n\n  \n b \\\n\n c\nRUN d\n"
    assert runs(text) == ["a  b  c", "d"]
    (warning,) = read(text).warnings
    assert warning.short == "Empty continuation line found in: RUN a  b  c"
    assert warning.detail == "Empty continuation lines will become errors in a future release"
    assert warning.line == 7
    assert rules(converted(text)) == [("NoEmptyContinuation", 7)]
    assert read("FROM a\nRUN a \\\n# no\n b\n\nRUN d\n").warnings == ()


@row("LEX-07")
def test_the_end_of_the_file_ends_an_instruction() -> None:
    assert runs("FROM a\nRUN b \\\n") == runs("FROM a\nRUN b \\") == ["b"]


@row("LEX-08")
def test_long_lines_are_read() -> None:
    """Better than asked: the reference stops at 65535 bytes."""
    long = "x" * 70_000
    assert runs(f"FROM a\nRUN {long}\n") == [long]
    assert execs(converted(f"FROM a\nRUN <<E\n{long}\nE\n"))[0].meta.args[-1] == f"{long}\n"


@row("LEX-09")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the Dockerfile cannot be empty"),
        ("# a\n\n# b\n", "file with no instructions"),
        ("ARG a\nARG b=c\n", "dockerfile contains no stages to build"),
        ("RUN a\nFROM b\n", "dockerfile parse error on line 1: no build stage in current context"),
        ("ARG a\nENV b=c\nFROM b\n", "dockerfile parse error on line 2: no build stage in current context"),
    ],
)
def test_files_without_a_build(text: str, expected: str) -> None:
    assert message(text) == expected


@row("LEX-10")
def test_instructions_know_their_lines() -> None:
    text = "# c\n\nFROM a\nRUN b \\\n# d\n\n e\nCOPY <<F <<G /x\n1\nF\n2\nG\nRUN h\n"
    spans = [(item.at.span.start, item.at.span.end) for item in read(text).instructions]
    assert spans == [(3, 3), (4, 7), (8, 12), (13, 13)]
    sources = [vertex.meta.source for vertex in converted(text).definition.vertices]
    assert {(source.start, source.end) for source in sources if source} == set(spans)


@row("LEX-11")
@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ("# one\n#  two \n", ("one", "two")),
        ("# one\n#\n# two\n", ("two",)),
        ("# one\n\n# two\n", ("one", "two")),
        ("# one\nRUN x\n", ()),
        ("# one\nRUN x \\\n# two\n y\n", ()),
    ],
)
def test_the_comment_block_above(above: str, expected: tuple[str, ...]) -> None:
    assert read(f"FROM a\n{above}RUN b\n").instructions[-1].at.comments == expected


@row("LEX-11")
def test_directives_are_no_comments() -> None:
    assert read("# escape=`\n# check=skip=all\n# one\nFROM a\n").instructions[0].at.comments == ("one",)


@row("LEX-12")
@pytest.mark.root
def test_doc_comments_describe_stages(lab: Lab, command: Runner) -> None:
    root = lab.context(
        {
            "Dockerfile": "# note\n# build compiles it all\nFROM busybox AS build\n\n# other text\nFROM build AS last\n"
        }
    )
    found = json.loads(command.run("build", "--call=targets,format=json", root).out)["targets"]
    assert [(item["name"], item.get("description", "")) for item in found] == [
        ("build", "compiles it all"),
        ("last", ""),
    ]
    lab.write(
        root,
        {"Dockerfile": "# v is the version\n# of it\nARG v=1\n# other\nARG w=2\nFROM scratch\nARG v w\n"},
    )
    found = json.loads(command.run("build", "--call=outline,format=json", root).out)["args"]
    assert {item["name"]: item.get("description", "") for item in found} == {"v": "is the version", "w": ""}


@row("DIR-01")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# escape=`", "`"),
        ("#escape=`", "`"),
        ("#  EsCaPe \t=  `  ", "`"),
        (" # escape = `\r", "`"),
        ("# syntax=docker/dockerfile:1\n# escape=`", "`"),
    ],
)
def test_directives(line: str, expected: str) -> None:
    assert read(f"{line}\nFROM a\n").escape == expected


@row("DIR-01")
def test_all_known_directives() -> None:
    found = read("#syntax=docker/dockerfile:1.7 x\n# check = skip=all;error=true \n# escape=\\\nFROM a\n")
    assert found.directive("syntax") == "docker/dockerfile:1.7 x"
    assert found.directive("check") == "skip=all;error=true"
    assert found.directive("escape") == "\\"


@row("DIR-02")
@pytest.mark.parametrize("line", ["", "# a comment", "# unknown=x", "ARG x", "# 1a=b"])
def test_anything_else_ends_the_directives(line: str) -> None:
    assert read(f"{line}\n# escape=`\nFROM a\n").escape == "\\"


@row("DIR-03")
@pytest.mark.parametrize("name", ["syntax", "escape", "check"])
def test_a_repeated_directive(name: str) -> None:
    value = "`" if name == "escape" else "skip=all" if name == "check" else "docker/dockerfile"
    expected = f"only one {name} parser directive can be used"
    assert message(f"# {name}={value}\n# {name.upper()}={value}\nFROM a\n") == expected


@row("DIR-04")
def test_the_escape_directive() -> None:
    assert message("# escape=x\nFROM a\n") == "invalid escape token 'x' does not match ` or \\"
    text = "# escape=`\nFROM a\nENV v=1 w=a` b x=c:\\d y=`$v\nCOPY <<E /\n$v \\$v `$v\nE\nRUN a `\n b \\\nRUN c\n"
    found = converted(text)
    assert found.config.env[1:] == ("v=1", "w=a b", "x=c:\\d", "y=$v")
    assert [op.meta.args[-1] for op in execs(found)] == ["a  b \\", "c"]
    data = [
        action.action.data
        for vertex in found.definition.vertices
        for action in getattr(vertex.op, "actions", ())
        if hasattr(action.action, "data")
    ]
    assert data == [b"1 $v `1\n"], "the body of a here-document always escapes with a backslash"


@row("DIR-05")
@pytest.mark.parametrize(
    "text",
    [
        "# syntax=example.com/other:1 some words\nFROM a\n",
        "#!/usr/bin/env other\n# syntax=example.com/other:1\nFROM a\n",
        "//syntax=example.com/other:1\nnot a Dockerfile\n",
        '{"syntax": "example.com/other:1", "more": [1]}\n',
    ],
)
def test_another_frontend_is_named(text: str) -> None:
    assert message(text) == "frontend example.com/other:1 is not supported"


@row("DIR-05")
def test_this_frontend_is_known_by_its_names() -> None:
    for name in ("docker/dockerfile:1", "docker.io/docker/dockerfile:1.4-labs and words", "dockerfile.v0"):
        assert converted(f"# syntax={name}\nFROM a\n").target == "stage-0"
    assert converted("# comment\n# syntax=example.com/other\nFROM a\n").target == "stage-0"


@row("DIR-06")
def test_the_check_directive() -> None:
    text = "FROM a AS Stage\nMAINTAINER me\n"
    both = [("StageNameCasing", 1), ("MaintainerDeprecated", 2)]
    assert rules(converted(text)) == both
    moved = [(name, line + 1) for name, line in both]
    assert rules(converted(f"# check=skip=MaintainerDeprecated,Other\n{text}")) == moved[:1]
    assert rules(converted(f"# check=skip=all\n{text}")) == []
    expected = "lint violation found for rules: MaintainerDeprecated, StageNameCasing"
    assert message(f"# check=error=true\n{text}") == expected
    assert rules(converted(f"# check=error=true;skip=all\n{text}")) == []
    assert message(f"# check=foo=bar\n{text}") == 'invalid check option "foo=bar"'
