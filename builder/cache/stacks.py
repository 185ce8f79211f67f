"""Which directories make up a snapshot's tree."""

from __future__ import annotations

from collections.abc import Callable

from builder.cache.db import Database
from builder.cache.names import base36
from builder.errors import StoreError

_REMEMBERED = 2000


class LayerStacks:
    """Walks from a snapshot to the bottom, and remembers: committed trees never change."""

    def __init__(
        self, db: Database, directory: Callable[[int], str], realise: Callable[[str], None] | None = None
    ) -> None:
        self._db = db
        self._directory = directory
        self._realise = realise
        self._known: dict[int, tuple[str, ...]] = {}

    def walk(self, number: int) -> tuple[str, ...]:
        """The directories, topmost first. A native snapshot, or a flattened copy, is the bottom of its
        tree. Lazy ones are made, from the bottom.
        """
        lazy: list[int] = []
        walked: list[int] = []
        below: tuple[str, ...] = ()
        current: int | None = number
        while current is not None:
            row = self._db.one("SELECT parent, driver, flat FROM snapshots WHERE id=?", (current,))
            if row is None:
                raise snapshot_gone(base36(current))
            if (known := self._known.get(current)) is not None:
                below = known
                break
            if row[2] is not None:
                below = (self._directory(row[2]),)
                break
            walked.append(current)
            if row[1] == "lazy":
                lazy.append(current)
            current = None if row[1] == "native" else row[0]
        if lazy:
            for item in reversed(lazy):
                if self._realise is not None:
                    self._realise(base36(item))
            return self.walk(number)
        for item in reversed(walked):
            below = (self._directory(item), *below)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[item] = below
        return below

    def forget(self) -> None:
        """Walk anew: something was flattened."""
        self._known.clear()


def snapshot_gone(snapshot_id: str) -> StoreError:
    """The error for an id that names nothing (any more)."""
    return StoreError(f"snapshot {snapshot_id!r} is not in the store", code="snapshot-missing")
