"""The plain progress format of the reference builder (rows PRG-03, PRG-04, PRG-05, PRG-12).

A step's output comes in blocks headed ``#N <name>``. One unfinished step holds the display for a while, so
that the output of parallel steps does not mix line by line; ended steps are told at once, in the order in
which they ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from builder.solver.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent
from cli.render.board import Board, Entry
from cli.render.text import printable, progress_size

_HOLD_NS = 5_000_000_000
_HOLD_MOST_NS = 10_000_000_000
_QUIET_NS = 1_000_000_000
_BACKLOG_LINES = 5000
_FAILURE_LINES = 10
TASK = "task "
"""How the keys of things begin that are no build steps."""


class _Block:
    """An entry's place in the output: its number, what is not printed yet, and which statuses were."""

    __slots__ = ("ended", "entry", "fresh", "lines", "number", "shown", "touched_ns")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.number = 0
        self.lines: list[str] = []
        self.ended = False
        self.touched_ns: int | None = None
        """When it began to wait for the display; None = it has nothing to say."""
        self.shown: dict[str, StatusEvent] = {}
        self.fresh: dict[str, int] = {}
        """Where in ``lines`` a status stands that nobody has seen yet: its next state takes that place."""

    @property
    def waiting(self) -> bool:
        return self.touched_ns is not None


class PlainRenderer:
    """Prints events as text; ``show`` may be called often, time is given by the caller."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._board = Board()
        self._blocks: dict[str, _Block] = {}
        self._ended: list[_Block] = []
        self._current: _Block | None = None
        self._held_since_ns = 0
        self._printed_ns = 0
        self._numbers = 0
        self._out: list[str] = []

    def show(self, events: Iterable[Event], now_ns: int) -> None:
        """Take ``events`` and print what is due at ``now_ns``."""
        for event in events:
            self._take(event, now_ns)
        for block in sorted(self._ended, key=_completed):
            self._print_block(block, now_ns)
        self._ended.clear()
        self._print_current(now_ns)
        self._flush()

    def finish(self, now_ns: int) -> None:
        """The build is over: print all that is left, then the tails of failed steps."""
        for block in sorted(self._blocks.values(), key=lambda block: block.touched_ns or 0):
            if block.waiting:
                self._print_block(block, now_ns)
        for block in self._blocks.values():
            if wants_tail(block.entry):
                self._out += failure_tail(block.entry, _FAILURE_LINES)
        self._flush()

    def _take(self, event: Event, now_ns: int) -> None:
        if isinstance(event, WarningEvent) and not event.vertex:
            return  # about the Dockerfile as a whole: told after the build
        entry = self._board.entry(event)
        block = self._blocks.get(entry.key)
        if block is None:
            block = self._blocks[entry.key] = _Block(entry)
        match event:
            case VertexEvent():
                self._take_state(block, event, now_ns)
            case LogEvent():
                block.lines += entry.add_log(event)
            case StatusEvent():
                self._take_status(block, event)
            case WarningEvent():
                entry.warnings.append(event)
                block.lines.append(f"WARN: {printable(event.short)}")
        if block.lines and block.touched_ns is None and entry.started_ns is not None:
            block.touched_ns = now_ns

    def _take_state(self, block: _Block, event: VertexEvent, now_ns: int) -> None:
        entry = block.entry
        if not entry.take(event):
            return
        block.touched_ns = block.touched_ns or now_ns
        block.ended = entry.ended
        if entry.ended:
            block.lines += entry.flush_log()
            block.lines.append(_outcome(entry))
            if block not in self._ended:
                self._ended.append(block)

    def _take_status(self, block: _Block, event: StatusEvent) -> None:
        last = block.shown.get(event.id)
        place = block.fresh.get(event.id)
        if place is not None:
            block.lines[place] = status_line(event)
        elif last is None or _worth_repeating(last, event):
            block.fresh[event.id] = len(block.lines)
            block.lines.append(status_line(event))
        else:
            return
        block.shown[event.id] = event

    def _print_current(self, now_ns: int) -> None:
        current = self._current
        others = [b for b in self._blocks.values() if b.waiting and not b.ended and b is not current]
        if current is not None and others and self._should_yield(others, now_ns):
            if current.waiting:
                self._print_block(current, now_ns)
            current = None
        if current is None and others:
            current = min(others, key=lambda block: block.touched_ns or 0)
        if current is not None and current.waiting:
            self._print_block(current, now_ns)

    def _should_yield(self, others: list[_Block], now_ns: int) -> bool:
        if any(len(block.lines) > _BACKLOG_LINES for block in others):
            return True
        held = now_ns - self._held_since_ns
        return held >= _HOLD_MOST_NS or (held >= _HOLD_NS and now_ns - self._printed_ns >= _QUIET_NS)

    def _print_block(self, block: _Block, now_ns: int) -> None:
        if self._current is not block:
            self._leave()
            if not block.number:
                self._numbers += 1
                block.number = self._numbers
            if self._printed_ns:
                self._out.append("")
            self._out.append(f"#{block.number} {printable(block.entry.name)}")
            self._held_since_ns = now_ns
        self._out += [f"#{block.number} {line}" for line in block.lines]
        block.lines.clear()
        block.fresh.clear()
        block.touched_ns = None
        self._printed_ns = now_ns
        self._current = None if block.ended else block

    def _leave(self) -> None:
        if self._current is not None:
            self._out.append(f"#{self._current.number} ...")
            self._current = None

    def _flush(self) -> None:
        if self._out:
            self._stream.write("\n".join(self._out) + "\n")
            self._stream.flush()
            self._out.clear()


def _completed(block: _Block) -> int:
    return block.entry.completed_ns or 0


def _outcome(entry: Entry) -> str:
    if entry.cancelled:
        return "CANCELED"
    if entry.error:
        return f"ERROR: {printable(entry.error)}"
    if entry.cached:
        return "CACHED"
    return f"DONE {entry.seconds(0):.1f}s"


def _worth_repeating(last: StatusEvent, event: StatusEvent) -> bool:
    if event.completed_ns is not None:
        return last.completed_ns is None
    if event.timestamp_ns - last.timestamp_ns >= _HOLD_NS:
        return True
    return event.total > 0 and (event.current - last.current) * 20 >= event.total


def status_line(event: StatusEvent) -> str:
    """``transferring context: 2.05kB 0.1s done`` (PRG-03)."""
    text = printable(f"{event.id} {event.name}" if event.name else event.id)
    if event.total:
        text += f" {progress_size(event.current)} / {progress_size(event.total)}"
    elif event.current:
        text += f" {progress_size(event.current)}"
    if event.started_ns is not None:
        seconds = ((event.completed_ns or event.timestamp_ns) - event.started_ns) / 1e9
        if seconds > 0.01:
            text += f" {seconds:.1f}s"
    return f"{text} done" if event.completed_ns is not None else text


def wants_tail(entry: Entry) -> bool:
    """Whether the output of a step is shown again at the end; a task that said nothing has told its error."""
    return bool(entry.error) and not entry.cancelled and bool(entry.log or not entry.key.startswith(TASK))


def failure_tail(entry: Entry, count: int) -> list[str]:
    """The last output of a failed step between rules (PRG-05)."""
    return ["------", f" > {printable(entry.name)}:", *entry.log[-count:], "------"]
