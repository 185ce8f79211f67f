"""Bytes → logical lines: parser directives, comments, continuations and the bodies of here-documents.

Rows LEX-01…11, DIR-01…04 and HDC-01…04. After this room one line is one instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from builder.frontend.errors import EmptyDockerfile, SyntaxProblem
from builder.frontend.parts import Part, directive
from builder.frontend.source import SourceFile, Span

BLANKS = " \t\v\f\r"
DIRECTIVES = ("syntax", "escape", "check")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class Heredoc(NamedTuple):
    """A here-document. ``word`` is the redirection as typed; ``content`` is whole lines, tabs included."""

    name: str
    word: str
    content: str
    expand: bool = True
    strip_tabs: bool = False

    @property
    def body(self) -> str:
        """The content as a command sees it: ``<<-`` strips leading tabs (HDC-03)."""
        if not self.strip_tabs:
            return self.content
        return "\n".join(line.lstrip("\t") for line in self.content.split("\n"))

    def ends_with(self, line: str) -> bool:
        """Whether a line of the file, without its ending, is the one after the content."""
        return (line.lstrip("\t") if self.strip_tabs else line) == self.name


class LogicalLine(NamedTuple):
    """One instruction's text with its physical lines, the comment block above it and its here-documents."""

    text: str
    first: int
    last: int
    comments: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


class Scan(NamedTuple):
    """A whole file. ``empty_continuations`` are line numbers (LEX-06)."""

    lines: tuple[LogicalLine, ...]
    directives: tuple[tuple[str, str, int], ...]
    empty_continuations: tuple[int, ...] = ()

    def directive(self, name: str) -> str | None:
        """The value of a parser directive."""
        return next((value for key, value, _ in self.directives if key == name), None)

    @property
    def escape(self) -> str:
        """The escape character in force."""
        return self.directive("escape") or "\\"


def scan(source: SourceFile) -> Scan:
    """Cut a file into logical lines; raises SyntaxProblem and EmptyDockerfile."""
    if not source.data:
        raise EmptyDockerfile("the Dockerfile cannot be empty", source=source)
    raw = source.text.split("\n")
    if raw and raw[-1] == "":
        raw.pop()
    directives = read_directives(source, raw)
    found = _Scanner(source, raw, directives)
    found.run()
    if not found.lines:
        raise EmptyDockerfile("file with no instructions", source=source)
    return Scan(tuple(found.lines), directives, tuple(found.empty_continuations))


@cache
def _directive_pattern() -> re.Pattern[str]:
    return re.compile(r"#[ \t]*([a-zA-Z][a-zA-Z0-9]*)[ \t]*=[ \t]*(.+?)\s*\Z")


def read_directives(source: SourceFile, raw: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    """Name, value and line of each parser directive in the lines ``raw``; raises SyntaxProblem."""
    found: list[tuple[str, str, int]] = []
    for number, line in enumerate(raw, 1):
        match = _directive_pattern().match(line.lstrip(BLANKS))
        name = match.group(1).lower() if match else ""
        if match is None or name not in DIRECTIVES:
            break
        span = source.span(number, number)
        if any(name == known for known, _, _ in found):
            raise SyntaxProblem(
                f"only one {name} parser directive can be used",
                spans=(span,),
                source=source,
                part=Part("directive-name", name=name),
            )
        value = match.group(2)
        if name == "escape" and value not in ("\\", "`"):
            raise SyntaxProblem(
                f"invalid escape token '{value}' does not match ` or \\",
                spans=(span,),
                source=source,
                part=directive(value),
            )
        found.append((name, value, number))
    return tuple(found)


def continued(line: str, escape: str) -> tuple[str, bool]:
    """LEX-04: one escape character before nothing but blanks continues, two do not."""
    trimmed = line.rstrip(" \t")
    if not trimmed.endswith(escape) or trimmed.endswith(escape + escape):
        return line, False
    return trimmed[:-1], True


def word_at(text: str, offset: int, length: int) -> Part:
    """A piece of an instruction that may not have been understood: by its word, blanks between."""
    index = 0
    for index, match in enumerate(blank_words(text)):
        if match.start() <= offset < match.end():
            start = offset - match.start()
            return Part("word", index, start=start, end=start + length)
    return Part("word", index)


def blank_words(text: str) -> Iterator[re.Match[str]]:
    """The words of a text with blanks between them, quotes or not."""
    return re.finditer(rf"[^{BLANKS}]+", text)


class _Scanner:
    """Walks the physical lines once."""

    def __init__(
        self, source: SourceFile, raw: list[str], directives: tuple[tuple[str, str, int], ...]
    ) -> None:
        self.source = source
        self.raw = raw
        self.next = len(directives)
        self.escape = next((value for name, value, _ in directives if name == "escape"), "\\")
        self.lines: list[LogicalLine] = []
        self.empty_continuations: list[int] = []
        self.comments: list[str] = []

    def run(self) -> None:
        raw, total = self.raw, len(self.raw)
        while self.next < total:
            number = self.next
            self.next += 1
            line = raw[number].lstrip(BLANKS)
            if not line:
                continue
            if line[0] == "#":
                self._comment(line)
                continue
            self._instruction(number, line.rstrip("\r"))

    def _comment(self, line: str) -> None:
        text = line[1:].strip()
        if text:
            self.comments.append(text)
        else:
            self.comments.clear()

    def _instruction(self, number: int, line: str) -> None:
        text, continues = continued(line, self.escape)
        if continues:
            text = self._join(text)
        text = text.strip()
        if not text:
            return
        comments, self.comments = tuple(self.comments), []
        if "\0" in text:
            span = self.source.span(number + 1, self.next)
            raise SyntaxProblem(
                "a Dockerfile cannot hold NUL bytes",
                spans=(span,),
                source=self.source,
                part=word_at(text, text.index("\0"), 1),
                hint="the file is UTF-16: save it as UTF-8" if self.source.data[:2] in _UTF_16 else None,
            )
        heredocs = self._heredocs(text, number + 1) if "<<" in text else ()
        self.lines.append(LogicalLine(text, number + 1, self.next, comments, heredocs))

    def _join(self, start: str) -> str:
        parts = [start]
        raw, total = self.raw, len(self.raw)
        skipped_blank = False
        while self.next < total:
            line = raw[self.next].rstrip("\r")
            self.next += 1
            stripped = line.lstrip(BLANKS)
            if not stripped:
                skipped_blank = True
                continue
            if stripped[0] == "#":
                continue
            text, continues = continued(line, self.escape)
            parts.append(text)
            if not continues:
                break
        if skipped_blank:
            self.empty_continuations.append(self.next)
        return "".join(parts)

    def _heredocs(self, text: str, first: int) -> tuple[Heredoc, ...]:
        span = self.source.span(first, self.next)
        wanted = heredoc_words(text)
        return tuple(self._heredoc_body(heredoc, span, index) for index, heredoc in enumerate(wanted))

    def _heredoc_body(self, heredoc: Heredoc, span: Span, index: int) -> Heredoc:
        start = self.next
        while self.next < len(self.raw):
            line = self.raw[self.next]
            self.next += 1
            end = line.rstrip("\r")
            if heredoc.ends_with(end):
                content = "".join(part + "\n" for part in self.raw[start : self.next - 1])
                return heredoc._replace(content=content)
        unclosed = heredoc.name[0] in "\"'" and "\\" not in heredoc.word
        raise SyntaxProblem(
            f"dockerfile parse error on line {span.start}: unterminated heredoc",
            spans=(span,),
            source=self.source,
            part=Part("heredoc", index),
            hint=f"the quote in <<{heredoc.name[:80]} is not closed"
            if unclosed
            else f"no line says {heredoc.name!r} alone",
        )


HEREDOC_INSTRUCTIONS = frozenset({"run", "copy", "add"})


def heredoc_words(text: str) -> tuple[Heredoc, ...]:
    """The here-documents that an instruction's text introduces, still without bodies (HDC-01, -10, -11)."""
    words = text.split(None, 2)
    keyword = words[0].lower()
    if keyword == "onbuild" and len(words) > 1:
        keyword = words[1].lower()
    if keyword not in HEREDOC_INSTRUCTIONS:
        return ()
    found = (parse_heredoc(word) for word in shell_words(text) if "<<" in word)
    return tuple(heredoc for heredoc in found if heredoc is not None)


def shell_words(text: str) -> list[str]:
    """Words as a shell cuts them, quotes and escapes kept; the escape is always a backslash (DIR-04)."""
    return word_pattern().findall(text)


@cache
def word_pattern() -> re.Pattern[str]:
    """What ``shell_words`` finds."""
    return re.compile(r"""(?:[^\s"'\\]++|\\.?|"(?:[^"\\]++|\\.?)*+"?+|'[^']*+'?+)++""", re.DOTALL)


@cache
def _heredoc_pattern() -> re.Pattern[str]:
    return re.compile(r"[0-9]*<<(-?)([^<]+)\Z", re.DOTALL)


def parse_heredoc(word: str) -> Heredoc | None:
    """One shell word as a here-document redirection, or None."""
    match = _heredoc_pattern().match(word)
    if match is None or len(shell_words(match.group(2))) != 1:
        return None
    quoted = match.group(2)
    name = _unquote(quoted)
    if not name:
        return None
    return Heredoc(name, word, "", expand=name == quoted, strip_tabs=bool(match.group(1)))


def _unquote(word: str) -> str:
    return re.sub(
        r"""\\(.)|"((?:[^"\\]|\\.)*)"|'([^']*)'""",
        lambda m: m.group(1) or m.group(2) or m.group(3) or "",
        word,
        flags=re.DOTALL,
    )
