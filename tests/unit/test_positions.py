"""Exact places in Dockerfiles: each part of an instruction, to line and column, against texts marked by hand.

In each text « and » stand around what is meant. They are taken out before it is read; that they stood where the
range begins and ends is counted here, by nothing of ours.
"""

from __future__ import annotations

import pytest

from builder.frontend.parser import parse
from builder.frontend.parts import ARGUMENTS, END, KEYWORD, Part, argument, field, text, value_of, variable
from builder.frontend.positions import Position, Range, directives_of
from builder.frontend.source import SourceFile

KEY, VALUE = Part("key"), Part("value")
NAME, FLAG, HEREDOC = Part("flag-name"), Part("flag"), Part("heredoc")
BODY, LINE, DELIMITER = Part("body"), Part("body-line"), Part("delimiter")


def key(nth: int) -> Part:
    return Part("key", nth)


def value(nth: int) -> Part:
    return Part("value", nth)


TABLE: list[tuple[str, Part]] = [
    # keywords and words
    ("«FROM» a", KEYWORD),
    ("  \t«from» a", KEYWORD),
    ("\ufeff«FROM» a", KEYWORD),
    ("# c\n\n«FROM» a", KEYWORD),
    ("FROM «a»", argument(0)),
    ("FROM\t\t«a»\t", argument(0)),
    ("\ufeffFROM «a»", argument(0)),
    ("FROM a «AS» b", argument(1)),
    ("FROM a AS «b»", argument(2)),
    ("FROM «a AS b»  ", ARGUMENTS),
    ("FROM a AS b«»  ", END),
    ("FROM a\r\nRUN «x y»\r\n", argument(0)),
    ("FROM a\r\nRUN x y«» \r\n", END),
    ("FROM a\nUSER «ünï»", argument(0)),
    ("FROM a\nENV é=«日本»", VALUE),
    ("FROM a\nENV «é»=日本", KEY),
    ("FROM a\nENV 𝄞=«𝄞»", VALUE),
    # continuations, comments and blank lines between
    ("FROM a\nRUN «x \\\n  y»", argument(0)),
    ("FROM a\nRUN \\\n  «x»", argument(0)),
    ("FROM a\nRUN \\\n# no\n\n  «x»", argument(0)),
    ("FROM a\nCOPY a \\\n  # no\n  «b» \\\n  /c", argument(1)),
    ("FROM a\nCOPY a \\\n  # no\n  b \\\n  «/c»", argument(2)),
    ("FROM a\nCOPY a \\\n  # no\n  b \\\n  «/c»  \t", argument(-1)),
    ("FROM a\nCOPY «a\\\nb» c", argument(0)),
    ("FROM a\nCOPY «a\\\n# no\nb» c", argument(0)),
    ("FROM a\nCOPY «--ch\\\nown»=1 b c", NAME),
    ("FROM a\nCOPY --ch\\\nown=«1:\\\n2» b c", value_of("chown")),
    ("FROM a\nCOPY --chown=«1» \\\n  b c", value_of("chown")),
    ("FROM a\n«CO\\\nPY» b c", KEYWORD),
    ("FROM a\n\\\n «RUN» x", KEYWORD),
    ("FROM a\nRUN x«» \\ \t\n  \n", END),
    ("FROM a\r\nCOPY a \\\r\n  # no\r\n  «b» c\r\n", argument(1)),
    ("# escape=`\nFROM a\nCOPY a `\n  «b» c", argument(1)),
    ("# escape=`\nFROM a\nCOPY a\\ «b» c", argument(1)),
    ("# escape=`\nFROM a\nENV A=«b` c» D=e", VALUE),
    ("# escape=`\nFROM a\nENV A=b` c «D»=e", key(1)),
    ("FROM a\nENV A=«b\\ c» D=e", VALUE),
    ("FROM a\nENV A=«b\\\nC=d» E=f", VALUE),
    ("FROM a\nENV A=b \\\n«C»=d", key(1)),
    # flags
    ("FROM «--platform=x» a", FLAG),
    ("FROM «--platform»=x a", NAME),
    ("FROM --platform=«x» a", value_of("platform")),
    ("FROM --platform=«» a", value_of("platform")),
    ('FROM --platform=«"x"» a', value_of("platform")),
    ("FROM --platform=«x\"y z\"'w v'» a", value_of("platform")),
    ("FROM a\nCOPY --link «--chown=1» b c", Part("flag", 1)),
    ("FROM a\nCOPY «--link» --chown=1 b c", value_of("link")),
    ("FROM a\nCOPY --exclude=a --exclude=«b» c d", value_of("exclude", 1)),
    ("FROM a\nCOPY --exclude=a «--exclude»=b c d", Part("flag-name", 1)),
    ("FROM a\nCOPY --exclude=b --exclude=«c» b c", Part("flag-value", name="exclude", text="c")),
    ("FROM a\nRUN --network=none -- «--nothing»", argument(0)),
    ("FROM a\nADD -- --«a» b", argument(0)._replace(start=2)),
    ("FROM a\nHEALTHCHECK --interval=«1s» CMD x", value_of("interval")),
    ("FROM a\nHEALTHCHECK --interval=1s «CMD» x", Part("type")),
    ("FROM a\nHEALTHCHECK --interval=1s CMD «x  y»", argument(0)),
    # mounts
    ("FROM a\nRUN --mount=«type=tmpfs,target=/t» x", value_of("mount")),
    ("FROM a\nRUN --mount=type=«tmpfs»,target=/t x", field("type")),
    ("FROM a\nRUN --mount=type=tmpfs,«dst»=/t x", field("target", "field-name")),
    ("FROM a\nRUN --mount=type=tmpfs,«dst=/t» x", field("target", "field")),
    ("FROM a\nRUN --mount=type=tmpfs,\\\n  # no\ndst=«/t» x", field("target")),
    ("FROM a\nRUN --mount='type=tmpfs,\"dst=«/t,u»\"' x", field("target")),
    ("FROM a\nRUN --mount=dst=/t --mount=«ro»,dst=/u x", Part("field-value", 1, "readonly")),
    ("FROM a\nRUN --mount=dst=/t --mount=ro,dst=«/u» x", Part("field-value", 1, "target")),
    # JSON
    ('FROM a\nCMD [«"a"», "b"]', argument(0)),
    ('FROM a\nCMD [ "a" ,\t«"b \\u00e9"» ]', argument(1)),
    ('FROM a\nCMD ["a\\u0041«\\n»z"]', argument(0)._replace(start=2, end=3)),
    ('FROM a\nCMD ["\\ud834\\udd1e«b»"]', argument(0)._replace(start=1, end=2)),
    ('FROM a\nCOPY ["a b", «"c]"»]', argument(1)),
    ('FROM a\nCOPY [«"a"», \\\n "b"]', argument(0)),
    ('FROM a\nCOPY ["a", \\\n «"b"»]', argument(1)),
    ('FROM a\nCMD «["a" "b"]»', argument(0)),
    ('FROM a\nVOLUME ["a" «"b"]»', argument(1)),
    ('FROM a\nCMD «["a"] x»', argument(0)),
    # pairs
    ('FROM a\nENV A="b c" «D»=e', key(1)),
    ('FROM a\nENV A=«"b c"» D=e', value(0)),
    ("FROM a\nENV A=«» D=e", value(0)),
    ("FROM a\nENV «A»   b c=d", KEY),
    ("FROM a\nENV A   «b c=d»", VALUE),
    ("FROM a\nARG A «B»=c", key(1)),
    ("FROM a\nARG A B=«c»", text("c")),
    ('FROM a\nLABEL a.b=c «"d e"»=f', key(1)),
    # here-documents
    ("FROM a\nRUN «<<EOF»\nx\nEOF", HEREDOC),
    ("FROM a\nRUN <<EOF\n«x\n y»\nEOF", BODY),
    ("FROM a\nRUN <<EOF\nx\n y\n«EOF»\nRUN z", DELIMITER),
    ("FROM a\nRUN <<EOF\n«»EOF\nRUN z", BODY),
    ("FROM a\nCOPY <<-«»E /x\n\t\tx\n\tE", HEREDOC._replace(start=3, end=3)),
    ("FROM a\nCOPY <<-E /x\n\t\tx\n\t«E»", DELIMITER),
    ("FROM a\nCOPY <<-E /x\n\t\t«x\n\ty»\nE", BODY),
    ("FROM a\nCOPY <<A «<<B» /x\n1\nA\n2\nB", Part("heredoc", 1)),
    ("FROM a\nCOPY <<A <<B /x\n1\nA\n«2»\nB", Part("body", 1)),
    ("FROM a\r\nRUN <<EOF\r\n«x»\r\nEOF\r\n", LINE),
    ("FROM a\r\nRUN <<EOF\r\nx\r\n«EOF»\r\n", DELIMITER),
    ('FROM a\nCOPY «<<"a b"» /x\n1\na b', HEREDOC),
    ("FROM a\nCOPY <<A \\\n # no\n «/x»\n1\nA", argument(1)),
    ("FROM a\nCOPY <<A \\\n /x\n1\n2«3»\nA", text("1\n23\n", 3, 4)),
    # ONBUILD
    ("FROM a\n«ONBUILD» RUN x", KEYWORD),
    ("FROM a\nONBUILD «RUN» x", Part("keyword", instruction="RUN x")),
    ("FROM a\nONBUILD RUN «x»", Part("argument", instruction="RUN x")),
    ("FROM a\nONBUILD \\\n  COPY --from=«b» c d", value_of("from").of("COPY --from=b c d")),
    ("FROM a\nONBUILD COPY <<A /x\n«1»\nA", BODY.of("COPY <<A /x")),
    # by what they hold, and variables
    ("FROM a\nCOPY «b» b b", text("b")),
    ("FROM a\nUSER x«${y»", text("x${y", 1)),
    ("FROM a\nENV A=b C=x«$y»", variable("y")),
    ("FROM a\nENV A='$y' C=\\$y D=«${y}»$y", variable("y")),
    ("FROM a\nENV A=$yy D=«${y»:-z}", variable("y")),
    ("FROM a\nRUN --mount=dst=/«$y» $y", variable("y")),
    ("FROM a\nCOPY <<E /x\n'«$y»'\nE", variable("y")),
]


def marked(shown: str) -> tuple[bytes, Range]:
    """The text without its marks, and the range between them."""
    assert shown.count("«") == shown.count("»") == 1
    before, rest = shown.split("«")
    inside, after = rest.split("»")

    def place(so_far: str) -> Position:
        whole = so_far.removeprefix("\ufeff").split("\n")
        return Position(len(whole), len(whole[-1]) + 1)

    return (before + inside + after).encode(), Range(place(before), place(before + inside))


@pytest.mark.parametrize(("shown", "part"), TABLE, ids=[repr(shown) for shown, _ in TABLE])
def test_the_place_of_a_part(shown: str, part: Part) -> None:
    data, expected = marked(shown)
    dockerfile = parse(data)
    wanted = [one for one in dockerfile.instructions if one.at.span.start <= expected.start.line]
    assert dockerfile.place(wanted[-1], part) == expected


def test_the_table_is_long() -> None:
    assert len(TABLE) >= 100


@pytest.mark.parametrize(
    ("written", "part", "place"),
    [
        (b"\xef\xbb\xbfFROM a AS b\r\n", argument(2), ((1, 11), (1, 12))),
        (b"FROM a\nCOPY\t--chown=1\\\r\n # no\r\n:2 b\tc\n", value_of("chown"), ((2, 14), (4, 3))),
        (b"FROM a\nUSER \xff\xfex\n", argument(0), ((2, 6), (2, 9))),
        (b"FROM a\nRUN <<-E\n\t\tx\n\n\tE\n", Part("body"), ((3, 3), (4, 1))),
        (b"FROM a\nRUN <<E\n\nE\n", Part("body"), ((3, 1), (3, 1))),
        (b"FROM a\nRUN <<E\n\nE\n", Part("delimiter"), ((4, 1), (4, 2))),
        ("FROM a\nUSER ｘ\u0301é\n".encode(), argument(0), ((2, 6), (2, 9))),
    ],
)
def test_the_numbers(written: bytes, part: Part, place: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Written out: a tab, a wide or combining character, a byte that is not UTF-8 are each one column."""
    dockerfile = parse(written)
    assert dockerfile.place(dockerfile.instructions[-1], part) == place


def test_what_is_not_there_has_no_place() -> None:
    dockerfile = parse(b"FROM a\nRUN x\n")
    run = dockerfile.instructions[1]
    assert dockerfile.place(run, text("y")) is None
    assert dockerfile.place(run, value_of("mount")) is None
    assert dockerfile.place(run, variable("x")) is None
    assert dockerfile.place(run, Part("heredoc")) is None
    assert dockerfile.place(run, Part("keyword", instruction="COPY a b")) is None


def test_a_trigger_of_a_base_stands_for_its_name() -> None:
    dockerfile = parse(b"FROM a AS b\n")
    assert dockerfile.place(dockerfile.instructions[0], Part("end", instruction="RUN x")) == ((1, 6), (1, 7))


def test_parser_directives() -> None:
    source = SourceFile("Dockerfile", b"\xef\xbb\xbf#syntax = docker/dockerfile:1 \r\n #  Escape=`\nFROM a\n")
    found = [(place.part.kind, place.part.name, place.range.cut(source)) for place in directives_of(source)]
    assert found == [
        ("directive-name", "syntax", "syntax"),
        ("directive", "syntax", "docker/dockerfile:1"),
        ("directive-name", "escape", "Escape"),
        ("directive", "escape", "`"),
    ]
    assert [place.range.start for place in directives_of(source)] == [(1, 2), (1, 11), (2, 5), (2, 12)]


def test_all_parts_of_an_instruction() -> None:
    dockerfile = parse(b'FROM a\nRUN --mount=type=tmpfs,dst=/t ["x", "y"]\n')
    found = dockerfile.parts(dockerfile.instructions[1])
    assert [(place.part.kind, place.range.cut(dockerfile.source)) for place in found] == [
        ("argument", '"x"'),
        ("argument", '"y"'),
        ("flag-value", "type=tmpfs,dst=/t"),
        ("field-value", "/t"),
        ("field", "dst=/t"),
        ("field-name", "dst"),
        ("field-value", "tmpfs"),
        ("field", "type=tmpfs"),
        ("field-name", "type"),
        ("flag-name", "--mount"),
        ("flag", "--mount=type=tmpfs,dst=/t"),
        ("arguments", '"x", "y"'),
        ("keyword", "RUN"),
        ("end", ""),
    ]
