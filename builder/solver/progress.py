"""Progress events: what a build tells its watchers (row PRG-01). Values only; any thread may emit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexEvent:
    """A step's state; ``started_ns``/``completed_ns`` are wall-clock Unix times, None = not yet."""

    digest: str
    name: str
    inputs: tuple[str, ...] = ()
    started_ns: int | None = None
    completed_ns: int | None = None
    cached: bool = False
    error: str = ""
    cancelled: bool = False
    progress_group: str = ""
    progress_weak: bool = False
    """Alone, such members do not make their group appear (PRG-08)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvent:
    """Progress of one part of a step: ``id`` is what is shown, with ``name``, what is being done, after it;
    ``total`` 0 = unknown, both in bytes.
    """

    vertex: str
    id: str
    name: str = ""
    current: int = 0
    total: int = 0
    timestamp_ns: int = 0
    started_ns: int | None = None
    completed_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """Output of a step's command; stream 1 = stdout, 2 = stderr."""

    vertex: str
    data: bytes
    stream: Literal[1, 2] = 1
    timestamp_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningEvent:
    """Something the user should know that does not stop the build."""

    vertex: str
    short: str
    detail: tuple[str, ...] = ()
    url: str = ""
    filename: str = ""
    start_line: int = 0
    end_line: int = 0


Event = VertexEvent | StatusEvent | LogEvent | WarningEvent
OnEvent = Callable[[Event], None]
