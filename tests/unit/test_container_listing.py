"""What ``ps`` says about containers, and times as people write them."""

from __future__ import annotations

import pytest

from builder.containers.listing import duration_text, status_text
from builder.containers.logreading import moment, tail_count
from builder.containers.types import BadOption
from builder.containers.usage import Sample, cpu_percent
from runtime.state import State

SECOND = 1_000_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (0, "Less than a second"),
        (SECOND, "1 second"),
        (59 * SECOND, "59 seconds"),
        (MINUTE, "About a minute"),
        (3 * MINUTE, "3 minutes"),
        (HOUR, "About an hour"),
        (47 * HOUR, "47 hours"),
        (3 * DAY, "3 days"),
        (21 * DAY, "3 weeks"),
        (90 * DAY, "3 months"),
        (800 * DAY, "2 years"),
        (-5, "Less than a second"),
    ],
)
def test_durations(span: int, text: str) -> None:
    assert duration_text(span) == text


def test_status_texts() -> None:
    """IO-PS-4."""
    at = "1970-01-01T00:01:00.000000000Z"
    now = 4 * MINUTE
    assert status_text(State(), now) == "Created"
    assert status_text(State(status="running", started_at=at), now) == "Up 3 minutes"
    assert status_text(State(status="paused", started_at=at), now) == "Up 3 minutes (Paused)"
    assert (
        status_text(State(status="exited", exit_code=10, finished_at=at), now) == "Exited (10) 3 minutes ago"
    )
    assert status_text(State(status="restarting", exit_code=1, finished_at=at), now).startswith(
        "Restarting (1)"
    )
    assert status_text(State(status="dead"), now) == "Dead"


def test_moments() -> None:
    """IO-LOGS-1."""
    assert moment("10m", now_ns=HOUR) == 50 * MINUTE
    assert moment("1h30m", now_ns=2 * HOUR) == 30 * MINUTE
    assert moment("5") == 5 * SECOND
    assert moment("1970-01-01T00:00:05Z") == 5 * SECOND
    with pytest.raises(BadOption):
        moment("yesterday")
    assert tail_count("5") == 5
    assert tail_count("all") is None
    assert tail_count("-1") is None


def test_cpu_share() -> None:
    before = Sample(
        read_ns=0, cpu_ns=0, system_cpu_ns=0, cpus=2, memory=0, limit=1, received=0, sent=0,
        blocks_read=0, blocks_written=0, pids=1,
    )  # fmt: skip
    from dataclasses import replace

    assert cpu_percent(before, replace(before, cpu_ns=SECOND, system_cpu_ns=2 * SECOND)) == 100.0
    assert cpu_percent(before, before) == 0.0
