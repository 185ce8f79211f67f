"""What passes between the solver's parts: results, cancellation, and what steps need from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.solver.cancel import Cancel

if TYPE_CHECKING:
    from builder.cache.types import Active
    from builder.errors import StepFailed
    from builder.llb.definition import Vertex

__all__ = ["Cancel", "FailedStep", "Result", "Secret", "SnapshotId", "SshAgent"]

SnapshotId = str


@dataclass(frozen=True, slots=True)
class Result:
    """What a vertex gave: one committed snapshot per output; None is an empty tree."""

    outputs: tuple[SnapshotId | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedStep:
    """A RUN step that failed: its half-made tree, and the snapshot of each input that it used."""

    vertex: Vertex
    active: Active
    inputs: Mapping[int, SnapshotId | None]
    error: StepFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret's value; never printed, hashed or stored."""

    id: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAgent:
    """A forwarded ssh agent: the socket to pass on. A step may list keys and have things signed, and with
    ``raw`` say anything.
    """

    id: str
    socket: str
    raw: bool = False
