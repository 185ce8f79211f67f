"""The lines of a Dockerfile around a failure (rows DIA-02, DIA-04)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from builder.errors import SolveError
from cli.render.text import printable

_RULE = "-" * 20


class Place(NamedTuple):
    """A range of lines in a file, 1-based and inclusive, with the whole file's lines."""

    filename: str
    first: int
    last: int
    lines: tuple[str, ...]


def snippet(place: Place) -> Iterator[str]:
    """The marked lines with a little around them; nothing when the text is not known."""
    if not place.lines or place.first < 1:
        return
    first, last = place.first, min(max(place.last, place.first), len(place.lines))
    around = 2 if first == last else 1
    yield f"{printable(place.filename)}:{first}"
    yield _RULE
    for number in range(max(1, first - around), min(len(place.lines), last + around) + 1):
        mark = ">>>" if first <= number <= last else "   "
        text = printable(place.lines[number - 1], keep="\t")
        yield f" {number:3d} | {mark} {text}".rstrip()
    yield _RULE


def places_of(error: BaseException) -> list[Place]:
    """The places that ``error`` and what caused it point at, each once."""
    places: list[Place] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        lines = _lines_of(link)
        for span in _spans_of(link):
            place = Place(str(span[0]), span[1], span[2], lines)
            if all((place.filename, place.first) != (known.filename, known.first) for known in places):
                places.append(place)
        link = link.__cause__
    return places


def _lines_of(error: BaseException) -> tuple[str, ...]:
    return tuple(getattr(error, "source_lines", ()))


def _spans_of(error: BaseException) -> list[tuple[str, int, int]]:
    """Where an error points, whatever its class: filename, first and last line of each place."""
    if isinstance(error, SolveError) and error.first_line:
        return [(error.filename, error.first_line, error.last_line)]
    spans = getattr(error, "spans", None) or [getattr(error, "span", None)]
    out = [(str(span.filename), int(span.start), int(span.end)) for span in spans if span is not None]
    return list(dict.fromkeys(out))
