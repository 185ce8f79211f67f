"""How long steps took in the last builds, to start first what the others will wait for longest."""

from __future__ import annotations

from builder.build.report import reports
from builder.cache.store import Store
from builder.errors import PybuildError

_BUILDS = 5


def step_seconds(store: Store) -> dict[str, float]:
    """Seconds by name of every step that ran lately; the newest build counts."""
    found: dict[str, float] = {}
    try:
        for report in reports(store, limit=_BUILDS):
            for step in report.steps:
                if step.status == "ran" and step.name not in found:
                    found[step.name] = step.duration_ns / 1e9
    except PybuildError:
        return {}
    return found
