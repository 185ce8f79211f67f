"""Traces of builds on record, and buildctl's verbs over the records (HSY-02, HSY-04)."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.build import history
from builder.build.historybundle import bundle
from builder.cache.db import Database
from builder.cache.fsck import _quick
from builder.errors import PybuildError
from builder.oci.digest import Digest
from builder.solver.progress import VertexEvent
from builder.solver.protowire import fields
from builder.solver.types import Secret
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]
TRACE = "application/vnd.buildkit.otlp.json.v0"
COLUMNS = ["TYPE", "REF", "CREATED", "COMPLETED", "GENERATION", "PINNED"]


def spans(content: bytes) -> list[dict[str, Any]]:
    (resource,) = json.loads(content)["resourceSpans"]
    assert {"key": "service.name", "value": {"stringValue": "pybuild"}} in resource["resource"]["attributes"]
    (scope,) = resource["scopeSpans"]
    found: list[dict[str, Any]] = scope["spans"]
    return found


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


def wrong(lab: Lab) -> set[str]:
    """What one look of fsck finds wrong with the history."""
    root = str(lab.store.root)
    db = Database(f"{root}/db.sqlite")
    try:
        return {item.code for item in _quick(db, root) if item.code.startswith("history")}
    finally:
        db.close()


def failed(lab: Lab, text: str, **more: Any) -> history.BuildRecord:
    with pytest.raises(PybuildError):
        lab.build(lab.context({"f": "x"}), text, **more)
    return history.find(lab.store)


@row("HSY-02")
def test_the_spans_of_a_build(lab: Lab) -> None:
    text = "FROM busybox\nCOPY f /\nRUN echo one > /one\nRUN cat /run/secrets/s; echo canary-trace; exit 3\n"
    found = failed(lab, text, secrets=(Secret(id="s", data=b"canary-trace"),), target=None)
    content = history.trace(lab.store, found)
    build, *others = spans(content)
    assert (len(build["traceId"]), len(build["spanId"])) == (32, 16)
    assert "parentSpanId" not in build
    assert {span["traceId"] for span in others} == {build["traceId"]}
    assert len({span["spanId"] for span in (build, *others)}) == len(others) + 1
    assert build["startTimeUnixNano"] == str(found.created_ns)
    assert build["endTimeUnixNano"] == str(found.completed_ns)
    assert build["status"]["code"] == 2
    assert "exit code: 3" in build["status"]["message"]
    assert attributes(build)["build.status"] == "error"
    shown = {event.digest: event for event in lab.watcher.events if isinstance(event, VertexEvent)}
    steps = {
        attributes(span)["vertex.digest"]: span for span in others if span["parentSpanId"] == build["spanId"]
    }
    assert steps.keys() == shown.keys()
    for digest, event in shown.items():
        span = steps[digest]
        assert span["name"] == event.name
        assert (span["startTimeUnixNano"], span["endTimeUnixNano"]) == (
            str(event.started_ns),
            str(event.completed_ns),
        )
        assert span["status"] == ({"code": 2, "message": event.error} if event.error else {"code": 1})
        inputs = [steps[name]["spanId"] for name in event.inputs if name in steps]
        assert [link["spanId"] for link in span.get("links", ())] == inputs
    parts = {span["name"]: span for span in others if span["parentSpanId"] != build["spanId"]}
    part = parts["transferring context:"]
    assert part["parentSpanId"] in {span["spanId"] for span in steps.values()}
    assert attributes(part)["bytes"] == "1"
    assert b"canary-trace\\n" not in content


@row("HSY-02")
def test_a_trace_is_made_once_and_goes_with_its_record(lab: Lab) -> None:
    lab.build(lab.context(), "FROM busybox\nRUN echo trace-once\n")
    found = history.find(lab.store)
    folder = Path(lab.store.builds.directory(found.ref))
    assert "trace" not in found.data
    assert not (folder / "trace").exists(), "a build does not wait for it"
    done = history.finalized(lab.store, found)
    told = done.data["trace"]
    content = (folder / "trace").read_bytes()
    assert told == {"mediaType": TRACE, "digest": str(Digest.of(content)), "size": len(content)}
    assert done.data["generation"] == found.data["generation"] + 1
    assert history.finalized(lab.store, done) == done
    assert [item.media_type for item in history.attachments(lab.store, done)][2] == TRACE
    assert not wrong(lab)
    (folder / "trace").write_bytes(b"{}")
    assert wrong(lab) == {"history-trace"}
    (folder / "trace").unlink()
    history.finalized(lab.store, done)  # made again, the same
    assert (folder / "trace").read_bytes() == content
    history.remove(lab.store, [found.ref])
    assert not folder.exists()


@row("HSY-02")
def test_a_recalled_build_has_a_trace_too(lab: Lab) -> None:
    context = lab.context()
    lab.build(context, "FROM busybox\nRUN echo trace-recalled\n")
    ref = str(lab.build(context).build_id)
    found = history.find(lab.store, ref)
    assert found.recalled
    build, *steps = spans(history.trace(lab.store, found))
    assert attributes(build)["build.recalled"] is True
    cached = [span["name"] for span in steps if attributes(span).get("vertex.cached")]
    assert any("echo trace-recalled" in name for name in cached)
    again = history.find(lab.store, ref)
    assert again.recalled, "it is still known as one"
    assert lab.store.builds.list(recalled=False)[0].id != ref
    assert not wrong(lab)
    history.remove(lab.store, [ref])
    assert not Path(lab.store.builds.directory(ref)).exists()


@row("HSY-02")
def test_a_trace_of_what_is_gone_or_runs(lab: Lab) -> None:
    """Removed meanwhile: nothing is left behind. Running, or without its log: there is none."""
    lab.build(lab.context(), "FROM busybox\nRUN echo trace-gone\n")
    found = history.find(lab.store)
    history.remove(lab.store, [found.ref])
    assert not lab.store.builds.attach(found.ref, {"trace": b"{}"})
    assert not Path(lab.store.builds.directory(found.ref)).exists()
    lab.store.builds.add("runs", {})
    with pytest.raises(PybuildError, match="running"):
        history.trace(lab.store, history.find(lab.store, "runs"))
    assert not lab.store.builds.attach("runs", {"trace": b"{}"})
    lab.store.builds.finish("runs", "completed", {})
    with pytest.raises(PybuildError, match="has no trace"):
        history.trace(lab.store, history.find(lab.store, "runs"))


@row("HSY-02", "HSY-06")
def test_the_archive_has_the_trace(lab: Lab) -> None:
    lab.build(lab.context(), "FROM busybox\nRUN echo trace-archive\n")
    found = history.find(lab.store)
    out = io.BytesIO()
    bundle(lab.store, [found], out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    blobs = {name.removeprefix("blobs/").replace("/", ":"): data for name, data in content.items()}
    (entry,) = json.loads(content["index.json"])["manifests"]
    manifest = json.loads(blobs[entry["digest"]])
    (layer,) = [item for item in manifest["layers"] if item["mediaType"] == TRACE]
    assert spans(blobs[layer["digest"]])[0]["name"].startswith("build ")
    message = dict(fields(blobs[manifest["layers"][0]["digest"]]))
    trace = dict(fields(message[13]))  # type: ignore[arg-type]
    assert trace == {1: TRACE.encode(), 2: layer["digest"].encode(), 3: layer["size"]}


@row("HSY-04")
def test_the_verbs_of_buildctl(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo ctl\n")
    command.run("prune-histories")
    for _ in range(2):
        command.build(tmp_path)
    table = [line.split() for line in command.run("debug", "histories").out.splitlines()]
    assert table[0] == COLUMNS
    assert [(line[0], line[4], line[5]) for line in table[1:]] == [
        ("complete", "1", "false"),
        ("complete", "2", "false"),
    ]
    assert all(line[2] < line[3] for line in table[1:])
    last, first = (line[1] for line in table[1:])
    command.run("debug", "ctl", "--pin", first)
    command.run("debug", "ctl", "--finalize", last)
    rows = [
        json.loads(line) for line in command.run("debug", "histories", "--format", "json").out.splitlines()
    ]
    assert {row["Ref"]: (row["Pinned"], row["Generation"]) for row in rows} == {
        first: ("true", "3"),
        last: ("false", "2"),
    }
    assert command.run("debug", "histories", "--format", "{{.Ref}}", "--limit", "1").out == f"{last}\n"
    inspected = json.loads(command.run("debug", "get", last, "--format", "json").out)
    traced = command.run("history", "trace", last).stdout.rstrip(b"\n")
    assert inspected["Trace"] == {"Digest": str(Digest.of(traced)), "Size": len(traced), "Type": TRACE}
    attached = command.run("history", "inspect", "attachment", last, TRACE).stdout
    assert attached == traced
    gone = [line.split() for line in command.run("prune-histories").out.splitlines()]
    assert gone[0] == COLUMNS
    assert [line[1] for line in gone[1:]] == [last]
    assert command.run("prune-histories").out == ""
    command.run("debug", "ctl", "--unpin", first)
    command.run("debug", "ctl", "--delete", first)
    assert command.run("debug", "histories", "-q").out == ""
    for words in (("--pin",), ("--pin", first), (first,), ("--pin", "--delete", first)):
        assert command.run("debug", "ctl", *words, status=2).err.startswith("pybuild: ")
