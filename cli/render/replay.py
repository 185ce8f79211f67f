"""Shows a build again from its log: the display sees the events at the times at which they came (HSY-04)."""

from __future__ import annotations

from collections.abc import Iterable

from builder.build.history import event_time
from builder.solver.progress import Event
from cli.render.progress import Renderer

_BATCH_NS = 100_000_000


def replay(events: Iterable[Event], renderer: Renderer) -> None:
    """Feed all events in batches of a tenth of a second, then end the display."""
    batch: list[Event] = []
    first = now = 0
    for event in events:
        now = max(now, event_time(event))
        if batch and now - first >= _BATCH_NS:
            renderer.show(batch, first)
            batch = []
        if not batch:
            first = now
        batch.append(event)
    renderer.show(batch, now)
    renderer.finish(now)
