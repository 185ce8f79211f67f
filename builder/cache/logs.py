"""What builds left in ``history/<id>/``: how much, and its removal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.cache.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """The directories of several builds together; ``needed`` are those of running and of pinned ones."""

    needed: bool
    count: int
    size: int
    created_ns: int
    last_used_ns: int


def logs(store: Store) -> tuple[Logs, ...]:
    """What there is: what may go, and what is needed."""
    from builder.cache.measure import disk_usage

    top = f"{store.root}/history"
    names = _names(top)
    if not names:
        return ()
    kept = _needed(store)
    found = []
    for needed in (False, True):
        group = [name for name in names if (name in kept) == needed]
        times = [_time(f"{top}/{name}") for name in group]
        if group:
            size = sum(disk_usage(f"{top}/{name}") for name in group)
            found.append(
                Logs(
                    needed=needed,
                    count=len(group),
                    size=size,
                    created_ns=min(times),
                    last_used_ns=max(times),
                )
            )
    return tuple(found)


def remove_logs(store: Store, until_ns: int) -> None:
    """Remove the directories, last changed up to then, of builds that are over and not pinned; their records
    stay.
    """
    from builder.cache.removal import discard_path

    top = f"{store.root}/history"
    names = [name for name in _names(top) if _time(f"{top}/{name}") <= until_ns]
    needed = _needed(store)  # after the names: a build has its row before its directory
    for name in names:
        if name not in needed:
            discard_path(f"{top}/{name}", f"{store.root}/tmp")


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
