"""The Dockerfile's warnings after a build (row DIA-05)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cli.render.snippet import Place, snippet
from cli.render.text import printable


def warning_lines(warnings: Sequence[Any], *, debug: bool) -> Iterator[str]:
    """A summary; with ``debug`` each warning with its lines. Warnings have ``rule``, ``message`` and
    ``span``.
    """
    count = len(warnings)
    yield ""
    more = "" if debug else " (use --debug to expand)"
    yield f" {count} warning{'s' if count != 1 else ''} found{more}:"
    for warning in warnings:
        span = getattr(warning, "span", None)
        where = f" (line {span.start})" if span is not None else ""
        rule = getattr(warning, "rule", "") or getattr(warning, "name", "")
        message = getattr(warning, "message", "") or getattr(warning, "detail", "") or str(warning)
        yield f" - {rule}: {printable(message)}{where}" if rule else f" - {printable(message)}{where}"
        if debug and span is not None:
            lines = tuple(getattr(warning, "source_lines", ()))
            yield from snippet(Place(str(span.filename), span.start, span.end, lines))
