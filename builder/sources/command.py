"""Running a program that a cancelled build does not wait for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from builder import cancelling
from builder.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

_GRACE_S = 0.5


def run_stoppable(command: Sequence[str], *, cwd: Path, env: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Run a command to its end: its exit status, output and error output.

    It gets a session of its own, so that a terminal's Ctrl-C reaches it through us only, and no input. When
    the build is cancelled, it and what it started are asked to end, killed half a second later, and Cancelled
    is raised. Raises FileNotFoundError.
    """
    import subprocess

    cancelling.check()
    with (
        subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            umask=0o022,
            start_new_session=True,
        ) as process,
        _stoppable(process),
    ):
        out, err = process.communicate()
    cancelling.check()
    return process.returncode, out, err


def ask(command: Sequence[str], question: bytes, *, limit: int, timeout_s: float) -> tuple[int, bytes]:
    """Give a command ``question`` as its input: its exit status and its output; its error output is ours.

    Stopped like ``run_stoppable``, and when it has said more than ``limit`` bytes or takes longer than
    ``timeout_s``: UsageError. Raises OSError when it cannot be run.
    """
    import subprocess

    cancelling.check()
    late = threading.Event()
    with (
        _as_input(question) as source,
        subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, umask=0o022, start_new_session=True
        ) as process,
        _stoppable(process) as ended,
    ):

        def too_late() -> None:
            late.set()
            _end(process.pid, ended)

        timer = threading.Timer(timeout_s, too_late)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            out = process.stdout.read(limit + 1)
            if len(out) > limit:
                _signal(process.pid, signal.SIGKILL)
            process.wait()
        finally:
            timer.cancel()
    cancelling.check()
    if late.is_set():
        raise UsageError(f"no answer within {timeout_s:g} seconds")
    if len(out) > limit:
        raise UsageError(f"an answer of more than {limit} bytes")
    return process.returncode, out


@contextmanager
def _as_input(data: bytes) -> Iterator[int]:
    """A descriptor to read ``data`` from; unlike a pipe it never blocks."""
    fd = os.memfd_create("question")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _stoppable(process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """The process ends with the build and with any error; gives what tells that it has ended."""
    cancel = cancelling.current()
    ended = threading.Event()
    forget = cancel.on_set(lambda: _end(process.pid, ended)) if cancel is not None else None
    try:
        yield ended
    except BaseException:
        _signal(process.pid, signal.SIGKILL)
        raise
    finally:
        ended.set()
        if forget is not None:
            forget()


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
