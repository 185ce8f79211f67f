"""What is written of a build beside the display: ``--trace FILE`` (every event as a line of JSON) and
``--debug-json-cache-metrics FILE`` (what came from the cache, as one).
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from typing import TextIO

from builder.errors import UsageError
from builder.pipes import for_writing
from builder.solver.progress import Event, OnEvent, VertexEvent
from cli.files import named
from cli.flags import Args
from cli.render.rawjson import RawJsonRenderer

TRACE, METRICS = "trace", "debug-json-cache-metrics"
_FROM = re.compile(r"\[.*\] FROM")


@contextmanager
def watched(args: Args, display: OnEvent) -> Iterator[OnEvent]:
    """What to give a build as its watcher; raises UsageError when a file cannot be made."""
    with ExitStack() as stack:
        told: list[Callable[[Event], None]] = [display]
        if path := args.text(TRACE):
            file = stack.enter_context(_file(path, TRACE))
            renderer = RawJsonRenderer(file)
            told.append(lambda event: renderer.show((event,), time.time_ns()))
        if path := args.text(METRICS):
            metrics = CacheMetrics()
            file = _stream(path) or stack.enter_context(_file(path, METRICS))
            stack.callback(metrics.write, file)
            told.append(metrics.add)
        lock = threading.Lock()
        over = False

        def watch(event: Event) -> None:
            display(event)
            with lock:
                for tell in () if over else told[1:]:
                    tell(event)

        try:
            yield watch
        finally:
            with lock:
                over = True


def _stream(path: str) -> TextIO | None:
    """The two names that are no files."""
    return {"stdout": sys.stdout, "stderr": sys.stderr}.get(path)


def _file(path: str, flag: str) -> TextIO:
    try:
        return TextIOWrapper(named(path, path, for_writing), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--{flag} {path}: {error.strerror}") from error


class CacheMetrics:
    """buildctl's numbers. A user's steps are those that are not ``[internal]``; base images are no hits."""

    def __init__(self) -> None:
        self._began_ns = time.monotonic_ns()
        self._vertices: dict[str, VertexEvent] = {}

    def add(self, event: Event) -> None:
        """Take in how a step stands now."""
        if isinstance(event, VertexEvent):
            self._vertices[event.digest] = event

    def write(self, file: TextIO) -> None:
        """Write one line of JSON."""
        every = self._vertices.values()
        user = [step for step in every if not step.name.startswith("[internal]")]
        bases = sum(_FROM.match(step.name) is not None for step in user)
        cached = sum(step.cached and _FROM.match(step.name) is None for step in user)
        found = {
            "total": len(every),
            "completed": sum(step.completed_ns is not None for step in every),
            "user_total": len(user),
            "user_cached": cached,
            "user_completed": sum(step.completed_ns is not None for step in user),
            "user_cacheable": len(user) - bases,
            "from": bases,
            "miss": len(user) - bases - cached,
            "client_duration_ms": (time.monotonic_ns() - self._began_ns) // 1_000_000,
        }
        file.write(json.dumps(found, separators=(",", ":")) + "\n")
        file.flush()
