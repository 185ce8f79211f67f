"""User and group id maps: ranges given to a user, and how they are written into a user namespace."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_LAST_ID = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class IdRange:
    """``size`` ids from ``inside`` in the namespace are those from ``outside`` on."""

    inside: int
    outside: int
    size: int

    def __post_init__(self) -> None:
        if min(self.inside, self.outside) < 0 or self.size < 1:
            raise ValueError(f"not an id range: {self}")
        if max(self.inside, self.outside) + self.size - 1 > _LAST_ID:
            raise ValueError(f"id range past the last id: {self}")


@dataclass(frozen=True, slots=True)
class IdMap:
    """Ranges that do not overlap; maps in both directions."""

    ranges: tuple[IdRange, ...]

    def __post_init__(self) -> None:
        for first, second in _pairs(sorted(self.ranges, key=lambda r: r.inside)):
            if first.inside + first.size > second.inside:
                raise ValueError("id ranges overlap inside")
        for first, second in _pairs(sorted(self.ranges, key=lambda r: r.outside)):
            if first.outside + first.size > second.outside:
                raise ValueError("id ranges overlap outside")

    def to_outside(self, inside: int) -> int | None:
        """The id outside, or None when it has none."""
        for r in self.ranges:
            if r.inside <= inside < r.inside + r.size:
                return r.outside + inside - r.inside
        return None

    def to_inside(self, outside: int) -> int | None:
        """The id inside, or None when it has none."""
        for r in self.ranges:
            if r.outside <= outside < r.outside + r.size:
                return r.inside + outside - r.outside
        return None

    def text(self) -> str:
        """As ``/proc/<pid>/uid_map`` takes it."""
        return "".join(f"{r.inside} {r.outside} {r.size}\n" for r in self.ranges)

    def arguments(self) -> list[str]:
        """As newuidmap takes it."""
        return [str(n) for r in self.ranges for n in (r.inside, r.outside, r.size)]


def _pairs(ranges: list[IdRange]) -> list[tuple[IdRange, IdRange]]:
    return list(pairwise(ranges))


def single(outside: int) -> IdMap:
    """Only root, who is the caller."""
    return IdMap((IdRange(0, outside, 1),))


def with_ranges(outside: int, granted: tuple[tuple[int, int], ...]) -> IdMap:
    """Root is the caller; the ids from 1 on are the granted (start, size) ranges, one after the other."""
    ranges = [IdRange(0, outside, 1)]
    inside = 1
    for start, size in granted:
        if start <= outside < start + size:
            continue  # the caller's own id cannot be mapped twice
        ranges.append(IdRange(inside, start, size))
        inside += size
    return IdMap(tuple(ranges))


def subordinate(path: Path, uid: int, name: str) -> tuple[tuple[int, int], ...]:
    """The (start, size) ranges that ``/etc/subuid`` or ``/etc/subgid`` grants to a user, by name or
    number."""
    found = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        start, _, size = rest.partition(":")
        if owner in {name, str(uid)} and start.isdigit() and size.isdigit() and int(size) > 0:
            found.append((int(start), int(size)))
    return tuple(found)


def current(pid: str = "self", kind: str = "uid") -> IdMap:
    """The map of a running process (``kind`` is uid or gid)."""
    text = Path(f"/proc/{pid}/{kind}_map").read_text(encoding="ascii")
    rows = [tuple(int(n) for n in line.split()) for line in text.splitlines()]
    return IdMap(tuple(IdRange(a, b, min(n, _LAST_ID + 1 - max(a, b))) for a, b, n in rows))
