"""Running a shell where a step of a build stood, on our terminal or on whatever our streams are."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from builder.build.failed import KeptStep
from builder.build.failedshell import ShellRequest, step_shell
from builder.solver.types import Secret, SshAgent
from cli.app import App, is_terminal
from cli.render.text import printable

if TYPE_CHECKING:
    from runtime.launcher import Launcher, RunHandle

_CHUNK = 65536


def run_shell(
    app: App,
    step: KeptStep,
    *,
    command: tuple[str, ...] = (),
    secrets: tuple[Secret, ...] = (),
    ssh: tuple[SshAgent, ...] = (),
) -> int:
    """Run ``command``, or a shell, where ``step`` stood; its exit status. With a terminal as our input it has
    one of its own, else it reads what we would have read.
    """
    terminal = is_terminal(0)
    request = ShellRequest(
        step=step,
        command=command,
        terminal=terminal,
        term=app.settings.env("TERM") or "xterm",
        secrets=secrets,
        ssh=ssh,
    )
    with step_shell(app.store, app.machine, request) as (spec, notes):
        for note in notes:
            app.note(f"pybuild: {printable(note)}")
        if terminal and not command:
            app.note(
                f"pybuild: in {printable(step.name)}; changes are thrown away at the end (exit or Ctrl-D)"
            )
        app.flush()
        launcher = cast("Launcher", app.machine.executor())
        handle = launcher.run(spec, stdin=0, stdout=1, stderr=2)
        try:
            if handle.terminal is not None:
                _couple(handle, handle.terminal)
            return handle.wait().shell_code
        except BaseException:
            handle.kill()
            handle.wait()
            raise


def _couple(handle: RunHandle, master: int) -> None:
    """Pass bytes between our terminal and the command's until the command has ended."""
    try:
        with _raw(0), _resizing(master):
            poll = select.poll()
            poll.register(0, select.POLLIN)
            poll.register(master, select.POLLIN)
            while True:
                for fd, event in poll.poll():
                    data = _read(fd) if event & (select.POLLIN | select.POLLHUP) else b""
                    if fd == master and not data:
                        return
                    if fd == 0 and not data:
                        poll.unregister(0)
                        handle.kill(signal.SIGHUP)
                        continue
                    _write(1 if fd == master else master, data)
    finally:
        os.close(master)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:  # a terminal whose other side is closed
        return b""


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _resizing(master: int) -> Iterator[None]:
    """The command's terminal is as large as ours."""

    def fit(*_: object) -> None:
        try:
            size = os.get_terminal_size(0)
        except OSError:
            return
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", size.lines, size.columns, 0, 0))

    fit()
    before = signal.signal(signal.SIGWINCH, fit)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
