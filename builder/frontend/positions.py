"""Exact places in a Dockerfile, to line and column: for errors, warnings and tools.

A build that goes well needs none of this. So instructions keep only their lines, and the columns of one are found
when they are asked for, by reading its physical lines and its grammar once more.

Lines and columns are counted from 1, columns in characters: a tab is one, a byte that is not UTF-8 is one, and
a byte order mark is none. The end of a range is the place after its last character.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from builder.frontend.errors import SyntaxProblem
from builder.frontend.lines import (
    BLANKS,
    DIRECTIVES,
    Heredoc,
    blank_words,
    continued,
    heredoc_words,
    read_directives,
)
from builder.frontend.parts import Part
from builder.frontend.source import SourceFile, Span
from builder.frontend.spelling import Spelled, piece_of, spell, variable_in

__all__ = ["Place", "Position", "Range", "parts_of", "range_of"]


class Position(NamedTuple):
    """A character of a file, or the place after the last one of a line."""

    line: int
    column: int


class Range(NamedTuple):
    """From one character up to another, which is not part of it."""

    start: Position
    end: Position

    def cut(self, source: SourceFile) -> str:
        """The characters of the file in this range; lines are joined by newlines."""
        (first, left), (last, right) = self
        lines = list(source.lines[first - 1 : last])
        lines[-1] = lines[-1][: right - 1]
        lines[0] = lines[0][left - 1 :]
        return "\n".join(lines)


class Place(NamedTuple):
    """A part of an instruction and where it stands."""

    part: Part
    range: Range


class Layout:
    """The text of one instruction, and the place of each of its characters.

    The bodies of its here-documents count on after the text, a line after another.
    """

    def __init__(self, lines: Sequence[str], first: int, escape: str) -> None:
        self._starts: list[int] = []
        self._places: list[Position] = []
        self._length = 0
        self._lines = lines
        self._next = first  # counted from 0: the line after the first
        self.text = self._join(lines[first - 1] if first <= len(lines) else "", escape)
        self.bodies = tuple(self._body(heredoc) for heredoc in self._heredocs())

    def _add(self, text: str, line: int, column: int) -> None:
        self._starts.append(self._length)
        self._places.append(Position(line, column))
        self._length += len(text)

    def _join(self, line: str, escape: str) -> str:
        """As ``lines`` does it: LEX-04, comments and blank lines between left out."""
        stripped = line.lstrip(BLANKS)
        column = len(line) - len(stripped) + 1
        text, more = continued(stripped, escape)
        self._add(text, self._next, column)
        parts = [text]
        while more and self._next < len(self._lines):
            line = self._lines[self._next]
            self._next += 1
            if line.lstrip(BLANKS)[:1] in ("", "#"):
                continue
            text, more = continued(line, escape)
            self._add(text, self._next, 1)
            parts.append(text)
        joined = "".join(parts)
        before = len(joined) - len(joined.lstrip())
        self._starts = [start - before for start in self._starts]
        joined = joined.strip()
        self._length = len(joined)
        return joined

    def _heredocs(self) -> tuple[Heredoc, ...]:
        return heredoc_words(self.text) if "<<" in self.text else ()

    def _body(self, heredoc: Heredoc) -> Body:
        """Read the lines of a here-document up to its end, or that of the file."""
        starts: list[int] = []
        while self._next < len(self._lines):
            line = self._lines[self._next]
            self._next += 1
            tabs = len(line) - len(line.lstrip("\t")) if heredoc.strip_tabs else 0
            starts.append(self._length)
            self._add(line[tabs:] + "\n", self._next, tabs + 1)
            if heredoc.ends_with(line):
                return Body(heredoc, tuple(starts), self._length - 1)
        return Body(heredoc, (*starts, self._length), self._length)

    def position(self, offset: int) -> Position:
        """Where a character of the text stands."""
        index = max(0, bisect_right(self._starts, offset) - 1)
        line, column = self._places[index]
        return Position(line, column + offset - self._starts[index])

    def range(self, start: int, end: int) -> Range:
        """Where a piece of the text stands; an empty one is right after what is before it."""
        if start >= end:
            if start > 0:
                line, column = self.position(start - 1)
                return Range(Position(line, column + 1), Position(line, column + 1))
            return Range(self.position(start), self.position(start))
        line, column = self.position(end - 1)
        return Range(self.position(start), Position(line, column + 1))


class Body(NamedTuple):
    """The lines of a here-document in a layout: where each begins, the delimiter's last, and where that ends."""

    heredoc: Heredoc
    starts: tuple[int, ...]
    end: int


@lru_cache(maxsize=8)
def _escape(data: bytes) -> str:
    try:
        directives = read_directives(SourceFile("", data))
    except SyntaxProblem:
        return "\\"
    return next((value for name, value, _ in directives if name == "escape"), "\\")


def range_of(source: SourceFile, span: Span, part: Part) -> Range | None:
    """Where ``part`` of the instruction on the lines ``span`` stands; None when it has no such part.

    A trigger that a base image or stage brings stands nowhere in these lines: the name of the base is meant.
    """
    if part.kind in ("directive", "directive-name"):
        return _directive(source, span.start, part)
    if not 1 <= span.start <= len(source.lines):
        return None
    layout = Layout(source.lines, span.start, _escape(source.data))
    found = _find(layout, _escape(source.data), part)
    return None if found is None else layout.range(*found)


def parts_of(source: SourceFile, span: Span, text: str = "") -> tuple[Place, ...]:
    """All parts of the instruction on the lines ``span``, in no order; of the one called ``text`` (ONBUILD)."""
    escape = _escape(source.data)
    layout = Layout(source.lines, span.start, escape)
    found = spell(layout.text, layout.bodies, escape, text)
    return tuple(Place(item.part, layout.range(item.start, item.end)) for item in found or ())


def _find(layout: Layout, escape: str, part: Part) -> tuple[int, int] | None:
    """Offsets in the layout."""
    if part.kind == "word":
        return _word(layout.text, part)
    if part.kind == "heredoc" and not part.instruction:
        part = part._replace(instruction=layout.text)
    found = spell(layout.text, layout.bodies, escape, part.instruction)
    if found is None:  # no text of this line
        part = Part("argument")
        found = spell(layout.text, layout.bodies, escape, "") or ()
        if not any(item.part.kind == "keyword" and item.value.lower() == "from" for item in found):
            return None
    if part.kind == "variable":
        return variable_in(found, part.name, escape)
    return piece_of(found, part)


def _word(text: str, part: Part) -> tuple[int, int] | None:
    words = list(blank_words(text))
    if not 0 <= part.nth < len(words):
        return None
    start, end = words[part.nth].span()
    return start + part.start, end if part.end is None else start + part.end


def _directive(source: SourceFile, line: int, part: Part) -> Range | None:
    """A piece of the line of a parser directive, or of what stands for one (DIR-05)."""
    text = source.lines[line - 1] if 1 <= line <= len(source.lines) else ""
    name, mark, _ = text.partition("=")
    if not mark:
        name, mark, _ = text.partition(":")
    if name.strip().lstrip("#/{ \t").strip('" \t').lower() not in DIRECTIVES or not mark:
        return None
    wanted = part.name or part.text
    start = name.lower().find(wanted) if part.name else text.find(wanted, len(name) + 1)
    if start < 0:
        return None
    return Range(Position(line, start + 1), Position(line, start + 1 + len(wanted)))
