"""No progress; when a step fails, its last output is shown after all (row BLD-07)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from builder.solver.progress import Event, LogEvent, VertexEvent
from cli.render.board import Board
from cli.render.plain import failure_tail

_LINES = 50


class QuietRenderer:
    """Keeps the tails of steps and prints those of failed ones at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._board = Board()

    def show(self, events: Iterable[Event], _now_ns: int) -> None:
        """Note ``events``; nothing is printed."""
        for event in events:
            entry = self._board.entry(event)
            if isinstance(event, VertexEvent):
                entry.take(event)
                if entry.ended:
                    entry.flush_log()
            elif isinstance(event, LogEvent):
                entry.add_log(event)

    def finish(self, _now_ns: int) -> None:
        """Print the output of the steps that failed."""
        for entry in self._board.entries.values():
            if entry.error and not entry.cancelled and entry.log:
                self._stream.write("\n".join(failure_tail(entry, _LINES)) + "\n")
        self._stream.flush()
