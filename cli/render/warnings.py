"""The Dockerfile's warnings after a build (row DIA-05)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from cli.render.snippet import Place, snippet
from cli.render.text import printable


class Lines(Protocol):
    """A range of lines."""

    @property
    def filename(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


class Warned(Protocol):
    """A finding about a Dockerfile."""

    @property
    def rule(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def span(self) -> Lines: ...
    @property
    def url(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def hint(self) -> str: ...


def summary(told: object, *, expand: bool) -> str:
    """The warnings of a build's result, or of the failure that it ended with."""
    source = text_lines(getattr(told, "dockerfile", b"")) or getattr(told, "source_lines", ())
    found: Sequence[Warned] = getattr(told, "warnings", ())
    return "\n" + "\n".join(warning_lines(found, source if expand else (), expand=expand))


def warning_lines(warnings: Sequence[Warned], source: tuple[str, ...], *, expand: bool) -> Iterator[str]:
    """A summary; with ``expand`` each warning with what it is about and its lines of ``source``."""
    count = len(warnings)
    more = "" if expand else " (use --debug to expand)"
    yield f" {count} warning{'s' if count != 1 else ''} found{more}:"
    for warning in warnings:
        line = f" (line {warning.span.start})" if warning.span.start else ""
        yield f" - {printable(f'{warning.rule}: {warning.message}')}{line}"
        if warning.hint:
            yield f"   hint: {printable(warning.hint)}"
        if not expand:
            continue
        if warning.detail:
            yield f"   {printable(warning.detail)}"
        if warning.url:
            yield f"   More info: {warning.url}"
        span = warning.span
        yield from snippet(Place(str(span.filename), span.start, span.end, source))


def text_lines(data: bytes) -> tuple[str, ...]:
    """The lines of a Dockerfile, for snippets."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return tuple(line.rstrip("\r") for line in text.split("\n")) if data else ()
