"""How much may be kept: limits, policies, and the target that follows from them (GC-04, GC-05, GC-08)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

GB = 1_000_000_000
PASSING = ("type==source.local", "type==exec.cachemount", "type==source.git.checkout")
"""Filters of what is only kept to save a transfer."""
_PASSING_BYTES = 512_000_000
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceLimits:
    """Limits on what the build cache takes, in bytes; 0 = none.

    ``max_used`` is the most it may take, ``min_free`` what must stay free on its disk, ``reserved`` what it
    may take even when the disk is short.
    """

    max_used: int = 0
    min_free: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which rows may go, and how much may stay. All limits zero: everything that matches goes."""

    filters: tuple[str, ...] = ()
    everything: bool = False
    keep_duration_s: float = 0
    max_used: int = 0
    reserved: int = 0
    min_free: int = 0

    @property
    def limited(self) -> bool:
        """Whether there is any limit on size."""
        return bool(self.max_used or self.reserved or self.min_free)


def default_limits(disk_bytes: int) -> SpaceLimits:
    """The reference's limits for a disk of this size."""
    return SpaceLimits(
        max_used=min(share(disk_bytes, 80), 100 * GB),
        reserved=min(share(disk_bytes, 10), 10 * GB),
        min_free=share(disk_bytes, 20),
    )


def default_policies(disk_bytes: int, limits: SpaceLimits | None = None) -> tuple[Policy, ...]:
    """The reference's policies (GC-05), with ``limits`` in place of its own."""
    cap = limits or default_limits(disk_bytes)
    any_of_it = Policy(max_used=cap.max_used, reserved=cap.reserved, min_free=cap.min_free)
    return (
        Policy(filters=PASSING, keep_duration_s=48 * 3600, max_used=_PASSING_BYTES),
        replace(any_of_it, keep_duration_s=60 * 86400),
        any_of_it,
        replace(any_of_it, everything=True),
    )


def keep_target(policy: Policy | SpaceLimits, total: int, free: int) -> int:
    """How many bytes may stay when ``total`` are used and ``free`` are free on the disk (GC-04)."""
    if not (policy.max_used or policy.reserved or policy.min_free):
        return 0
    keep = policy.max_used or _NO_LIMIT
    if policy.min_free > free:
        keep = min(keep, total - (policy.min_free - free))
    return max(keep, policy.reserved, 0)


def share(disk_bytes: int, percent: float) -> int:
    """A share of a disk, rounded up to whole gigabytes."""
    return -int(-disk_bytes * percent // 100 // GB) * GB


def disk(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and free bytes of the disk that ``path`` is on."""
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


def size_text(size: int) -> str:
    """A size in decimal units, as ``du`` shows it."""
    value, unit = float(size), 0
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    while unit < len(units) - 1 and float(f"{value:.4g}") >= 1000:
        value, unit = value / 1000, unit + 1
    return f"{value:.4g}{units[unit]}"
