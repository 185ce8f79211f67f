"""Cancellation: call-backs run once, late ones at once, taken-back ones never."""

import pytest

from builder.errors import Cancelled
from builder.solver.cancel import Cancel


def test_actions_run_once_when_the_build_is_stopped():
    cancel, seen = Cancel(), []
    cancel.on_set(lambda: seen.append("a"))
    forget = cancel.on_set(lambda: seen.append("b"))
    forget()
    cancel.check()
    cancel.set()
    cancel.set()
    assert seen == ["a"]
    assert cancel.is_set


def test_a_late_action_runs_at_once():
    cancel, seen = Cancel(), []
    cancel.set()
    cancel.on_set(lambda: seen.append("late"))
    assert seen == ["late"]
    with pytest.raises(Cancelled):
        cancel.check()
