"""Running a step's container: its output as it comes, its end, and what may end it early."""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from builder.solver.env import RunHandle, SolveEnv
from builder.solver.reporter import Reporter
from runtime.errors import ContainerError
from runtime.spec import ContainerSpec, ExitStatus


def run_container(spec: ContainerSpec, env: SolveEnv, reporter: Reporter) -> tuple[ExitStatus, bool]:
    """Start, stream the output until both ends are closed, wait; a cancelled build kills the container.

    The status, and whether the container was killed because its time was over.
    """
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    readers: dict[int, Literal[1, 2]] = {out_read: 1, err_read: 2}
    try:
        try:
            handle = env.executor().run(spec, stdin=None, stdout=out_write, stderr=err_write)
        except ValueError as error:
            raise ContainerError(f"invalid container specification: {error}", code="invalid-spec") from error
        finally:
            os.close(out_write)
            os.close(err_write)
        for warning in getattr(handle, "warnings", ()):
            reporter.warn(f"RUN: {warning}")
        forget = env.cancel.on_set(handle.kill)
        try:
            with _deadline(handle, env.step_timeout_s) as over:
                _stream(readers, reporter)
                status = handle.wait()
            if env.on_usage is not None:
                env.on_usage(reporter.vertex, getattr(handle, "usage", ()))
            return status, over.is_set()
        except BaseException:
            handle.kill()
            raise
        finally:
            forget()
    finally:
        os.close(out_read)
        os.close(err_read)


def _stream(readers: dict[int, Literal[1, 2]], reporter: Reporter) -> None:
    with selectors.DefaultSelector() as selector:
        for fd in readers:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if data:
                    reporter.log(readers[key.fd], data)
                else:
                    selector.unregister(key.fd)


@contextmanager
def _deadline(handle: RunHandle, seconds: float) -> Iterator[threading.Event]:
    """Kill the container after ``seconds``, unless that is 0; the event says that it was."""
    over = threading.Event()

    def end() -> None:
        over.set()
        handle.kill()

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end) if seconds > 0 else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield over
    finally:
        if timer is not None:
            timer.cancel()
