"""How sources tell what they are doing, without knowing who listens (``solver.reporter.Reporter`` fits)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """One line of progress."""

    def status(self, name: str, current: int = 0, total: int = 0, *, done: bool = False) -> None:
        """Progress of a part, in bytes."""

    def log(self, stream: int, data: bytes) -> None:
        """Output of a command."""


Steps = Callable[[str], AbstractContextManager[Step]]
"""Opens a step of that name; leaving it ends the step, an exception fails it."""


class SilentStep:
    """A step that nobody watches."""

    def status(self, name: str, current: int = 0, total: int = 0, *, done: bool = False) -> None:
        """Nothing."""

    def log(self, stream: int, data: bytes) -> None:
        """Nothing."""


@contextlib.contextmanager
def silent(_name: str) -> Iterator[Step]:
    """``Steps`` that nobody watches."""
    yield SilentStep()
