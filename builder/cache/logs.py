"""What builds left in ``history/<id>/``: how much, and its removal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.cache.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """The directories of all builds together; ``removable`` when none of them is running or pinned."""

    count: int
    size: int
    created_ns: int
    last_used_ns: int
    removable: bool


def logs(store: Store) -> Logs | None:
    """What there is; None when there is nothing."""
    from builder.cache.measure import disk_usage

    top = f"{store.root}/history"
    names = _names(top)
    if not names:
        return None
    times = [_time(f"{top}/{name}") for name in names]
    return Logs(
        count=len(names),
        size=sum(disk_usage(f"{top}/{name}") for name in names),
        created_ns=min(times),
        last_used_ns=max(times),
        removable=bool(set(names) - _needed(store)),
    )


def remove_logs(store: Store) -> None:
    """Remove the directories of builds that are over and not pinned; their records stay."""
    from builder.cache.removal import discard_path

    needed = _needed(store)
    for name in _names(f"{store.root}/history"):
        if name not in needed:
            discard_path(f"{store.root}/history/{name}", f"{store.root}/tmp")


def _needed(store: Store) -> set[str]:
    from builder.cache.history import history_path

    rows = store.db.all("SELECT id FROM builds WHERE status='running' OR pinned<>0")
    return {history_path(row[0]).rpartition("/")[2] for row in rows}


def _names(top: str) -> list[str]:
    try:
        return sorted(os.listdir(top))
    except FileNotFoundError:
        return []


def _time(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0
