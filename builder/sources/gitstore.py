"""What git sources need of the state directory (``cache.store.Store`` fits)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class GitStore(Protocol):
    """What is needed of the state directory."""

    @property
    def root(self) -> Path:
        """Where it is."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """A lock between threads and processes, by name."""
