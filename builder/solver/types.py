"""What passes between the solver's parts: results, cancellation, and what steps need from outside."""

from __future__ import annotations

from dataclasses import dataclass, field

from builder.solver.cancel import Cancel

__all__ = ["Cancel", "Result", "Secret", "SnapshotId", "SshAgent"]

SnapshotId = str


@dataclass(frozen=True, slots=True)
class Result:
    """What a vertex gave: one committed snapshot per output; None is an empty tree."""

    outputs: tuple[SnapshotId | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret's value; never printed, hashed or stored."""

    id: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAgent:
    """A forwarded ssh agent: the socket to pass on."""

    id: str
    socket: str
