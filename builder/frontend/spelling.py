"""How one instruction is spelled: each of its parts with the characters that it is written in.

Offsets count the characters of the instruction's text, and on into the bodies of its here-documents (see
``positions.Layout``). The parts are found by the grammar that parsed the file; nothing here refuses a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from builder.frontend.lines import BLANKS, Heredoc, blank_words, parse_heredoc, word_pattern
from builder.frontend.mounts import ALIASES
from builder.frontend.parser import SWAP, grammar
from builder.frontend.parts import Kind, Part

if TYPE_CHECKING:
    from lark import Token, Tree

_PAIRS = ("env", "label", "arg")
_LISTS = ("add", "copy", "volume")
_ESCAPED = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|.", re.DOTALL)


class Body(NamedTuple):
    """The lines of a here-document as its instruction sees them; where each begins, last the delimiter."""

    heredoc: Heredoc
    text: str
    starts: tuple[int, ...]
    ended: bool


class Spelled(NamedTuple):
    """A part, written from ``start`` to ``end``; its value's characters from ``starts`` to ``ends``."""

    part: Part
    value: str
    start: int
    end: int
    starts: Sequence[int]
    ends: Sequence[int]

    def cut(self, start: int, end: int | None) -> tuple[int, int]:
        """Where a piece of the value is written; all of it is the part with its quotes."""
        if start == 0 and end is None:
            return self.start, self.end
        last = len(self.value)
        start, end = min(start, last), last if end is None else min(end, last)
        if start < end:
            return self.starts[start], self.ends[end - 1]
        at = self.ends[start - 1] if start else self.start
        return at, at

    def piece(self, kind: Kind, start: int, end: int, nth: int = 0, name: str = "") -> Spelled:
        """A part inside this one."""
        first, last = self.cut(start, end)
        value = self.value[start:end]
        part = Part(kind, nth, name, value, instruction=self.part.instruction)
        return Spelled(part, value, first, last, self.starts[start:end], self.ends[start:end])


def _plain(part: Part, value: str, start: int) -> Spelled:
    """A part whose value is what is written."""
    end = start + len(value)
    return Spelled(part, value, start, end, range(start, end), range(start + 1, end + 1))


def spell(text: str, bodies: Sequence[Body], escape: str, wanted: str = "") -> list[Spelled] | None:
    """The parts of an instruction; of the one whose text is ``wanted``, or the last in it, for ONBUILD.

    None when ``text`` does not end with what is wanted. Of a text that is no instruction words are known.
    """
    from lark.exceptions import UnexpectedInput

    swapped = text.translate(SWAP) if escape == "`" else text
    try:
        tree: Any = grammar().parse(swapped + "\n").children[0]
    except (UnexpectedInput, IndexError):
        return _unparsed(text) if not wanted or wanted == text else None
    while True:
        start = tree.children[0].start_pos
        child = tree.children[-1]
        if text[start:] == wanted or (isinstance(child, str) and not wanted):
            break
        if isinstance(child, str):
            return None
        tree = child
    return list(_Speller(text, escape, tree, bodies).all())


def _unparsed(text: str) -> list[Spelled]:
    words = [
        _plain(Part("word", i), match.group(), match.start()) for i, match in enumerate(blank_words(text))
    ]
    keyword = [words[0]._replace(part=Part("keyword"))] if words else []
    return [*keyword, *words, _plain(Part("end"), "", len(text))]


class _Speller:
    """Gives the parts of one grammar tree, in the order in which they are looked for by their value."""

    def __init__(self, text: str, escape: str, tree: Tree[Token], bodies: Sequence[Body]) -> None:
        tokens: list[Any] = tree.children
        self.text = text
        self.escape = escape
        self.rule = str(tree.data)
        self.tokens = tokens
        self.bodies = bodies
        self.own = text[tokens[0].start_pos :]

    def _part(self, kind: Kind, nth: int = 0, name: str = "", value: str = "") -> Part:
        return Part(kind, nth, name, value, instruction=self.own)

    def _whole(self, kind: Kind, start: int, end: int, nth: int = 0) -> Spelled:
        value = self.text[start:end]
        return _plain(self._part(kind, nth, value=value), value, start)

    def all(self) -> Iterator[Spelled]:
        first = self.tokens[0]
        arguments = list(self._arguments())
        if self.rule in _PAIRS:
            for nth, item in enumerate(arguments):
                yield from _pair(item, nth, old=self.tokens[-1].type == "LEGACY")
        yield from arguments
        yield from self._heredocs()
        yield from self._flags()
        yield from self._bodies()
        given = [item for item in arguments if item.part.kind == "argument"]
        if given:
            yield self._whole("arguments", given[0].start, given[-1].end)
        yield self._whole("keyword", first.start_pos, first.end_pos)
        yield self._whole("end", len(self.text), len(self.text))

    # --- arguments

    def _arguments(self) -> Iterator[Spelled]:
        nth = 0
        for token in self.tokens[1:]:
            if not isinstance(token, str) or token.type == "FLAG":  # type: ignore[attr-defined]
                continue
            start, end = token.start_pos, token.end_pos  # type: ignore[attr-defined]
            kind = token.type  # type: ignore[attr-defined]
            if kind == "KIND":
                yield self._whole("type", start, end)
            elif kind == "JSON":
                yield from self._json(start, end)
            else:
                yield self._whole("argument", start, end, nth)
                nth += 1

    def _json(self, start: int, end: int) -> Iterator[Spelled]:
        text = self.text[start:end]
        try:
            found = list(_items(text))
        except (ValueError, RecursionError):
            if self.rule not in _LISTS:
                yield self._whole("argument", start, start + len(text.rstrip(BLANKS)))
                return
            for nth, match in enumerate(blank_words(text)):
                yield self._whole("argument", start + match.start(), start + match.end(), nth)
            return
        for nth, (value, first, last) in enumerate(found):
            yield self._item(value, start + first, start + last, nth)

    def _item(self, value: object, start: int, end: int, nth: int) -> Spelled:
        if not isinstance(value, str):
            return self._whole("argument", start, end, nth)
        marks = list(_ESCAPED.finditer(self.text, start + 1, end - 1))
        part = self._part("argument", nth, value=value)
        if len(marks) != len(value):
            return Spelled(part, value, start, end, (start,) * len(value), (end,) * len(value))
        return Spelled(part, value, start, end, [m.start() for m in marks], [m.end() for m in marks])

    # --- here-documents

    def _heredocs(self) -> Iterator[Spelled]:
        words = (match for match in word_pattern().finditer(self.text) if "<<" in match.group())
        found = (match for match in words if parse_heredoc(match.group()) is not None)
        for nth, match in enumerate(found if self.bodies else ()):
            yield self._whole("heredoc", match.start(), match.end(), nth)

    def _bodies(self) -> Iterator[Spelled]:
        lines = 0
        for nth, body in enumerate(self.bodies):
            yield from self._body(body, nth, lines)
            lines += len(body.starts) - 1

    def _body(self, body: Body, nth: int, before: int) -> Iterator[Spelled]:
        starts, text = body.starts, body.text
        places: list[int] = []
        lines = text.split("\n")
        for line, start in zip(lines, starts, strict=False):
            places += range(start, start + len(line) + 1)
        places = places[: len(text)]
        after = [place + 1 for place in places]
        end = places[-1] - text.endswith("\r\n") if places else starts[0]
        yield Spelled(self._part("body", nth, value=text), text, starts[0], end, places, after)
        for number, line in enumerate(lines[:-1]):
            shown = line.rstrip("\r")
            yield _plain(self._part("body-line", before + number, value=shown), shown, starts[number])
        name = body.heredoc.name if body.ended else ""
        yield _plain(self._part("delimiter", nth, value=name), name, starts[-1])

    # --- flags

    def _flags(self) -> Iterator[Spelled]:
        seen: dict[str, int] = {}
        for nth, token in enumerate(token for token in self.tokens[1:] if _is_flag(token)):
            word = self._unquoted(token.start_pos, token.end_pos)
            name, equals, _ = word.value[2:].partition("=")
            names = 2 + len(name)
            if equals:
                same = seen[name] = seen.get(name, -1) + 1
                given = word.piece("flag-value", names + 1, len(word.value), same, name)
                given = given._replace(start=word.ends[names], end=word.end)
                yield given
                if name == "mount":
                    yield from _fields(given, same)
            yield word.piece("flag-name", 0, names, nth, name)
            yield word._replace(part=self._part("flag", nth, name, word.value))

    def _unquoted(self, start: int, end: int) -> Spelled:
        """As ``flags.plain_word`` reads it."""
        starts: list[int] = []
        ends: list[int] = []
        quote, position = "", start
        while position < end:
            char = self.text[position]
            length = 1
            if char == self.escape:
                length = 2
            elif char == quote or (not quote and char in "\"'"):
                quote = "" if quote else char
                position += 1
                continue
            if position + length <= end:
                starts.append(position)
                ends.append(position + length)
            position += length
        value = "".join(self.text[last - 1] for last in ends)
        return Spelled(self._part("flag"), value, start, end, starts, ends)


def _is_flag(token: Any) -> bool:
    return isinstance(token, str) and token.type == "FLAG"  # type: ignore[attr-defined]


def _pair(item: Spelled, nth: int, *, old: bool) -> Iterator[Spelled]:
    """``key=value``, or the two words of an old ENV or LABEL."""
    text = item.value
    if old:
        key = text.split(None, 1)[0]
        start = len(text) - len(text[len(key) :].lstrip())
    else:
        key, _, _ = text.partition("=")
        start = len(key) + 1
    yield item.piece("key", 0, len(key), nth)
    if start <= len(text):
        yield item.piece("value", start, len(text), nth)


_OPENING = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
_BETWEEN = re.compile(r"[ \t\n\r,]*")


def _items(text: str) -> Iterator[tuple[object, int, int]]:
    """The items of a JSON array with their offsets; raises ValueError when it is none."""
    if not isinstance(json.loads(text, parse_constant=_no_constant), list):
        raise ValueError(text)
    decoder = json.JSONDecoder()
    between = _OPENING.match(text)
    while between is not None and not text.startswith("]", between.end()):
        value, end = decoder.raw_decode(text, between.end())
        yield value, between.end(), end
        between = _BETWEEN.match(text, end)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _fields(given: Spelled, nth: int) -> list[Spelled]:
    """The comma separated fields of a mount (see ``mounts.split_csv``), the last of a name first."""
    out: list[Spelled] = []
    text, position = given.value, 0
    while position <= len(text):
        quoted = text.startswith('"', position)
        match = _QUOTED.match(text, position) if quoted else None
        end = match.end() if match is not None else text.find(",", position)
        end = len(text) if end < 0 else end
        out = [*_field(given, nth, position, end, quoted=match is not None), *out]
        position = end + 1
    return out


_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_CHARACTER = re.compile(r'""|[^"]')


def _field(given: Spelled, nth: int, start: int, end: int, *, quoted: bool) -> list[Spelled]:
    marks = [(mark, mark + 1) for mark in range(start, end)]
    if quoted:
        marks = [match.span() for match in _CHARACTER.finditer(given.value, start + 1, end - 1)]
    value = "".join(given.value[mark] for mark, _ in marks)
    key, equals, _ = value.partition("=")
    name = ALIASES.get(key.lower(), key.lower())
    part = Part("field", nth, name, value, instruction=given.part.instruction)
    starts = [given.starts[mark] for mark, _ in marks]
    ends = [given.ends[after - 1] for _, after in marks]
    whole = Spelled(part, value, *given.cut(start, end), starts, ends)
    found = [whole, whole.piece("field-name", 0, len(key), nth, name)]
    if equals:
        found.insert(0, whole.piece("field-value", len(key) + 1, len(value), nth, name))
    return found
