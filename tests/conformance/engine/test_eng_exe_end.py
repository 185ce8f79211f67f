"""How steps end (EXE-25, EXE-26)."""

from __future__ import annotations

import time

import pytest

from builder.errors import Cancelled, StepFailed
from builder.solver.solver import solve
from builder.solver.types import Cancel
from runtime.launcher import Launcher
from runtime.spec import Limits
from tests.support.buildlab import Lab
from tests.support.rows import row
from tests.support.solving import BASE, definition, env_for, run

pytestmark = pytest.mark.root


@row("EXE-25")
def test_accepted_exit_codes_and_the_message_for_others(lab: Lab) -> None:
    fine = run("exit 7", BASE, meta={"valid_exit_codes": (0, 7)})
    with Launcher.start() as launcher, env_for(lab.store, launcher) as env:
        solve(definition(fine, BASE), env)
        with pytest.raises(StepFailed, match='process "/bin/sh -c exit 8" did not complete successfully: exit code: 8') as caught:  # fmt: skip
            solve(definition(run("exit 8", BASE, meta={"valid_exit_codes": (0, 7)}), BASE), env)
    assert caught.value.exit_code == 8


@row("EXE-25")
def test_the_memory_limit_is_named(lab: Lab) -> None:
    with pytest.raises(StepFailed) as caught:
        lab.build(
            lab.context(),
            "FROM busybox\nRUN head -c 200m /dev/zero | tail\n",
            limits=Limits(memory_bytes=24 << 20, memory_swap_bytes=24 << 20),
        )
    assert caught.value.message.endswith(": cannot allocate memory")
    assert "--memory" in (caught.value.hint or "")


@row("EXE-26")
def test_a_cancelled_container_is_killed_whatever_it_ignores(lab: Lab) -> None:
    import threading

    cancel = Cancel()
    stubborn = run("trap '' TERM INT HUP; echo up; while :; do sleep 1; done", BASE)
    with Launcher.start() as launcher, env_for(lab.store, launcher, cancel=cancel) as env:
        threading.Timer(0.7, cancel.set).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            solve(definition(stubborn, BASE), env)
        assert time.monotonic() - began < 3
    left = lab.store.db.all("SELECT 1 FROM snapshots WHERE kind='active'")
    assert left == []
