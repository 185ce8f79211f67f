"""One build of the history as text and as JSON (``history inspect``)."""

from __future__ import annotations

from typing import Any

from builder.build import history
from builder.build.history import Attachment, BuildRecord
from builder.cache.store import Store
from builder.solver.progress import LogEvent, VertexEvent, WarningEvent
from cli.render.tables import table
from cli.render.text import human_size, local_time, printable, rfc3339

_TAIL_LINES = 10


def duration(ns: int) -> str:
    """``0.3s``, ``2m 5s``, ``1h 2m``."""
    seconds = ns / 1e9
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def record_json(store: Store, record: BuildRecord) -> dict[str, Any]:
    """All fields, empty ones left out. Trace and provenance are made first, if they were not yet."""
    record = history.finalized(store, record)
    attachments = history.attachments(store, record)
    data = record.data
    attrs: dict[str, str] = data.get("attrs") or {}
    counts = _counts(store, record)
    out: dict[str, Any] = {
        "Name": record.name,
        "Ref": record.ref,
        "Status": record.status,
        "Pinned": record.pinned,
        "Generation": data.get("generation", 1),
        "Recalled": record.recalled,
        "Context": data.get("context"),
        "Dockerfile": data.get("dockerfile") or "Dockerfile",
        "Target": data.get("target"),
        "Platform": data.get("platforms"),
        "Tags": data.get("tags"),
        "StartedAt": rfc3339(record.created_ns),
        "CompletedAt": rfc3339(record.completed_ns) if record.completed_ns else None,
        "Duration": record.duration_ns,
        "Error": _error(store, record),
        "NumCompletedSteps": counts["completed"],
        "NumTotalSteps": counts["total"],
        "NumCachedSteps": counts["cached"],
        "NumWarnings": counts["warnings"],
        "BuildArgs": _pairs(attrs, "build-arg:"),
        "Labels": _pairs(attrs, "label:"),
        "NamedContexts": _pairs(attrs, "context:"),
        "Frontend": data.get("frontend"),
        "FrontendAttrs": attrs,
        "Exporters": data.get("exporters"),
        "ExporterResponse": data.get("response"),
        "Image": data.get("image_id"),
        "Digest": data.get("digest"),
        "Steps": data.get("steps"),
        "Attachments": [_attachment(item) for item in attachments],
        "Trace": next(
            (_attachment(item) for item in attachments if item.media_type == history.TRACE_TYPE), None
        ),
    }
    return {key: value for key, value in out.items() if value not in (None, "", [], {}, ())}


def _attachment(item: Attachment) -> dict[str, Any]:
    found = {"Digest": item.digest, "Size": item.size, "Type": item.media_type}
    more = {"PredicateType": item.predicate, "Platform": item.platform}
    return {**found, **{key: value for key, value in more.items() if value}}


def _pairs(attrs: dict[str, str], prefix: str) -> list[dict[str, str]]:
    return [
        {"Name": key.removeprefix(prefix), "Value": value}
        for key, value in attrs.items()
        if key.startswith(prefix)
    ]


def _counts(store: Store, record: BuildRecord) -> dict[str, int]:
    """Of a build that runs, or was killed, the log knows."""
    if "counts" in record.data:
        return {what: record.count(what) for what in ("total", "completed", "cached", "warnings")}
    steps: dict[str, VertexEvent] = {}
    warnings = 0
    for event in history.events(store, record, follow=False):
        if isinstance(event, VertexEvent):
            steps[event.digest] = event
        elif isinstance(event, WarningEvent):
            warnings += 1
    return {
        "total": len(steps),
        "completed": sum(step.completed_ns is not None for step in steps.values()),
        "cached": sum(step.cached for step in steps.values()),
        "warnings": warnings,
    }


def _error(store: Store, record: BuildRecord) -> dict[str, Any] | None:
    data = record.data
    if not data.get("error"):
        return None
    where = data.get("where") or {}
    out = {
        "Code": data.get("code"),
        "StatusCode": data.get("status_code"),
        "Message": data["error"],
        "Step": where.get("step"),
        "File": where.get("file"),
        "StartLine": where.get("start_line"),
        "EndLine": where.get("end_line"),
        "Logs": _tail(store, record, str(where.get("digest", ""))),
    }
    return {key: value for key, value in out.items() if value}


def _tail(store: Store, record: BuildRecord, digest: str) -> list[str]:
    """The last lines of the step that failed."""
    if not digest:
        return []
    kept = b""
    for event in history.events(store, record, follow=False):
        if isinstance(event, LogEvent) and event.vertex == digest:
            kept = (kept + event.data)[-(1 << 16) :]
    return kept.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]


def record_text(store: Store, record: BuildRecord) -> str:
    """The record for people, in blocks."""
    found = record_json(store, record)
    blocks = [_block(_head(found)), _block(_times(found, record))]
    blocks += _error_lines(found.get("Error"))
    for title, key in (("BUILD ARG", "BuildArgs"), ("LABEL", "Labels"), ("NAMED CONTEXT", "NamedContexts")):
        if key in found:
            blocks.append(table([(title, "VALUE"), *((p["Name"], p["Value"]) for p in found[key])]))
    if "Exporters" in found:
        rows = [
            (item["Type"], ", ".join(f"{key}={value}" for key, value in item["Attrs"].items()))
            for item in found["Exporters"]
        ]
        blocks.append(table([("OUTPUT", "ATTRIBUTES"), *rows]))
    if "Attachments" in found:
        files = [
            (item["Digest"], human_size(item["Size"]), item.get("PredicateType", item["Type"]))
            for item in found["Attachments"]
        ]
        blocks.append(table([("ATTACHMENT", "SIZE", "TYPE"), *files]))
    blocks.append(f"Its progress: pybuild history logs {record.ref}")
    return "\n".join(blocks)


def _head(found: dict[str, Any]) -> list[tuple[str, str]]:
    plain = ("Name", "Ref", "Context", "Dockerfile", "Target")
    rows = [(key, str(found.get(key, ""))) for key in plain]
    rows += [(key, ", ".join(found.get(key, ()))) for key in ("Platform", "Tags")]
    return [*rows, ("Image", str(found.get("Image", ""))), ("Pinned", "yes" if found["Pinned"] else "")]


def _times(found: dict[str, Any], record: BuildRecord) -> list[tuple[str, str]]:
    steps = f"{found['NumCompletedSteps']}/{found['NumTotalSteps']} ({found['NumCachedSteps']} cached)"
    status = f"{record.status}, by the result of an earlier build" if record.recalled else record.status
    return [
        ("Started", local_time(record.created_ns)),
        ("Duration", duration(record.duration_ns)),
        ("Status", status),
        ("Build Steps", steps),
        ("Warnings", str(found["NumWarnings"] or "")),
    ]


def _block(rows: list[tuple[str, str]]) -> str:
    return table([(f"{name}:", value) for name, value in rows if value], least=16)


def _error_lines(error: dict[str, Any] | None) -> list[str]:
    if error is None:
        return []
    lines = [f"Error: {printable(error['Message'])} ({error.get('Code', '')})"]
    if "Step" in error:
        lines.append(f"  in {printable(error['Step'])}")
    if "File" in error:
        lines.append(f"  at {printable(error['File'])}:{error.get('StartLine', '')}")
    lines += [f"    | {printable(line)}" for line in error.get("Logs", ())]
    return ["\n".join(lines) + "\n"]
