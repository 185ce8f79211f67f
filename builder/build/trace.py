"""The trace of a build: its record and status stream as OpenTelemetry spans, in OTLP's JSON form (HSY-02).

One span is the whole build; below it is one for each time that a step was under way, below that one for each
part of a step. What a step is made from are its links. The same record gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from builder.build.history import BuildRecord
from builder.oci.canonical import compact_json
from builder.solver.progress import Event, StatusEvent, VertexEvent, WarningEvent

_INTERNAL = 1
_OK, _ERROR = 1, 2
_UNFINISHED = "not finished"


def otlp(record: BuildRecord, events: Iterable[Event]) -> bytes:
    """An ``ExportTraceServiceRequest`` with the spans of a build that is over."""
    spans = _Spans(record)
    for event in events:
        spans.take(event)
    scope = {"scope": {"name": "pybuild"}, "spans": spans.all()}
    resource = {"attributes": _attributes({"service.name": "pybuild", "build.ref": record.ref})}
    return compact_json({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


@dataclass(slots=True)
class _Run:
    """One time that a step was under way, up to ``last``."""

    first: VertexEvent
    started_ns: int
    last: VertexEvent
    parts: dict[str, StatusEvent] = field(default_factory=dict)
    warnings: list[WarningEvent] = field(default_factory=list)


class _Spans:
    def __init__(self, record: BuildRecord) -> None:
        self._record = record
        self._end_ns = record.completed_ns or record.created_ns
        self._trace = _id("trace", record.ref, size=16)
        self._root = _id("build", record.ref)
        self._runs: dict[str, list[_Run]] = {}

    def take(self, event: Event) -> None:
        """Take in one event; they come in order."""
        if isinstance(event, VertexEvent):
            self._vertex(event)
        elif isinstance(event, StatusEvent | WarningEvent):
            run = self._runs[event.vertex][-1] if event.vertex in self._runs else None
            if run is None:
                return
            if isinstance(event, StatusEvent):
                run.parts[event.id] = event
            else:
                run.warnings.append(event)

    def _vertex(self, event: VertexEvent) -> None:
        started_ns = event.started_ns or event.completed_ns
        if started_ns is None:
            return
        runs = self._runs.setdefault(event.digest, [])
        if runs and (runs[-1].started_ns == started_ns or runs[-1].last.completed_ns is None):
            runs[-1].last = event
        else:
            runs.append(_Run(event, started_ns, event))

    def all(self) -> list[dict[str, Any]]:
        """The build's span, then the others as they began."""
        found = [self._span(run) for runs in self._runs.values() for run in runs]
        found += [
            self._part(run, part)
            for runs in self._runs.values()
            for run in runs
            for part in run.parts.values()
            if part.started_ns
        ]
        return [self._build(), *sorted(found, key=lambda span: int(span["startTimeUnixNano"]))]

    def _build(self) -> dict[str, Any]:
        record = self._record
        error = str(record.data.get("error", "")) or ("" if record.status == "completed" else record.status)
        about = {
            "build.status": record.status,
            "build.context": record.data.get("context"),
            "build.target": record.data.get("target"),
            "build.frontend": record.data.get("frontend"),
            "build.platforms": ",".join(record.data.get("platforms") or ()),
            "build.image": record.data.get("image_id"),
            "build.recalled": record.recalled or None,
        }
        return {
            **self._times(self._root, record.created_ns, self._end_ns),
            "name": f"build {record.name}".rstrip(),
            "attributes": _attributes(about),
            "status": _status(error),
        }

    def _span(self, run: _Run) -> dict[str, Any]:
        last = run.last
        error = last.error or ("context canceled" if last.cancelled else "")
        if last.completed_ns is None:
            error = _UNFINISHED
        about = {
            "vertex.digest": last.digest,
            "vertex.cached": last.cached or None,
            "vertex.canceled": last.cancelled or None,
            "vertex.group": last.progress_group,
        }
        inputs = [self._runs[digest][-1] for digest in last.inputs if digest in self._runs]
        links = [{"traceId": self._trace, "spanId": _run_id(item)} for item in inputs]
        end_ns = last.completed_ns or self._end_ns
        events = [
            {
                "timeUnixNano": str(run.started_ns),
                "name": "warning",
                "attributes": _attributes({"message": item.short, "url": item.url}),
            }
            for item in run.warnings
        ]
        return {
            **self._times(_run_id(run), run.started_ns, end_ns),
            "parentSpanId": self._root,
            "name": last.name,
            "attributes": _attributes(about),
            **({"links": links} if links else {}),
            **({"events": events} if events else {}),
            "status": _status(error),
        }

    def _part(self, run: _Run, part: StatusEvent) -> dict[str, Any]:
        parent = _run_id(run)
        started_ns = part.started_ns or run.started_ns
        end_ns = part.completed_ns or run.last.completed_ns or self._end_ns
        about = {"bytes": part.current or None, "bytes.total": part.total or None}
        return {
            **self._times(_id("part", parent, part.id), started_ns, end_ns),
            "parentSpanId": parent,
            "name": f"{part.id} {part.name}".rstrip(),
            "attributes": _attributes(about),
            "status": _status("" if part.completed_ns else _UNFINISHED),
        }

    def _times(self, span: str, started_ns: int, end_ns: int) -> dict[str, Any]:
        return {
            "traceId": self._trace,
            "spanId": span,
            "kind": _INTERNAL,
            "startTimeUnixNano": str(started_ns),
            "endTimeUnixNano": str(max(started_ns, end_ns)),
        }


def _run_id(run: _Run) -> str:
    return _id("vertex", run.first.digest, str(run.started_ns))


def _id(*parts: str, size: int = 8) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[: 2 * size]


def _status(error: str) -> dict[str, Any]:
    return {"code": _ERROR, "message": error} if error else {"code": _OK}


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value not in (None, "")]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"stringValue": str(value)}
