"""Exact places in a Dockerfile, to line and column: for errors, warnings and tools.

A build that goes well needs none of this. So instructions keep only their lines, and the columns of one are
found when they are asked for, by reading its physical lines and its grammar once more.

Lines and columns are counted from 1, columns in characters: a tab is one, a byte that is not UTF-8 is one,
and a byte order mark is none. The end of a range is the place after its last character.
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
from builder.frontend.spelling import Body, Spelled, spell
from builder.frontend.words import find_variable

__all__ = ["Place", "Position", "Range", "directives_of", "parts_of", "range_of"]


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
        """``lines`` are those of the file, carriage returns included."""
        self._starts: list[int] = []
        self._places: list[Position] = []
        self._length = 0
        self._lines = lines
        self._next = first
        self.text = self._join(lines[first - 1], escape)
        heredocs = heredoc_words(self.text) if "<<" in self.text else ()
        self.bodies = tuple(map(self._body, heredocs))

    def _add(self, text: str, line: int, column: int) -> None:
        self._starts.append(self._length)
        self._places.append(Position(line, column))
        self._length += len(text)

    def _join(self, line: str, escape: str) -> str:
        """As ``lines`` does it (LEX-04): comments and blank lines between are left out."""
        stripped = line.lstrip(BLANKS)
        text, more = continued(stripped.rstrip("\r"), escape)
        self._add(text, self._next, len(line) - len(stripped) + 1)
        parts = [text]
        while more and self._next < len(self._lines):
            line = self._lines[self._next].rstrip("\r")
            self._next += 1
            if line.lstrip(BLANKS)[:1] in ("", "#"):
                continue
            text, more = continued(line, escape)
            self._add(text, self._next, 1)
            parts.append(text)
        joined = "".join(parts)
        before = len(joined) - len(joined.lstrip())
        self._starts = [start - before for start in self._starts]
        self._length += 1 - before
        return joined.strip()

    def _body(self, heredoc: Heredoc) -> Body:
        """Read the lines of a here-document up to its end, or that of the file."""
        starts: list[int] = []
        lines: list[str] = []
        while self._next < len(self._lines):
            line = self._lines[self._next]
            self._next += 1
            tabs = len(line) - len(line.lstrip("\t")) if heredoc.strip_tabs else 0
            starts.append(self._length)
            self._add(line[tabs:] + "\n", self._next, tabs + 1)
            if heredoc.ends_with(line.rstrip("\r")):
                return Body(heredoc, "".join(lines), tuple(starts), True)
            lines.append(line[tabs:] + "\n")
        return Body(heredoc, "".join(lines), (*starts, self._length), False)

    def position(self, offset: int) -> Position:
        """Where a character of the text stands."""
        index = max(0, bisect_right(self._starts, offset) - 1)
        line, column = self._places[index]
        return Position(line, column + offset - self._starts[index])

    def range(self, start: int, end: int) -> Range:
        """Where a piece of the text stands; an empty one is right after what is before it."""
        after = self._after(end)
        return Range(self.position(start) if start < end else after, after)

    def _after(self, end: int) -> Position:
        if end == 0 or (end > len(self.text) and end in self._starts):
            return self.position(end)
        line, column = self.position(end - 1)
        return Position(line, column + 1)


@lru_cache(maxsize=4)
def _read(data: bytes) -> tuple[list[str], str]:
    """The lines of a file with their carriage returns, and its escape character."""
    source = SourceFile("", data)
    raw = source.text.split("\n")
    try:
        directives = read_directives(source, raw)
    except SyntaxProblem:
        directives = ()
    return raw, next((value for name, value, _ in directives if name == "escape"), "\\")


def range_of(source: SourceFile, span: Span, part: Part) -> Range | None:
    """Where ``part`` of the instruction on the lines ``span`` stands; None when it has no such part.

    A trigger that a base image or stage brings stands nowhere in these lines: the name of the base is meant.
    """
    lines, escape = _read(source.data)
    if not 1 <= span.start <= len(lines):
        return None
    if part.kind in ("directive", "directive-name"):
        return _directive(lines[span.start - 1], span.start, part)
    layout = Layout(lines, span.start, escape)
    found = _find(layout, escape, part)
    return None if found is None else layout.range(*found)


def parts_of(source: SourceFile, span: Span, text: str = "") -> tuple[Place, ...]:
    """All parts of the instruction on the lines ``span``; ``text`` says which one of an ONBUILD."""
    lines, escape = _read(source.data)
    layout = Layout(lines, span.start, escape)
    found = spell(layout.text, layout.bodies, escape, text) or ()
    return tuple(Place(item.part, layout.range(item.start, item.end)) for item in found)


def directives_of(source: SourceFile) -> tuple[Place, ...]:
    """Names and values of the parser directives; raises SyntaxProblem."""
    lines, _ = _read(source.data)
    found: list[Place] = []
    for name, value, number in read_directives(source, lines):
        for part in (Part("directive-name", name=name), Part("directive", name=name, text=value)):
            place = _directive(lines[number - 1], number, part)
            if place is not None:
                found.append(Place(part, place))
    return tuple(found)


def _directive(line: str, number: int, part: Part) -> Range | None:
    """A piece of the line of a parser directive, or of what stands for one (DIR-05)."""
    mark = "=" if "=" in line else ":"
    name, found, _ = line.partition(mark)
    if not found or name.strip(' \t\r\v\f#/{"').lower() not in DIRECTIVES:
        return None
    if part.kind == "directive-name":
        wanted, start = part.name, name.lower().find(part.name)
    else:
        wanted, start = part.text, line.find(part.text, len(name) + 1)
    if start < 0:
        return None
    return Range(Position(number, start + 1), Position(number, start + 1 + len(wanted)))


def _find(layout: Layout, escape: str, part: Part) -> tuple[int, int] | None:
    """Offsets in the layout."""
    if part.kind == "word":
        return _word(layout.text, part)
    found = spell(layout.text, layout.bodies, escape, part.instruction)
    if found is None:  # no text of these lines
        part = Part("argument")
        found = spell(layout.text, layout.bodies, escape) or []
        if _keyword(found) != "from":
            return None
    if part.kind == "variable":
        return _variable(found, part.name, escape)
    return _piece(found, part)


def _keyword(found: Sequence[Spelled]) -> str:
    return next((item.value.lower() for item in found if item.part.kind == "keyword"), "")


def _word(text: str, part: Part) -> tuple[int, int] | None:
    words = list(blank_words(text))
    if not 0 <= part.nth < len(words):
        return None
    start, end = words[part.nth].span()
    return start + part.start, end if part.end is None else start + part.end


def _piece(found: Sequence[Spelled], part: Part) -> tuple[int, int] | None:
    """Where the part that is meant is written, or what it would stand in."""
    same = [item for item in found if _is_meant(item, part)]
    nth = 0 if part.kind.startswith("field") or part.kind == "text" else part.nth
    if -len(same) <= nth < len(same):
        return same[nth].cut(part.start, part.end)
    match part.kind:
        case "field-value" | "field-name":
            return _piece(found, Part("field", part.nth, part.name))
        case "field":
            return _piece(found, Part("flag-value", part.nth, "mount"))
        case "flag-value":
            return _piece(found, Part("flag", part.nth, part.name))
        case "argument" | "key" | "value":
            return _piece(found, Part("arguments"))
        case "arguments" | "type":
            return _piece(found, Part("end"))
        case _:
            return None


def _is_meant(item: Spelled, part: Part) -> bool:
    if part.kind == "text":
        return item.value == part.text
    if part.kind != item.part.kind or part.name not in ("", item.part.name):
        return False
    if part.kind.startswith("field") and part.nth not in (-1, item.part.nth):
        return False
    return part.text in ("", item.value)


_NOT_EXPANDED = frozenset({"cmd", "entrypoint", "shell", "healthcheck"})


def _variable(found: Sequence[Spelled], name: str, escape: str) -> tuple[int, int] | None:
    """The first ``$name`` that is no plain text to the instruction."""
    rule = _keyword(found)
    kinds = {"field-value"} if rule == "run" else {"key", "value", "argument", "flag-value", "body"}
    for item in found if rule not in _NOT_EXPANDED else ():
        if item.part.kind not in kinds or "$" not in item.value:
            continue
        body = item.part.kind == "body"
        place = find_variable(item.value, name, "\\" if body else escape, no_quotes=body)
        if place is not None:
            return item.cut(*place)
    return None
