"""Go templates as ``--format`` takes them (row IC-INSP-2): the reader; ``template_run`` carries them out.

Known: fields, ``index``, pipelines, variables, literals, ``if``/``else if``/``else``, ``range`` (with
``break`` and ``continue``), ``with``, comments, trim marks, and docker's functions. ``define`` and
``template`` are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from builder.errors import UsageError

TEMPLATE_STATUS = 64


class TemplateError(UsageError):
    """A template that cannot be read or carried out (exit 64)."""

    code = "template"
    exit_status = TEMPLATE_STATUS


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Any


@dataclass(frozen=True, slots=True)
class Field:
    """``.A.B`` of the dot (base None), of a variable or of a parenthesised pipeline."""

    base: Expr | None
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """``$name``; ``$`` alone is the value the template began with."""

    name: str


@dataclass(frozen=True, slots=True)
class Name:
    """A function's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands joined by ``|``; each is a function or value with its arguments."""

    commands: tuple[tuple[Expr, ...], ...]
    declares: tuple[str, ...] = ()


Expr = Literal | Field | Variable | Name | Pipe


@dataclass(frozen=True, slots=True)
class Text:
    """Text that is copied."""

    text: str


@dataclass(frozen=True, slots=True)
class Show:
    """``{{pipeline}}``: prints, or declares a variable."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Block:
    """``if``, ``range`` or ``with``, and what stands after ``else``."""

    kind: str
    pipe: Pipe
    body: tuple[Node, ...]
    other: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """``break`` or ``continue``."""

    kind: str


Node = Text | Show | Block | Jump

_ACTION = re.compile(r"\{\{(- )?((?:`[^`]*`|\"(?:\\.|[^\"\\])*\"|/\*.*?\*/|[^`\"])*?)( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)
    |(?P<char>'(?:\\.|[^'\\])')
    |(?P<number>[+-]?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?))
    |(?P<field>(?:\.[A-Za-z_][\w]*)+)
    |(?P<variable>\$\w*)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<mark>:=|[().|,=]))""",
    re.VERBOSE,
)


def parse(text: str) -> tuple[Node, ...]:
    """Read a template; raises TemplateError."""
    reader = _Reader(_split(text))
    nodes, stop = reader.nodes()
    if stop:
        raise TemplateError(f"Template parsing error: unexpected {{{{{stop}}}}}")
    return nodes


def _split(text: str) -> list[tuple[bool, str]]:
    """Pieces of text and (True) actions, trimmed as the marks say."""
    pieces: list[tuple[bool, str]] = []
    at, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        if "{{" in before:
            break
        before = before.lstrip() if trim else before
        pieces.append((False, before.rstrip() if match[1] else before))
        pieces.append((True, match[2].strip()))
        at, trim = match.end(), bool(match[3])
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError("Template parsing error: unclosed action", hint=f"in {rest[:60]!r}")
    pieces.append((False, rest.lstrip() if trim else rest))
    return pieces


class _Reader:
    def __init__(self, pieces: list[tuple[bool, str]]) -> None:
        self._pieces = pieces
        self._at = 0

    def nodes(self) -> tuple[tuple[Node, ...], str]:
        """Nodes up to an ``end`` or ``else`` (returned), or to the end of the text (empty)."""
        out: list[Node] = []
        while self._at < len(self._pieces):
            is_action, text = self._pieces[self._at]
            self._at += 1
            if not is_action:
                if text:
                    out.append(Text(text))
                continue
            if text.startswith("/*"):
                continue
            word, _, rest = text.partition(" ")
            if word in ("end", "else"):
                return tuple(out), text
            out.append(self._node(word, rest, text))
        return tuple(out), ""

    def _node(self, word: str, rest: str, text: str) -> Node:
        if word in ("if", "range", "with"):
            return self._block(word, rest)
        if word in ("break", "continue"):
            return Jump(word)
        if word in ("define", "template", "block"):
            raise TemplateError(f"Template parsing error: {word} is not supported")
        return Show(parse_pipe(text))

    def _block(self, kind: str, rest: str) -> Block:
        pipe = parse_pipe(rest)
        body, stop = self.nodes()
        other: tuple[Node, ...] = ()
        if stop.startswith("else"):
            condition = stop[4:].strip()
            if condition:
                word, _, tail = condition.partition(" ")
                if word not in ("if", "with"):
                    raise TemplateError(f"Template parsing error: unexpected {condition!r} after else")
                return Block(kind, pipe, body, (self._block(word, tail),))
            other, stop = self.nodes()
        if stop != "end":
            raise TemplateError(f"Template parsing error: {kind} without end")
        return Block(kind, pipe, body, other)


def parse_pipe(text: str) -> Pipe:
    """Read the inside of an action."""
    tokens: list[tuple[str, str, bool]] = []
    at = 0
    while at < len(text) and text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise TemplateError(f"Template parsing error: unexpected {text[at:].strip()[:20]!r} in {text!r}")
        kind = str(match.lastgroup)
        glued = match.start(kind) == at and at > 0
        tokens.append((kind, match[kind], glued))
        at = match.end()
    parser = _PipeParser(tokens, text)
    pipe = parser.pipe()
    parser.expect_end()
    return pipe


class _PipeParser:
    def __init__(self, tokens: list[tuple[str, str, bool]], text: str) -> None:
        self._tokens = tokens
        self._text = text
        self._at = 0

    def _peek(self, offset: int = 0) -> tuple[str, str, bool]:
        at = self._at + offset
        return self._tokens[at] if at < len(self._tokens) else ("", "", False)

    def _fail(self) -> TemplateError:
        found = self._peek()[1] or "end of action"
        return TemplateError(f"Template parsing error: unexpected {found!r} in {self._text!r}")

    def expect_end(self) -> None:
        if self._at < len(self._tokens):
            raise self._fail()

    def pipe(self) -> Pipe:
        declares = self._declarations()
        commands = [self._command()]
        while self._peek()[1] == "|" and self._peek()[0] == "mark":
            self._at += 1
            commands.append(self._command())
        return Pipe(tuple(commands), declares)

    def _declarations(self) -> tuple[str, ...]:
        names: list[str] = []
        at = self._at
        while self._peek()[0] == "variable":
            names.append(self._peek()[1])
            self._at += 1
            if self._peek()[1] in (":=", "="):
                self._at += 1
                return tuple(names)
            if self._peek()[1] != ",":
                break
            self._at += 1
        self._at = at
        return ()

    def _command(self) -> tuple[Expr, ...]:
        operands: list[Expr] = []
        while self._at < len(self._tokens) and self._peek()[1] not in ("|", ")"):
            operands.append(self._operand())
        if not operands:
            raise self._fail()
        return tuple(operands)

    def _operand(self) -> Expr:
        kind, text, _ = self._peek()
        self._at += 1
        expr: Expr
        if kind == "string":
            return Literal(_unquote(text))
        if kind == "char":
            return Literal(ord(_unquote(f'"{text[1:-1]}"')))
        if kind == "number":
            return Literal(float(text) if "." in text else int(text, 0))
        if kind == "name":
            known = {"true": True, "false": False, "nil": None}
            return Literal(known[text]) if text in known else Name(text)
        if kind == "field":
            return Field(None, tuple(text[1:].split(".")))
        if kind == "variable":
            expr = Variable(text)
        elif text == "(":
            expr = self.pipe()
            if self._peek()[1] != ")":
                raise self._fail()
            self._at += 1
        elif text == ".":
            return Field(None, ())
        else:
            self._at -= 1
            raise self._fail()
        kind, text, glued = self._peek()
        if kind == "field" and glued:
            self._at += 1
            return Field(expr, tuple(text[1:].split(".")))
        return expr


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b"}


def _unquote(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]

    def replace(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "xuU":
            return chr(int(code[1:], 16))
        return _ESCAPES.get(code, code)

    return re.sub(
        r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", replace, text[1:-1], flags=re.DOTALL
    )
