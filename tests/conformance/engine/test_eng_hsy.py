"""The history of builds: records, logs, listing, retention, the archive (HSY rows)."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from builder.build import history
from builder.build.buildlog import LogWriter, read_log
from builder.build.historybundle import bundle, record_message
from builder.build.request import HistoryLimits
from builder.cache.store import Store
from builder.errors import Cancelled, PybuildError, StoreError
from builder.solver.progress import Event, LogEvent, VertexEvent, WarningEvent
from builder.solver.protowire import fields, time_of
from builder.solver.statuswire import Frames
from builder.solver.types import Secret
from cli.historyfilter import parse_filters
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]

FAILING = "FROM busybox\nRUN echo before\nRUN echo the end; exit 7\n"


def record(lab: Lab, ref: str = "") -> history.BuildRecord:
    return history.find(lab.store, ref)


def logged(lab: Lab, found: history.BuildRecord) -> list[Event]:
    return list(history.events(lab.store, found))


@row("HSY-01")
def test_record_of_a_build(lab: Lab) -> None:
    root = lab.context()
    text = "FROM busybox\nARG API_TOKEN=x\nARG V=1\nRUN true $V hsy1\n"
    result = lab.build(
        root,
        text,
        tags=("hsy:1",),
        build_args=(("API_TOKEN", "canary-1"), ("V", "https://me:canary-2@example.com/x")),
        labels=(("who", "me"),),
        target=None,
        build_id="hsy-one",
    )
    found = record(lab, "hsy-one")
    assert (found.ref, found.status, found.pinned) == ("hsy-one", "completed", False)
    assert 0 < found.created_ns < (found.completed_ns or 0) <= time.time_ns()
    data = found.data
    assert data["frontend"] == "dockerfile.v0"
    assert data["attrs"]["label:who"] == "me"
    assert data["attrs"]["build-arg:API_TOKEN"] == "xxxxx"
    assert data["attrs"]["build-arg:V"] == "https://xxxxx@example.com/x"
    assert data["exporters"] == [{"Type": "image", "Attrs": {"name": "docker.io/library/hsy:1"}}]
    assert data["response"] == result.metadata
    assert (data["image_id"], data["digest"]) == (result.image_id, result.digest)
    shown = {event.digest: event for event in lab.watcher.events if isinstance(event, VertexEvent)}
    warned = [event for event in lab.watcher.events if isinstance(event, WarningEvent)]
    assert data["counts"] == {
        "total": len(shown),
        "cached": sum(event.cached for event in shown.values()),
        "completed": len(shown),
        "warnings": len(warned),
    }
    assert warned
    assert data["generation"] == 2
    files = Path(lab.store.builds.directory("hsy-one"))
    kept = b"".join(path.read_bytes() for path in files.iterdir())
    kept += zlib.decompress((files / "definition").read_bytes()) + json.dumps(data).encode()
    assert b"canary" not in kept
    assert b"hsy1" in kept


@row("HSY-01")
def test_records_of_builds_that_do_not_succeed(lab: Lab) -> None:
    root = lab.context()
    with pytest.raises(PybuildError):
        lab.build(root, FAILING)
    failed = record(lab)
    assert (failed.status, failed.data["code"], failed.data["status_code"]) == ("error", "step-failed", 2)
    assert "exit code: 7" in failed.data["error"]
    assert failed.data["where"]["start_line"] == 3
    with pytest.raises(PybuildError):
        lab.build(root, "FROM busybox\nRUNN x\n")
    assert record(lab).status == "error"
    assert record(lab).data["counts"]["total"] >= 1

    from builder.build import BuildRequest, build
    from builder.solver.cancel import Cancel

    cancel = Cancel()

    def stop(event: Event) -> None:
        if isinstance(event, LogEvent):
            cancel.set()

    (root / "Dockerfile").write_text("FROM busybox\nRUN echo go; sleep 60\n")
    request = BuildRequest(context=str(root), network="none")
    with pytest.raises(Cancelled):
        build(lab.store, request, on_event=stop, machine=lab._machine.machine(), cancel=cancel)
    cancelled = record(lab)
    assert (cancelled.status, cancelled.data["status_code"]) == ("canceled", 1)
    assert any(isinstance(event, VertexEvent) and event.cancelled for event in logged(lab, cancelled))


@row("HSY-01")
def test_record_of_a_build_that_a_remembered_result_answers(lab: Lab) -> None:
    root = lab.context()
    first = lab.build(root, "FROM busybox\nRUN echo recalled\nRUN echo twice\n")
    again = lab.build(root, tags=("recalled:1",))
    found = record(lab, str(again.build_id))
    assert found.recalled
    assert found.ref != first.build_id
    assert (found.status, found.data["image_id"], found.data["tags"]) == (
        "completed",
        first.image_id,
        ["recalled:1"],
    )
    assert found.count("total") == found.count("completed") >= found.count("cached") == 3
    assert not Path(lab.store.builds.directory(found.ref)).exists()
    names = [event.name for event in logged(lab, found) if isinstance(event, VertexEvent)]
    assert any("echo recalled" in name for name in names)


@row("HSY-01")
def test_a_killed_build_has_failed_and_what_it_said_is_there(command: Runner, lab: Lab) -> None:
    root = lab.context()
    (root / "Dockerfile").write_text("FROM busybox\nRUN echo last words; sleep 30\n")
    process = command.start("build", "--network=none", "--progress=plain", str(root))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        running = json.loads(
            command.run("history", "ls", "--limit", "1", "--format", "json").out.splitlines()[0]
        )
        if running["Status"] == "Running" and "last words" in _log_of(lab.store, running["Ref"]):
            break
        time.sleep(0.05)
    assert running["Type"] == "active"
    assert "is running" in command.run("history", "rm", running["Ref"], status=2).err
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    after = json.loads(
        command.run("history", "ls", "--filter", f"ref={running['Ref']}", "--format", "json").out
    )
    assert (after["Status"], after["Type"]) == ("Error", "complete")
    assert "killed" in after["Error"]
    assert "last words" in command.run("history", "logs", running["Ref"]).out
    inspected = json.loads(command.run("history", "inspect", running["Ref"], "--format", "json").out)
    assert inspected["Error"]["Code"] == "build-killed"
    assert inspected["NumTotalSteps"] > inspected["NumCompletedSteps"] > 0


def _log_of(store: Store, ref: str) -> str:
    path = Path(store.builds.directory(ref)) / "log"
    return path.read_bytes().decode("latin-1") if path.exists() else ""


@row("HSY-02", "EXE-27", "BET-03")
def test_the_log_has_everything_in_the_references_form(lab: Lab) -> None:
    root = lab.context()
    secret = Secret(id="s", data=b"canary-of-the-log\n")
    lab.build(
        root,
        "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s; yes 0123456789 | head -n 300000; echo err >&2\n",
        secrets=(secret,),
    )
    found = record(lab)
    path = Path(lab.store.builds.directory(found.ref)) / "log"
    events = list(Frames().feed(path.read_bytes()))
    assert [event for event in events if not isinstance(event, LogEvent)] == [
        event for event in lab.watcher.events if not isinstance(event, LogEvent)
    ]
    data = b"".join(event.data for event in events if isinstance(event, LogEvent) and event.stream == 1)
    assert data.count(b"0123456789\n") == 300_000
    assert data.startswith(b"xxxxx\n")
    assert any(
        event.stream == 2 and event.data == b"err\n" for event in events if isinstance(event, LogEvent)
    )
    assert [item.media_type for item in history.attachments(lab.store, found)][:2] == [
        "application/vnd.buildkit.status.v0",
        history.DEFINITION_TYPE,
    ]
    definition = history.attachments(lab.store, found)[1]
    Path(definition.path).write_bytes(b"")
    with pytest.raises(StoreError, match="is damaged"):
        history.attachment_bytes(lab.store, definition)


@row("HSY-02")
def test_a_log_has_a_bound_and_goes_with_its_record(lab: Lab, tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"), limit_bytes=10_000)
    for _ in range(100):
        writer.add(LogEvent(vertex="v", data=b"x" * 1000, timestamp_ns=1))
    writer.add(VertexEvent(digest="v", name="v", started_ns=1, completed_ns=2))
    writer.close()
    events = list(read_log(str(tmp_path / "log")))
    assert (tmp_path / "log").stat().st_size < 12_000
    assert isinstance(events[-2], WarningEvent)
    assert isinstance(events[-1], VertexEvent)
    lab.quick("FROM busybox\nRUN echo bound\n")
    found = record(lab)
    path = Path(lab.store.builds.directory(found.ref))
    reader = history.events(lab.store, found)
    next(reader)
    assert history.remove(lab.store, [found.ref]) == (found.ref,)
    assert not path.exists()
    assert len(list(reader)) > 3  # who reads keeps what is open
    assert lab.store.builds.get(found.ref) is None


@row("HSY-03")
def test_listing_and_filters(tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        hour = 3600 * 10**9
        urls = ("https://example.com/a.git#main", "https://example.com/b.git", "")
        for number, status in enumerate(("completed", "error", "canceled")):
            store.builds.add(f"b{number}", {"attrs": {"context": urls[number]} if urls[number] else {}})
            store.builds.finish(f"b{number}", status)  # type: ignore[arg-type]
            begun = time.time_ns() - (number + 1) * hour
            store.db.run(
                "UPDATE builds SET created_ns=?, completed_ns=? WHERE id=?",
                (begun, begun + (number + 1) * 60 * 10**9, f"b{number}"),
            )
        store.builds.add("now", {})

        def chosen(*filters: str) -> list[str]:
            matches = parse_filters(filters)
            return [found.ref for found in history.records(store) if matches(found)]

        assert chosen() == ["now", "b0", "b1", "b2"]
        assert chosen("ref=b1") == ["b1"]
        assert chosen("status=running") == ["now"]
        assert chosen("status=error", "status=canceled") == ["b1", "b2"]
        assert chosen("status!=running,startedAt>2h30m") == ["b0", "b1"]
        assert chosen("startedAt<=90m") == ["b1", "b2"]
        assert chosen("completedAt<2h") == ["b2"]
        assert chosen("startedAt>=2000-01-01T00:00:00Z,duration>=2m") == ["b1", "b2"]
        assert chosen("duration<90s") == ["now", "b0"]
        assert chosen("repository=https://example.com/a.git") == ["b0"]
        assert chosen("repository~=example.com/[ab]") == ["b0", "b1"]
        for wrong in ("status=odd", "colour=red", "ref", "duration=5s", "startedAt>soon", "ref~=("):
            with pytest.raises(PybuildError):
                chosen(wrong)
        told = [(event.action, event.id) for event in store.events.list() if event.kind == "build"]
        assert told[:2] == [("start", "b0"), ("complete", "b0")]
        history.remove(store, ["b0"])
        assert store.events.list()[-1].action == "delete"


def _ends(shown: str) -> list[str]:
    """The lines without those that depend on when the display looked: what was not done yet, and pauses."""
    lines = [line for line in shown.splitlines() if line and not line.endswith("...")]
    return sorted({line for line in lines if f"{line} done" not in lines})


@row("HSY-04")
def test_verbs(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo verbs\n")
    live = command.build(tmp_path, "--no-cache").err
    heads = "table {{.Type}}\t{{.Ref}}\t{{.Created}}\t{{.Completed}}\t{{.Generation}}\t{{.Pinned}}"
    table = command.run("history", "ls", "--limit", "2", "--format", heads).out.splitlines()
    assert table[0].split() == ["TYPE", "BUILD", "ID", "CREATED", "COMPLETED", "GENERATION", "PINNED"]
    kind, ref, created, completed, generation, pinned = table[1].split()
    assert (kind, generation, pinned) == ("complete", "2", "false")
    assert created < completed
    assert command.run("history", "ls", "-q").out.splitlines()[0] == ref
    assert command.run("buildx", "history", "ls", "-q", "--limit", "1").out == f"{ref}\n"
    replayed = command.run("history", "logs", ref[:8]).out
    assert _ends(replayed) == _ends(live)
    raw = command.run("history", "logs", "^0", "--progress=rawjson").out.splitlines()
    assert all(set(json.loads(line)) <= {"vertexes", "statuses", "logs", "warnings"} for line in raw)
    assert (
        command.run("history", "inspect", "^0", "--format", "{{.Ref}} {{.Status}}").out
        == f"{ref} completed\n"
    )
    text = command.run("history", "inspect").out
    assert re.search(rf"^Ref: +{ref}$", text, re.MULTILINE)
    definition = command.run("history", "inspect", "attachment", ref).out.splitlines()
    assert any("echo verbs" in line for line in definition)
    assert all(json.loads(line)["Digest"] for line in definition)
    command.run("history", "pin", ref)
    command.run("history", "rm", "--all")
    assert command.run("history", "ls", "-q").out == f"{ref}\n"
    command.run("history", "unpin", ref)
    assert "build history" not in command.run("history", "rm", ref).out
    for words in (("inspect",), ("logs", "^3"), ("rm", "nothing"), ("inspect", "^x"), ("rm",), ("export",)):
        assert command.run("history", *words, status=2).err.startswith("pybuild: ")
    assert "is not a pybuild command" in command.run("builder", "history", "odd", status=2).err


@row("HSY-04")
def test_images_of_the_names_of_verbs_are_reached(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nLABEL is=image\n")
    command.build(tmp_path, "-t", "ls", "-t", "plainname")
    for words in (("history", "--", "ls"), ("image", "history", "ls"), ("history", "plainname")):
        assert "LABEL is=image" in command.run(*words).out
    assert "LABEL" not in command.run("history", "ls").out


@row("HSY-05")
def test_retention(lab: Lab, tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        for number in range(6):
            store.builds.add(f"b{number}", {})
            Path(store.builds.directory(f"b{number}"), "log").write_bytes(b"")
            store.builds.finish(f"b{number}", "completed", {})
        store.builds.pin("b0")
        left = ["b5", "b4", "b3", "b2", "b1", "b0"]
        store.builds.forget_old(2, time.time_ns() - 3600 * 10**9)  # many, but young
        assert [row.id for row in store.builds.list()] == left
        store.db.run("UPDATE builds SET created_ns=created_ns-?", (2 * 3600 * 10**9,))
        store.builds.forget_old(10, time.time_ns() - 3600 * 10**9)  # old, but few
        assert [row.id for row in store.builds.list()] == left
        store.builds.forget_old(2, time.time_ns() - 3600 * 10**9)
        assert [row.id for row in store.builds.list()] == ["b5", "b4", "b0"]
        assert sorted(os.listdir(tmp_path / "root/history")) == ["b0", "b4", "b5"]
    root = lab.context()
    assert HistoryLimits() == (50, 48 * 3600)
    lab.build(root, "FROM busybox\nRUN echo old\n", build_id="old-one")
    lab.store.db.run("UPDATE builds SET created_ns=1 WHERE id='old-one'")
    lab.build(root, history=HistoryLimits(1, 60))  # recalled: it looks, too
    assert lab.store.builds.get("old-one") is None


@row("HSY-06")
def test_record_in_the_references_form(lab: Lab) -> None:
    root = lab.context()
    lab.build(
        root, "FROM busybox\nARG V\nRUN echo hsy6\n", build_args=(("V", "1"),), platforms=("linux/amd64",)
    )
    found = record(lab)
    wire = list(fields(record_message(found, {"mediaType": "m", "digest": "d", "size": 3})))
    got: dict[int, Any] = dict(wire)
    assert (got[1], got[2]) == (found.ref.encode(), b"dockerfile.v0")
    attrs = [dict(fields(value)) for field, value in wire if field == 3]  # type: ignore[arg-type]
    assert {1: b"build-arg:V", 2: b"1"} in attrs
    assert dict(fields(got[4]))[1] == b"image"
    assert (time_of(got[6]), time_of(got[7])) == (found.created_ns, found.completed_ns)
    assert dict(fields(got[8])) == {1: b"m", 2: b"d", 3: 3}
    assert any(dict(fields(value))[1] == b"containerimage.digest" for field, value in wire if field == 9)  # type: ignore[arg-type]
    assert dict(fields(dict(fields(got[10]))[1]))[2] == found.data["digest"].encode()  # type: ignore[arg-type]
    assert dict(fields(got[11]))[1] == b"linux/amd64"
    assert (got[12], got[16], got[17]) == (2, found.count("total"), found.count("completed"))
    assert got.get(15, 0) == found.count("cached")
    with pytest.raises(PybuildError):
        lab.build(root, FAILING)
    error = dict(fields(dict(fields(record_message(record(lab))))[5]))  # type: ignore[arg-type]
    assert error[1] == 2
    assert b"exit code: 7" in error[2]  # type: ignore[operator]


@row("HSY-04", "HSY-06")
def test_the_archive_is_an_oci_layout(lab: Lab) -> None:
    lab.quick("FROM busybox\nRUN echo archive\n")
    out = io.BytesIO()
    bundle(lab.store, [record(lab)], out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]

    def blob(descriptor: dict[str, Any]) -> bytes:
        data = content["blobs/" + descriptor["digest"].replace(":", "/")]
        assert len(data) == descriptor["size"]
        return data

    (entry,) = json.loads(content["index.json"])["manifests"]
    assert entry["annotations"]["vnd.buildkit.history.reference"] == record(lab).ref
    manifest = json.loads(blob(entry))
    assert json.loads(blob(manifest["config"]))["ref"] == record(lab).ref
    wire, log, definition, _trace, _provenance = manifest["layers"]
    assert dict(fields(blob(wire)))[1] == record(lab).ref.encode()
    assert list(Frames().feed(blob(log))) == logged(lab, record(lab))
    assert b"echo archive" in blob(definition)
