"""Logical lines: rows LEX, DIR and HDC-01…04."""

from __future__ import annotations

import pytest

from builder.frontend.errors import EmptyDockerfile, SyntaxProblem
from builder.frontend.lines import parse_heredoc, scan
from builder.frontend.source import SourceFile


def scanned(text):
    return scan(SourceFile("Dockerfile", text if isinstance(text, bytes) else text.encode()))


def texts(text):
    return [line.text for line in scanned(text).lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN b\n", ["FROM a", "RUN b"]),
        ("  FROM a  \n", ["FROM a"]),
        ("FROM a", ["FROM a"]),
        ("FROM a\r\nRUN b\r\n", ["FROM a", "RUN b"]),
        ("RUN a \\\r\n  b\r\n", ["RUN a   b"]),
        ("# c\nFROM a # not a comment\n", ["FROM a # not a comment"]),
        ("RUN a \\\n# note\n  b\n", ["RUN a   b"]),
        ("RUN a \\\n  # note\nb\n", ["RUN a b"]),
        ("RUN a \\  \t\nb\n", ["RUN a b"]),
        ("RUN a\\\nb\n", ["RUN ab"]),
        ("RUN a \\\n\\\nb\n", ["RUN a b"]),
        ("RUN a \\\\\nRUN b\n", ["RUN a \\\\", "RUN b"]),
        ("RUN a \\\\\\\nRUN b\n", ["RUN a \\\\\\", "RUN b"]),
        ("RUN a \\\n\n\nb\n", ["RUN a b"]),
        ("RUN a \\\n", ["RUN a"]),
        ("\\\nRUN a\n", ["RUN a"]),
        ("RUN a \\\n   ", ["RUN a"]),
    ],
)
def test_lines_are_joined(text, expected):
    assert texts(text) == expected


def test_a_byte_order_mark_is_dropped_and_other_bytes_survive():
    (line,) = scanned(b"\xef\xbb\xbfRUN \xff\n").lines
    assert line.text.encode("utf-8", "surrogateescape") == b"RUN \xff"


def test_long_lines_are_fine():
    assert len(texts("RUN " + "x" * 200_000 + "\n")[0]) == 200_004


def test_lines_have_their_numbers():
    found = scanned("# c\nFROM a\n\nRUN b \\\n # c\n c\nRUN d\n").lines
    assert [(line.first, line.last) for line in found] == [(2, 2), (4, 6), (7, 7)]


def test_blank_lines_in_a_continuation_are_noted_once():
    found = scanned("FROM a\nRUN b \\\n\n\n c\n")
    assert found.empty_continuations == (5,)


def test_comments_above_an_instruction_belong_to_it():
    found = scanned("# one\n#\n# two\n# three\nFROM a\nRUN b\n\n# four\n\nRUN c\n").lines
    assert [line.comments for line in found] == [("two", "three"), (), ("four",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the Dockerfile cannot be empty"),
        (b"\n \n# only\n", "file with no instructions"),
        (b"# escape=`\n", "file with no instructions"),
    ],
)
def test_empty_files(text, message):
    with pytest.raises(EmptyDockerfile) as caught:
        scanned(text)
    assert caught.value.message == message
    assert caught.value.code == "empty-dockerfile"


@pytest.mark.parametrize(
    ("text", "directives"),
    [
        ("# syntax=a/b:1 extra\n# escape=`\nFROM a\n", [("syntax", "a/b:1 extra"), ("escape", "`")]),
        ("#Escape =  `  \nFROM a\n", [("escape", "`")]),
        ("#\n# escape=`\nFROM a\n", []),
        ("\n# escape=`\nFROM a\n", []),
        ("# other=1\n# escape=`\nFROM a\n", []),
        ("# check=skip=all\nFROM a\n", [("check", "skip=all")]),
        ("FROM a\n# escape=`\n", []),
    ],
)
def test_directives(text, directives):
    assert [(name, value) for name, value, _ in scanned(text).directives] == directives


def test_directive_lines_are_no_comments():
    assert scanned("# check=skip=all\nFROM a\n").lines[0].comments == ()


def test_the_escape_directive_drives_continuations():
    assert texts("# escape=`\nFROM a\nRUN b `\n c\\\nRUN d\n") == ["FROM a", "RUN b  c\\", "RUN d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# escape=x\nFROM a\n", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# ESCAPE=`\nFROM a\n", "only one escape parser directive can be used"),
        ("FROM a\nRUN b \0\n", "a Dockerfile cannot hold NUL bytes"),
        ("FROM a\nRUN <<EOF\nx\n", "dockerfile parse error on line 2: unterminated heredoc"),
    ],
)
def test_refused(text, message):
    with pytest.raises(SyntaxProblem) as caught:
        scanned(text)
    assert caught.value.message == message
    assert caught.value.span is not None
    assert caught.value.source_lines


def test_heredoc_bodies_are_verbatim():
    found = scanned("RUN <<EOF\n# a\nb \\\n\n c\nEOF\nRUN d\n").lines
    assert found[0].heredocs[0].content == "# a\nb \\\n\n c\n"
    assert (found[0].first, found[0].last, found[1].text) == (1, 6, "RUN d")


def test_several_heredocs_are_read_in_order():
    (line,) = scanned("COPY <<a <<b /dest/\n1\na\n2\nb\n").lines
    assert [(heredoc.name, heredoc.content) for heredoc in line.heredocs] == [("a", "1\n"), ("b", "2\n")]


def test_a_dash_strips_tabs_and_finds_an_indented_end():
    (line,) = scanned("RUN <<-EOF\n\ta\n\t\tb\n  c\n\tEOF\n").lines
    assert line.heredocs[0].body == "a\nb\n  c\n"


@pytest.mark.parametrize(
    "text", ["RUN a <<EOF\nx\nEOF\n", "onbuild run <<EOF\nx\nEOF\n", "ADD <<EOF b\nx\nEOF\n"]
)
def test_heredocs_of_the_instructions_that_have_them(text):
    assert [heredoc.name for heredoc in scanned(text).lines[0].heredocs] == ["EOF"]


@pytest.mark.parametrize(
    "text", ["CMD a <<EOF\n", "ENV a=<<EOF\n", "RUN echo $((1<<2))\n", 'RUN a "<<EOF"\n', "RUN a <<<x\n"]
)
def test_no_heredoc(text):
    assert scanned(text).lines[0].heredocs == ()


@pytest.mark.parametrize(
    ("word", "name", "expand", "strip"),
    [
        ("<<EOF", "EOF", True, False),
        ("<<-EOF", "EOF", True, True),
        ("1<<EOF", "EOF", True, False),
        ("<<'EOF'", "EOF", False, False),
        ('<<"E F"', "E F", False, False),
        ('<<E"O"F', "EOF", False, False),
        ("<<\\EOF", "EOF", False, False),
        ("<<$x", "$x", True, False),
    ],
)
def test_heredoc_words(word, name, expand, strip):
    found = parse_heredoc(word)
    assert (found.name, found.expand, found.strip_tabs) == (name, expand, strip)


@pytest.mark.parametrize("word", ["<<", "<<<EOF", "a<<EOF", "<<a b", "<<''"])
def test_no_heredoc_words(word):
    assert parse_heredoc(word) is None
