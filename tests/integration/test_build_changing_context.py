"""A context that changes while it is copied: the build ends, and nothing is remembered under a wrong key (SLO-06)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build import BuildRequest, BuildResult, build
from builder.solver.progress import Event, VertexEvent, WarningEvent
from cli.machine import LazyMachine
from tests.support.buildlab import Built, Lab

pytestmark = pytest.mark.root
TEXT = "FROM busybox\nCOPY data /data\nRUN cp /data /seen\n"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


def build_while_changing(lab: Lab, context: Path, seen: list[Event]) -> BuildResult:
    """Build, and rewrite the file between the making of the keys and the copy."""

    def watch(event: Event) -> None:
        seen.append(event)
        if isinstance(event, VertexEvent) and "COPY" in event.name and event.completed_ns is None:
            (context / "data").write_text("changed meanwhile\n")

    machine = LazyMachine()
    try:
        request = BuildRequest(context=str(context), network="none")
        return build(lab.store, request, on_event=watch, machine=machine.machine())
    finally:
        machine.close()


def test_the_next_build_runs_the_step_again_and_is_right(lab: Lab) -> None:
    context = lab.context({"data": "as it was\n", "Dockerfile": TEXT})
    seen: list[Event] = []
    build_while_changing(lab, context, seen)
    warned = [event.short for event in seen if isinstance(event, WarningEvent)]
    assert any("changed while it was copied" in text for text in warned)

    (context / "data").write_text("as it was\n")
    again = Built(lab, lab.build(context))
    assert [step.partition("] ")[2].split()[0] for step in lab.steps_run()] == ["COPY", "RUN"]
    assert again.read("seen") == "as it was\n"

    assert lab.build(context).image_id == again.result.image_id
    assert lab.steps_run() == []
