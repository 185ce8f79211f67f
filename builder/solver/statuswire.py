"""Progress events in the wire form of the reference's status stream (rows PRG-11, HSY-02).

A stream is a row of frames: the length as four bytes, little-endian, then one StatusResponse.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from builder.solver.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent
from builder.solver.protowire import WireError, data, fields, number, signed, text, time_of, timestamp

MEDIA_TYPE = "application/vnd.buildkit.status.v0"
MAX_FRAME_BYTES = 64 << 20
CANCELED = "context canceled"
_HEAD = struct.Struct("<I")
_VERTEX, _STATUS, _LOG, _WARNING = 1, 2, 3, 4


def frame(event: Event) -> bytes:
    """One event as a frame of its own."""
    body = _field(event)
    return _HEAD.pack(len(body)) + body


def _field(event: Event) -> bytes:
    match event:
        case LogEvent():
            return data(_LOG, _encode_log(event))
        case VertexEvent():
            return data(_VERTEX, _encode_vertex(event))
        case StatusEvent():
            return data(_STATUS, _encode_status(event))
        case WarningEvent():
            return data(_WARNING, _encode_warning(event))


class Frames:
    """Takes a stream in pieces and gives the events of the frames that are whole."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that ``piece`` completes. Raises WireError on what is no status stream."""
        stream = self._rest + piece if self._rest else piece
        at = 0
        while len(stream) - at >= _HEAD.size:
            (size,) = _HEAD.unpack_from(stream, at)
            if size > MAX_FRAME_BYTES:
                raise WireError("a frame is too long")
            end = at + _HEAD.size + size
            if end > len(stream):
                break
            yield from events(stream[at + _HEAD.size : end])
            at = end
        self._rest = stream[at:]

    @property
    def cut_off(self) -> bool:
        """Whether the stream stopped inside a frame."""
        return bool(self._rest)


def events(message: bytes) -> Iterator[Event]:
    """What one StatusResponse holds. Raises WireError."""
    readers: dict[int, Callable[[_Message], Event]] = {
        _VERTEX: _vertex,
        _STATUS: _status,
        _LOG: _log,
        _WARNING: _warning,
    }
    for field, value in fields(message):
        if field in readers and isinstance(value, bytes):
            yield readers[field](_Message(value))


def _encode_vertex(event: VertexEvent) -> bytes:
    group = b""
    if event.progress_group:
        group = data(8, text(1, event.progress_group) + number(3, event.progress_weak))
    return b"".join(
        (
            text(1, event.digest),
            *(text(2, digest) for digest in event.inputs),
            text(3, event.name),
            number(4, event.cached),
            timestamp(5, event.started_ns),
            timestamp(6, event.completed_ns),
            text(7, event.error or (CANCELED if event.cancelled else "")),
            group,
        )
    )


def _encode_status(event: StatusEvent) -> bytes:
    return b"".join(
        (
            text(1, event.id),
            text(2, event.vertex),
            text(3, event.name),
            number(4, event.current),
            number(5, event.total),
            timestamp(6, event.timestamp_ns),
            timestamp(7, event.started_ns),
            timestamp(8, event.completed_ns),
        )
    )


def _encode_log(event: LogEvent) -> bytes:
    return (
        text(1, event.vertex)
        + timestamp(2, event.timestamp_ns)
        + number(3, event.stream)
        + data(4, event.data)
    )


def _encode_warning(event: WarningEvent) -> bytes:
    out = text(1, event.vertex) + number(2, 1) + data(3, event.short.encode("utf-8", "surrogateescape"))
    out += b"".join(data(4, line.encode("utf-8", "surrogateescape")) for line in event.detail)
    out += text(5, event.url)
    if event.filename:
        out += data(6, text(1, event.filename))
        start, end = data(1, number(1, event.start_line)), data(2, number(1, event.end_line))
        out += data(7, start + end)
    return out


class _Message:
    """The fields of a message; of one that is there several times the last counts, ``all`` has every one."""

    __slots__ = ("_found",)

    def __init__(self, message: bytes) -> None:
        self._found: dict[int, list[int | bytes]] = {}
        for field, value in fields(message):
            self._found.setdefault(field, []).append(value)

    def all(self, field: int) -> Iterator[bytes]:
        return (value for value in self._found.get(field, ()) if isinstance(value, bytes))

    def raw(self, field: int) -> bytes:
        value = self._found.get(field, (b"",))[-1]
        return value if isinstance(value, bytes) else b""

    def text(self, field: int) -> str:
        return self.raw(field).decode("utf-8", "replace")

    def number(self, field: int) -> int:
        value = self._found.get(field, (0,))[-1]
        return signed(value) if isinstance(value, int) else 0

    def time(self, field: int) -> int | None:
        return time_of(self.raw(field)) if field in self._found else None

    def part(self, field: int) -> _Message:
        return _Message(self.raw(field))


def _vertex(found: _Message) -> VertexEvent:
    group, error = found.part(8), found.text(7)
    return VertexEvent(
        digest=found.text(1),
        inputs=tuple(value.decode("utf-8", "replace") for value in found.all(2)),
        name=found.text(3),
        cached=bool(found.number(4)),
        started_ns=found.time(5),
        completed_ns=found.time(6),
        error=error,
        cancelled=error.endswith(CANCELED),
        progress_group=group.text(1),
        progress_weak=bool(group.number(3)),
    )


def _status(found: _Message) -> StatusEvent:
    return StatusEvent(
        id=found.text(1),
        vertex=found.text(2),
        name=found.text(3),
        current=found.number(4),
        total=found.number(5),
        timestamp_ns=found.time(6) or 0,
        started_ns=found.time(7),
        completed_ns=found.time(8),
    )


def _log(found: _Message) -> LogEvent:
    return LogEvent(
        vertex=found.text(1),
        timestamp_ns=found.time(2) or 0,
        stream=2 if found.number(3) == 2 else 1,
        data=found.raw(4),
    )


def _warning(found: _Message) -> WarningEvent:
    place = found.part(7)
    return WarningEvent(
        vertex=found.text(1),
        short=found.raw(3).decode("utf-8", "surrogateescape"),
        detail=tuple(line.decode("utf-8", "surrogateescape") for line in found.all(4)),
        url=found.text(5),
        filename=found.part(6).text(1),
        start_line=place.part(1).number(1),
        end_line=place.part(2).number(1),
    )
