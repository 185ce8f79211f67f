"""Files put together from known pieces: the range of every piece cuts that piece out of the file again.

Between the pieces stand blanks, tabs, continuations and comments, in lines that end either way; where each piece
begins is counted while the file is written. Seeds are fixed.
"""

from __future__ import annotations

import random

import pytest

from builder.frontend.parser import parse
from builder.frontend.parts import KEYWORD, Part, argument, field, value_of
from builder.frontend.positions import Position, Range

pytestmark = pytest.mark.property

WORDS = [
    "a",
    "src/b.txt",
    "é日本",
    "𝄞x",
    "a.b-c_d",
    "$X",
    "${X:-y}",
    "*",
    "x=y",
    "c#",
    "k:v",
    "<",
    "ｗ",
    "'",
    "1",
]


class File:
    """A Dockerfile being written, and where its pieces stand."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.escape = rng.choice(["\\", "`"])
        self.ending = rng.choice(["\n", "\r\n"])
        self.text = ""
        self.line, self.column = 1, 1
        self.known: list[list[tuple[Part, Range, str]]] = []

    def write(self, text: str) -> Range:
        start = Position(self.line, self.column)
        for char in text:
            self.line, self.column = (self.line + 1, 1) if char == "\n" else (self.line, self.column + 1)
        self.text += text
        return Range(start, Position(self.line, self.column))

    def part(self, part: Part, text: str) -> None:
        self.known[-1].append((part, self.write(text), text))

    def end(self) -> None:
        self.write(self.ending)

    def blank(self) -> None:
        """What may stand between two words."""
        blank, end = self.rng.choice([" ", "\t", "  "]), self.ending
        comment = self.rng.choice(["", f"# no {self.escape}{end}", f" \t# no{end}", f"  {end}"])
        more = f"{blank}{self.escape}{self.rng.choice(['', ' '])}{end}{comment}{blank}"
        self.write(self.rng.choice([blank, blank, more]))

    def keyword(self, name: str) -> None:
        self.known.append([])
        self.write(self.rng.choice(["", "", "  ", "\t"]))
        self.part(KEYWORD, self.rng.choice([name, name.lower()]))

    def flag(self, name: str, text: str, nth: int) -> None:
        self.blank()
        self.part(Part("flag-name", nth), f"--{name}")
        self.write("=")
        self.part(value_of(name), text)


def words(file: File, name: str) -> None:
    """COPY or ADD with flags and words."""
    file.keyword(name)
    given = file.rng.sample(["chown", "chmod"], file.rng.randrange(3))
    for nth, flag in enumerate(given):
        file.flag(flag, file.rng.choice(["0", "755", '"7"', "'0'"]), nth)
    for nth in range(file.rng.randrange(2, 5)):
        file.blank()
        file.part(argument(nth), file.rng.choice(WORDS))
    file.end()


def pairs(file: File, name: str) -> None:
    file.keyword(name)
    for nth in range(file.rng.randrange(1, 4)):
        file.blank()
        file.part(Part("key", nth), file.rng.choice(["A", "é.b", "x_1"]))
        file.write("=")
        quote = file.escape + " "
        file.part(
            Part("value", nth), file.rng.choice(["", "v", '"a b"', "'#'", f"a{quote}b", "${X:-1}", "日"])
        )
    file.end()


def array(file: File, name: str) -> None:
    file.keyword(name)
    file.blank()
    file.write("[")
    for nth in range(file.rng.randrange(1, 4)):
        file.write("," if nth else "")
        file.write(file.rng.choice(["", " ", "\t"]))
        file.part(
            argument(nth),
            file.rng.choice(['"a"', '"é b"', '"\\n\\u00e9"' if file.escape == "`" else '"\\n"', '""']),
        )
    file.write("]")
    file.end()


def run(file: File, _name: str) -> None:
    file.keyword("RUN")
    if file.rng.random() < 0.5:
        file.blank()
        file.write("--mount=type=")
        file.part(field("type"), "cache")
        file.write(",")
        file.part(field("target", "field-name"), file.rng.choice(["dst", "target"]))
        file.write("=")
        file.part(field("target"), file.rng.choice(["/c", "/é", "c"]))
    file.blank()
    if file.rng.random() < 0.5:
        file.part(argument(0), file.rng.choice(["make  all", "x # y", "é '日本'", "a;b"]))
        file.end()
        return
    file.part(Part("heredoc"), "<<E")
    file.end()
    for nth in range(file.rng.randrange(3)):
        file.part(Part("body-line", nth), file.rng.choice(["x", "  é", "日 \\", "# no", ""]))
        file.end()
    file.part(Part("delimiter"), "E")
    file.end()


SHAPES = [
    (words, "COPY"),
    (words, "ADD"),
    (pairs, "ENV"),
    (pairs, "LABEL"),
    (array, "CMD"),
    (array, "ENTRYPOINT"),
    (run, ""),
]


def written(seed: int) -> File:
    file = File(random.Random(seed))
    if file.escape == "`":
        file.write("# escape=`\n")
    file.keyword("FROM")
    file.blank()
    file.part(argument(0), "a")
    file.end()
    for _ in range(file.rng.randrange(1, 5)):
        shape, name = file.rng.choice(SHAPES)
        file.write(file.rng.choice(["", "", f"# c{file.ending}", file.ending]))
        shape(file, name)
    return file


@pytest.mark.parametrize("seed", range(12))
def test_every_range_cuts_its_piece(seed: int) -> None:
    for number in range(20):
        file = written(seed * 1000 + number)
        data = file.rng.choice([b"", b"\xef\xbb\xbf"]) + file.text.encode()
        dockerfile = parse(data)
        assert len(dockerfile.instructions) == len(file.known), file.text
        for instruction, known in zip(dockerfile.instructions, file.known, strict=True):
            for part, place, piece in known:
                found = dockerfile.place(instruction, part)
                assert found == place, (file.text, part)
                assert found.cut(dockerfile.source) == piece
