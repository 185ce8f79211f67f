"""Dockerfile text → nodes → ``Dockerfile``; the door to lark.

lark is imported only when a text really has to be parsed: ``Dockerfile.from_nodes`` works without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from builder.frontend.decode import decode
from builder.frontend.errors import (
    DockerfileError,
    EmptyDockerfile,
    SyntaxProblem,
    UnknownInstruction,
    suggestion,
)
from builder.frontend.instructions import INSTRUCTION_NAMES, Instruction
from builder.frontend.lines import BLANKS, LogicalLine, Scan, blank_words, scan, word_at
from builder.frontend.nodes import Node, Nodes
from builder.frontend.parts import END, Part, argument
from builder.frontend.source import SourceFile, Span
from builder.frontend.syntax import check_syntax

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

    from builder.frontend.positions import Place, Range

__all__ = ["Dockerfile", "Node", "Nodes", "parse", "parse_instruction", "parse_nodes"]


NodesOf = Callable[[str, str], Nodes]
"""The shape of one instruction's text with an escape character, parsed or remembered."""

EMPTY_CONTINUATION = "Empty continuation lines will become errors in a future release"


class ParseWarning(NamedTuple):
    """Something odd in the text itself, and the last line it is about."""

    short: str
    detail: str
    line: int


class Dockerfile:
    """A parsed file: its instructions in order, its escape character and directives, and its text."""

    __slots__ = ("instructions", "nodes", "source")

    def __init__(self, source: SourceFile, nodes: Nodes, instructions: tuple[Instruction, ...]) -> None:
        self.source = source
        self.nodes = nodes
        self.instructions = instructions

    @classmethod
    def from_nodes(cls, nodes: Nodes, data: bytes, filename: str = "Dockerfile") -> Dockerfile:
        """Check and type the instructions of ``nodes``; raises DockerfileError."""
        source = SourceFile(filename, data)
        try:
            return cls(source, nodes, tuple(decode(node, nodes.escape, filename) for node in nodes.items))
        except DockerfileError as error:
            error.source = error.source or source
            raise

    @property
    def escape(self) -> str:
        """The escape character in force."""
        return self.nodes.escape

    def directive(self, name: str) -> str | None:
        """The value of a parser directive: ``syntax``, ``escape`` or ``check``."""
        return self.nodes.directive(name)

    def place(self, instruction: Instruction, part: Part) -> Range | None:
        """Where a part of an instruction stands, to line and column; None when it has no such part."""
        from builder.frontend.positions import range_of  # for tools only

        return range_of(self.source, instruction.at.span, part.of(instruction.at.text))

    def parts(self, instruction: Instruction) -> tuple[Place, ...]:
        """Every part of an instruction and where it stands."""
        from builder.frontend.positions import parts_of

        return parts_of(self.source, instruction.at.span, instruction.at.text)

    @property
    def warnings(self) -> tuple[ParseWarning, ...]:
        """What the reading found odd: blank lines inside continued ones (LEX-06)."""
        return tuple(
            ParseWarning(f"Empty continuation line found in: {node.text}", EMPTY_CONTINUATION, line)
            for line in self.nodes.empty_continuations
            for node in self.nodes.items
            if node.first <= line <= node.last
        )


def parse(data: bytes, filename: str = "Dockerfile") -> Dockerfile:
    """Read a Dockerfile; raises DockerfileError with the lines it means."""
    return Dockerfile.from_nodes(parse_nodes(data, filename), data, filename)


def parse_nodes(data: bytes, filename: str = "Dockerfile") -> Nodes:
    """The shapes only; ``Nodes.to_bytes`` may be kept under the digest of ``data``."""
    source = SourceFile(filename, data)
    try:
        found = scan(source)
        for line in found.lines:
            _check_name(source, line)
        return Nodes(_parse_lines(source, found), found.directives, found.empty_continuations)
    except SyntaxProblem:
        check_syntax(source)  # a file for another frontend need not be a Dockerfile
        raise


def parse_instruction(
    text: str, escape: str, filename: str, first: int, last: int, nodes: NodesOf | None = None
) -> Instruction:
    """One instruction alone, for ONBUILD triggers and ``--change``; errors point at the given lines.

    ``nodes`` may know the shape of the text from before.
    """
    try:
        found = (nodes or parse_line)(text, escape)
        return decode(found.items[0]._replace(first=first, last=last), escape, filename)
    except DockerfileError as error:
        error.source = None
        error.spans = (Span(filename=filename, start=first, end=last),)
        error.part = argument(0)  # of the FROM whose base says so
        raise


def parse_line(text: str, escape: str) -> Nodes:
    """The shape of one instruction alone; ``Nodes.to_bytes`` may be kept by its text."""
    source = SourceFile("", text.encode("utf-8", "surrogateescape"))
    problem = SyntaxProblem("onbuild trigger should be a single expression")
    try:
        found = scan(source)
    except EmptyDockerfile as error:
        raise problem from error
    if len(found.lines) != 1:
        raise problem
    _check_name(source, found.lines[0])
    return Nodes(_parse_lines(source, found._replace(directives=(("escape", escape, 0),))))


def _check_name(source: SourceFile, line: LogicalLine) -> None:
    word = line.text.translate(_BLANK_TO_SPACE).partition(" ")[0]
    if word.lower() not in INSTRUCTION_NAMES:
        raise _unknown(source, word, line, Part("word"))


def _unknown(source: SourceFile, word: str, line: LogicalLine, part: Part) -> UnknownInstruction:
    meant = suggestion(word, (name.upper() for name in INSTRUCTION_NAMES))
    return UnknownInstruction(
        f"dockerfile parse error on line {line.first}: unknown instruction: {word[:80]}{meant}",
        spans=(source.span(line.first, line.last),),
        source=source,
        part=part,
        hint=_unseen(word),
    )


def _unseen(word: str) -> str | None:
    """A hint about a character that looks like a blank or like nothing, as copied from a web page."""
    for char in word:
        if (
            not char.isascii()
            and (char.isspace() or not char.isprintable())
            and not "\ud800" <= char <= "\udfff"
        ):
            from unicodedata import name

            return f"the word holds U+{ord(char):04X} ({name(char, 'unnamed')}): type it again"
    return None


@cache
def grammar() -> Lark:
    """The language of one logical line after another, with ``\\`` as escape character."""
    from pathlib import Path

    from lark import Lark  # slow to import: only when a text must be parsed

    text = Path(__file__).with_name("dockerfile.lark").read_text(encoding="ascii")
    return Lark(text, parser="lalr", lexer="contextual", maybe_placeholders=False)


SWAP = {ord("`"): "\\", ord("\\"): "`"}
"""Exchanges the two escape characters."""


def _parse_lines(source: SourceFile, found: Scan) -> tuple[Node, ...]:
    from lark.exceptions import UnexpectedInput

    swap = found.escape == "`"
    text = "".join([line.text + "\n" for line in found.lines])
    try:
        tree = grammar().parse(text.translate(SWAP) if swap else text)
    except UnexpectedInput as error:
        line = found.lines[min(max(error.line, 1), len(found.lines)) - 1]
        raise _translate(source, line) from error
    children: list[Any] = tree.children
    nodes: list[Node] = []
    for child, line in zip(children, found.lines, strict=True):
        try:
            nodes.append(_node(child, line, line.text, swap))
        except SyntaxProblem as problem:
            problem.source, problem.spans = source, (source.span(line.first, line.last),)
            raise
    return tuple(nodes)


def _translate(source: SourceFile, line: LogicalLine) -> SyntaxProblem:
    """The grammar takes any arguments, so only a trigger's instruction can be missing or unknown."""
    for match in blank_words(line.text):
        word = match.group()
        if not word.startswith("--") and word.lower() != "onbuild":
            return _unknown(source, word, line, word_at(line.text, match.start(), len(word)))
    message = f"dockerfile parse error on line {line.first}: ONBUILD requires at least one argument"
    return SyntaxProblem(message, spans=(source.span(line.first, line.last),), source=source, part=END)


def _node(tree: Tree[Token], line: LogicalLine, text: str, swap: bool) -> Node:
    """One grammar tree as a node; ``text`` is the instruction as typed, without what is around it."""
    flags: list[str] = []
    args: list[str] = []
    form, kind, child = "", "", None
    tokens: list[Any] = tree.children
    typed = str(tokens[0])
    for token in tokens[1:]:
        if not isinstance(token, str):
            offset = token.children[0].start_pos - tokens[0].start_pos
            child = _node(token, line, text[offset:], swap)
            continue
        value = token.translate(SWAP) if swap else str(token)
        terminal: str = token.type  # type: ignore[attr-defined]
        match terminal:
            case "FLAG":
                flags.append(value)
            case "KIND":
                kind = value
            case "JSON":
                form, args = _json_or(value.rstrip(BLANKS), tree.data, line)
            case "TEXT":
                form, args = "text", [value]
            case "LEGACY":
                form, args = "legacy", [value]
            case "WORD":
                form = "words"
                args.append(value)
            case _:
                form = "list"
                args.append(value)
    return Node(
        str(tree.data),
        typed,
        text,
        line.first,
        line.last,
        tuple(flags),
        form,
        tuple(args),
        kind,
        line.comments,
        line.heredocs,
        child,
    )


def _json_or(text: str, rule: str, line: LogicalLine) -> tuple[str, list[str]]:
    """A JSON array of strings, or else what the text means without brackets (SYN-04)."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return "json", [_plain(item) for item in value]
        raise SyntaxProblem(
            f"dockerfile parse error on line {line.first}: "
            "when using JSON array syntax, arrays must be comprised of strings only",
            part=argument(next(index for index, item in enumerate(value) if not isinstance(item, str))),
        )
    if rule in ("add", "copy", "volume"):
        return "list", [word for word in text.translate(_BLANK_TO_SPACE).split(" ") if word]
    return "text", [text]


def _no_constant(name: str) -> None:
    """``NaN`` and ``Infinity``, which Python's reader takes, are no JSON."""
    raise ValueError(name)


_BLANK_TO_SPACE = dict.fromkeys(map(ord, BLANKS), " ")


def _plain(text: str) -> str:
    """Text with lone surrogates from ``\\uD800`` escapes replaced; those of undecodable bytes stay."""
    if text.isascii():
        return text
    return "".join(
        "\ufffd" if "\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" else c for c in text
    )
