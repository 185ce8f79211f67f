"""The live display on a terminal (rows PRG-06, PRG-07, PRG-10).

Each frame is a list of lines no wider than the terminal and no more than it has rows; only lines that
changed are written, in one write, so that nothing flickers. Text that comes from a build is stripped of
control sequences: it must not move the cursor of the display.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TextIO

from builder.solver.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent
from cli.render.board import Board, Entry
from cli.render.plain import failure_tail, status_line, wants_tail
from cli.render.text import printable
from cli.render.width import cut, display_width

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_RESET = "\x1b[0m"
_LOG_STYLE = "log"
_NAMES = {
    "black": 30,
    "red": 31,
    "green": 32,
    "yellow": 33,
    "blue": 34,
    "magenta": 35,
    "cyan": 36,
    "white": 37,
    "light-black": 90,
    "light-red": 91,
    "light-green": 92,
    "light-yellow": 93,
    "light-blue": 94,
    "light-magenta": 95,
    "light-cyan": 96,
    "light-white": 97,
}
_DEFAULTS = {"run": "34", "cancel": "33", "warning": "33", "error": "31", _LOG_STYLE: "2"}


def palette(text: str) -> dict[str, str]:
    """Colours from BUILDKIT_COLORS (``run=green:error=255,0,0``) over the defaults; what is not understood is
    left out."""
    colors = dict(_DEFAULTS)
    for item in text.split(":"):
        key, _, value = item.partition("=")
        parts = value.split(",")
        if value.lower() in _NAMES:
            colors[key] = str(_NAMES[value.lower()])
        elif len(parts) == 3 and all(part.isdigit() and int(part) < 256 for part in parts):
            colors[key] = "38;2;" + ";".join(parts)
    return colors


class Row(NamedTuple):
    """One line of the display: what it says, what stands at the right edge, and how it is coloured."""

    text: str
    right: str = ""
    style: str = ""


class TtyRenderer:
    """Draws the state of a build again and again on the same lines of a terminal."""

    def __init__(
        self,
        stream: TextIO,
        *,
        colors: Mapping[str, str],
        log_lines: int = 6,
        truncate: bool = True,
        size: os.terminal_size | None = None,
        title: str = "Building",
    ) -> None:
        self._stream = stream
        self._colors = colors
        self._log_lines = log_lines
        self._truncate = truncate
        self._fixed_size = size
        self._title = title
        self._board = Board()
        self._begun_ns: int | None = None
        self._drawn: list[str] = []
        self._drawn_widths: list[int] = []
        self._width = 0

    def show(self, events: Iterable[Event], now_ns: int) -> None:
        """Take events and draw."""
        for event in events:
            self._take(event)
        if self._begun_ns is None:
            self._begun_ns = now_ns
        width, height = self._size()
        rows = [Row(self._header(now_ns)), *fit(self._groups(now_ns), max(1, height - 2))]
        self._draw([self._render(row, width) for row in rows], [self._columns(row) for row in rows], width)

    def finish(self, now_ns: int) -> None:
        """Draw everything once more, however long."""
        if self._begun_ns is None:
            return
        width, _ = self._size()
        rows = [Row(self._header(now_ns, finished=True))]
        rows += [row for group in self._groups(now_ns, finished=True) for row in group]
        self._draw([self._render(row, width) for row in rows], [self._columns(row) for row in rows], width)
        tail: list[str] = []
        for entry in self._board.entries.values():
            if wants_tail(entry):
                tail += failure_tail(entry, len(entry.log))
        text = "".join(f"{line}\n" for line in tail)
        self._stream.write(text)
        self._stream.flush()
        self._drawn, self._begun_ns = [], None

    def _take(self, event: Event) -> None:
        if isinstance(event, WarningEvent) and not event.vertex:
            return  # about the Dockerfile as a whole: told after the build
        entry = self._board.entry(event)
        match event:
            case VertexEvent():
                entry.take(event)
                if entry.ended:
                    entry.flush_log()
            case LogEvent():
                entry.add_log(event)
            case StatusEvent():
                entry.statuses[event.id] = event
            case WarningEvent():
                entry.warnings.append(event)

    def _size(self) -> tuple[int, int]:
        if self._fixed_size is not None:
            return self._fixed_size.columns, self._fixed_size.lines
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return size.columns or 80, size.lines or 24

    def _header(self, now_ns: int, *, finished: bool = False) -> str:
        begun = [entry for entry in self._board.entries.values() if entry.started_ns is not None]
        done = sum(entry.ended for entry in begun)
        seconds = max(0, now_ns - (self._begun_ns or now_ns)) / 1e9
        if begun:
            seconds = max(seconds, (now_ns - min(entry.started_ns or now_ns for entry in begun)) / 1e9)
        tail = " FINISHED" if finished else ""
        return f"[+] {self._title} {seconds:.1f}s ({done}/{len(begun)}){tail}"

    def _groups(self, now_ns: int, *, finished: bool = False) -> list[list[Row]]:
        begun = [entry for entry in self._board.entries.values() if entry.started_ns is not None]
        return [self._entry_rows(entry, now_ns, finished=finished) for entry in begun]

    def _entry_rows(self, entry: Entry, now_ns: int, *, finished: bool) -> list[Row]:
        prefix, style = _state(entry)
        seconds = f"{entry.seconds(now_ns):.1f}s"
        rows = [Row(f" => {prefix}{_clean(entry.name)}", seconds, style)]
        for status in entry.statuses.values():
            rows.append(_status_row(status, now_ns, style))
        rows += [Row(f" => => WARN: {_clean(warning.short)}", "", "warning") for warning in entry.warnings]
        if entry.running and not finished and self._log_lines:
            rows += [
                Row(f" => => # {_clean(line)}", "", _LOG_STYLE) for line in entry.log[-self._log_lines :]
            ]
        return rows

    def _columns(self, row: Row) -> int:
        return display_width(row.text) + len(row.right) + 1

    def _render(self, row: Row, width: int) -> str:
        text, room = row.text, width - 1 - (len(row.right) + 1 if row.right else 0)
        if self._truncate:
            text = cut(text, room)
        pad = " " * max(0, room - display_width(text)) if row.right else ""
        line = f"{text}{pad} {row.right}" if row.right else text
        color = self._colors.get(row.style)
        return f"\x1b[{color}m{line}{_RESET}" if color else line

    def _draw(self, lines: list[str], widths: list[int], width: int) -> None:
        changed = width != self._width
        rows_up = sum(
            1 if self._truncate and not changed else -(-w // width) or 1 for w in self._drawn_widths
        )
        # Shown again after each picture: whatever ends or stops us leaves a terminal with its cursor.
        out = [_HIDE_CURSOR, f"\x1b[{rows_up}A\r" if rows_up else "\r"]
        whole = changed or not self._truncate
        if whole:
            out.append("\x1b[J")
        for index, line in enumerate(lines):
            same = not whole and index < len(self._drawn) and self._drawn[index] == line
            out.append("\n" if same else f"\x1b[2K{line}\n")
        if len(self._drawn) > len(lines):
            out.append("\x1b[J")
        if lines != self._drawn or whole:
            self._stream.write("".join(out) + _SHOW_CURSOR)
            self._stream.flush()
        self._drawn, self._width = lines, width
        self._drawn_widths = [min(w, width - 1) for w in widths] if self._truncate else widths


def fit(groups: list[list[Row]], height: int) -> list[Row]:
    """The rows that fit into ``height``: heads of unfinished steps first, then their details, then ended
    steps from the newest back; the order of what remains is kept."""
    if sum(map(len, groups)) <= height:
        return [row for group in groups for row in group]
    chosen: set[tuple[int, int]] = set()
    running = [index for index, group in enumerate(groups) if group and not group[0].style]
    ended = [index for index, group in enumerate(groups) if group and group[0].style]
    order = [(index, 0) for index in running]
    order += [(index, place) for index in running for place in range(1, len(groups[index]))]
    order += [(index, 0) for index in reversed(ended)]
    chosen.update(order[:height])
    return [row for i, group in enumerate(groups) for j, row in enumerate(group) if (i, j) in chosen]


def _state(entry: Entry) -> tuple[str, str]:
    if not entry.ended:
        return "", ""
    if entry.cancelled:
        return "CANCELED ", "cancel"
    if entry.error:
        return "ERROR ", "error"
    return ("CACHED ", "run") if entry.cached else ("", "run")


def _status_row(status: StatusEvent, now_ns: int, style: str) -> Row:
    from dataclasses import replace

    text = status_line(replace(status, started_ns=None, completed_ns=None))
    end_ns = status.completed_ns or (status.timestamp_ns if style else now_ns)
    seconds = max(0, end_ns - status.started_ns) / 1e9 if status.started_ns else 0.0
    return Row(f" => => {text}", f"{seconds:.1f}s", "run" if status.completed_ns else style)


def _clean(text: str) -> str:
    """Text without escape sequences, tabs as spaces, only what stands after the last carriage return."""
    text = text.rstrip("\r").rpartition("\r")[2]
    if "\x1b" in text:
        import re

        text = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])", "", text)
    return printable(text.expandtabs(), keep="").replace("\n", " ")
