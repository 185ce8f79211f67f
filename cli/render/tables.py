"""Tables as docker prints them: every cell at least 20 wide, three spaces between (row CLI-08)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cli.render.text import printable
from cli.render.width import display_width

_LEAST, _PADDING = 20, 3


def table(rows: Iterable[Sequence[str]], *, least: int = _LEAST) -> str:
    """The rows, the first being the head, each line ended; the last column is not padded."""
    cells = [[printable(cell, keep="").replace("\n", " ") for cell in row] for row in rows]
    if not cells:
        return ""
    columns = max(map(len, cells))
    widths = [
        max([least, *(display_width(row[i]) + _PADDING for row in cells if i < len(row))])
        for i in range(columns)
    ]
    return "".join(_line(row, widths) for row in cells)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell + " " * (width - display_width(cell)) for cell, width in zip(row[:-1], widths, strict=False)
    ]
    return "".join([*padded, row[-1] if row else ""]).rstrip() + "\n"
