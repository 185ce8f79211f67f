"""Running a program that a cancelled build does not wait for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from builder import cancelling

_GRACE_S = 0.5


def run_stoppable(command: Sequence[str], *, cwd: Path, env: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Run a command to its end: its exit status, output and error output.

    It gets a session of its own, so that a terminal's Ctrl-C reaches it through us only, and no input. When
    the build is cancelled, it and what it started are asked to end, killed half a second later, and Cancelled
    is raised. Raises FileNotFoundError.
    """
    import subprocess

    cancelling.check()
    cancel = cancelling.current()
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        umask=0o022,
        start_new_session=True,
    ) as process:
        ended = threading.Event()
        forget = cancel.on_set(lambda: _end(process.pid, ended)) if cancel is not None else None
        try:
            out, err = process.communicate()
        except BaseException:
            _signal(process.pid, signal.SIGKILL)
            raise
        finally:
            ended.set()
            if forget is not None:
                forget()
    cancelling.check()
    return process.returncode, out, err


def _end(group: int, ended: threading.Event) -> None:
    """Ask at once, and kill later without keeping the caller."""
    _signal(group, signal.SIGTERM)

    def kill() -> None:
        if not ended.wait(_GRACE_S):
            _signal(group, signal.SIGKILL)

    threading.Thread(target=kill, name="end-command", daemon=True).start()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return
