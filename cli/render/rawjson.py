"""Progress as one JSON object per line, in the field names of the reference's status stream (row PRG-01)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any, TextIO

from builder.solver.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent
from cli.render.text import rfc3339


class RawJsonRenderer:
    """Writes the events of each call as one line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, events: Iterable[Event], _now_ns: int) -> None:
        """Write ``events``."""
        batch: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            kind, value = encode(event)
            batch.setdefault(kind, []).append(value)
        if batch:
            self._stream.write(json.dumps(batch, separators=(",", ":")) + "\n")
            self._stream.flush()

    def finish(self, _now_ns: int) -> None:
        """Nothing is held back."""


def encode(event: Event) -> tuple[str, dict[str, Any]]:
    """The list that an event belongs to, and its JSON form; empty fields are left out."""
    match event:
        case VertexEvent():
            return "vertexes", _filled(
                digest=event.digest,
                inputs=list(event.inputs),
                name=event.name,
                started=_time(event.started_ns),
                completed=_time(event.completed_ns),
                cached=event.cached,
                error=event.error or ("context canceled" if event.cancelled else ""),
                progressGroup=_group(event),
            )
        case StatusEvent():
            return "statuses", {"id": event.id, "vertex": event.vertex, "current": event.current} | _filled(
                name=event.name,
                total=event.total,
                timestamp=_time(event.timestamp_ns),
                started=_time(event.started_ns),
                completed=_time(event.completed_ns),
            )
        case LogEvent():
            data = base64.b64encode(event.data).decode("ascii")
            return "logs", _filled(
                vertex=event.vertex, stream=event.stream, data=data, timestamp=_time(event.timestamp_ns)
            )
        case WarningEvent():
            return "warnings", _warning(event)


def _group(event: VertexEvent) -> dict[str, Any] | None:
    if not event.progress_group:
        return None
    return {"id": event.progress_group} | _filled(weak=event.progress_weak)


def _warning(event: WarningEvent) -> dict[str, Any]:
    out = _filled(
        vertex=event.vertex,
        level=1,
        short=base64.b64encode(event.short.encode("utf-8", "surrogateescape")).decode("ascii"),
        detail=[base64.b64encode(line.encode("utf-8", "surrogateescape")).decode() for line in event.detail],
        url=event.url,
    )
    if event.filename:
        out["sourceInfo"] = {"filename": event.filename}
        out["range"] = [{"start": {"line": event.start_line}, "end": {"line": event.end_line}}]
    return out


def _filled(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}


def _time(ns: int | None) -> str | None:
    return rfc3339(ns) if ns else None
