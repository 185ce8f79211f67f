"""What was begun ends, also when the build is cancelled before any step runs (PRG-03)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.build import BuildRequest, build
from builder.errors import Cancelled, PybuildError
from builder.solver.cancel import Cancel
from builder.solver.progress import Event, StatusEvent, VertexEvent
from cli.render.plain import PlainRenderer
from tests.support.buildlab import Lab
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]


def cancelled(lab: Lab, context: Path, when: Callable[[Event], bool], **more: object) -> list[Event]:
    """The events of a build that is told to stop at the first event that ``when`` names."""
    events: list[Event] = []
    cancel = Cancel()

    def watch(event: Event) -> None:
        events.append(event)
        if when(event):
            cancel.set()

    request = BuildRequest(context=str(context), network="none", **more)  # type: ignore[arg-type]
    with pytest.raises(Cancelled):
        build(lab.store, request, on_event=watch, machine=lab._machine.machine(), cancel=cancel)
    return events


def vertices(events: list[Event]) -> dict[str, VertexEvent]:
    """How each vertex stood at the end, by name."""
    return {event.name: event for event in events if isinstance(event, VertexEvent)}


def shown(events: list[Event]) -> list[str]:
    stream = io.StringIO()
    renderer = PlainRenderer(stream)
    for event in events:
        renderer.show([event], getattr(event, "completed_ns", None) or 0)
    renderer.finish(0)
    return stream.getvalue().splitlines()


def starts(name: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, VertexEvent) and event.name == name and not event.completed_ns


@row("PRG-03")
def test_cancelled_while_planning(lab: Lab) -> None:
    """The first of two contexts was begun, the second perhaps not: none stays open."""
    context, other = lab.context({"f": "1"}), lab.context({"g": "1"})
    (context / "Dockerfile").write_text("FROM busybox\nCOPY f /\nCOPY --from=other g /\nRUN true prg3\n")
    at = starts("[internal] load build context")
    events = cancelled(lab, context, at, build_contexts=(("other", str(other)),))
    found = vertices(events)
    assert found["[internal] load build context"].cancelled
    assert not [event.name for event in found.values() if event.completed_ns is None]
    assert all(event.started_ns for event in found.values())
    lines = shown(events)
    number = next(line.split()[0] for line in lines if "load build context" in line)
    assert f"{number} CANCELED" in lines
    assert not any("RUN true prg3" in line for line in lines)


@row("PRG-03")
def test_cancelled_while_a_context_is_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.sources.transfer._EVERY_NS", 0)
    size = 8 << 20
    context = lab.context({"big": b"x" * size, "Dockerfile": "FROM busybox\nCOPY big /\n"})

    def reading(event: Event) -> bool:
        return isinstance(event, StatusEvent) and event.id == "transferring context:" and event.current > 0

    events = cancelled(lab, context, reading)
    read = [event.current for event in events if isinstance(event, StatusEvent) and reading(event)]
    assert 0 < read[-1] < size, "it stops in the middle of a file"
    found = vertices(events)
    assert found["[internal] load build context"].cancelled
    base = next(event for name, event in found.items() if "FROM " in name) if len(found) > 3 else None
    assert base is None or base.completed_ns
    assert not [event.name for event in found.values() if event.completed_ns is None]
    shown_of = {event.vertex for event in events if isinstance(event, StatusEvent)}
    assert shown_of <= {event.digest for event in found.values()}, "what had a status has an end"


@row("PRG-03")
def test_a_failure_leaves_nothing_open_either(lab: Lab) -> None:
    context = lab.context({"f": "1", "Dockerfile": "FROM busybox\nCOPY f /\nCOPY missing /\n"})
    with pytest.raises(PybuildError):
        lab.build(context)
    found = vertices(lab.watcher.events)
    assert found["[internal] load build context"].completed_ns
    assert not found["[internal] load build context"].cancelled
    statuses = {event.vertex for event in lab.watcher.events if isinstance(event, StatusEvent)}
    assert statuses <= {event.digest for event in found.values() if event.completed_ns}
