"""Where a piece of a Dockerfile came from; every later error and warning points here."""

from __future__ import annotations

from builder.llb.definition import SourceRange

__all__ = ["SourceFile", "Span"]

Span = SourceRange
"""Lines of a source file, 1-based and inclusive: ``filename``, ``start``, ``end``."""

BOM = b"\xef\xbb\xbf"


class SourceFile:
    """A text file as given: its name and its bytes. ``lines`` are decoded on first use, without endings."""

    __slots__ = ("_lines", "data", "filename")

    def __init__(self, filename: str, data: bytes) -> None:
        self.filename = filename
        self.data = data
        self._lines: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """The whole text without byte order mark; bytes that are not UTF-8 travel as surrogate escapes."""
        return self.data.removeprefix(BOM).decode("utf-8", "surrogateescape")

    @property
    def lines(self) -> tuple[str, ...]:
        """The text's lines, for snippets (DIA-02)."""
        if self._lines is None:
            self._lines = tuple(line.rstrip("\r") for line in self.text.split("\n"))
        return self._lines

    def span(self, start: int, end: int) -> Span:
        """A range of this file's lines."""
        return Span(filename=self.filename, start=start, end=end)
