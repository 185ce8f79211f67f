"""``--trace FILE``: every event of a build as a line of JSON, beside the display."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from builder.errors import UsageError
from builder.solver.progress import Event, OnEvent
from cli.render.rawjson import RawJsonRenderer


@contextmanager
def trace(path: str, display: OnEvent) -> Iterator[OnEvent]:
    """What to give a build as its watcher; raises UsageError when the file cannot be made."""
    try:
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"--trace {path}: {error.strerror}") from error
    lock = threading.Lock()
    renderer = RawJsonRenderer(file)

    def watch(event: Event) -> None:
        display(event)
        with lock:
            if not file.closed:
                renderer.show((event,), time.time_ns())

    with file:
        yield watch
