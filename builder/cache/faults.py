"""Named points between two durable operations, where a test may stop the process. Nothing happens unless
armed.
"""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None
"""Called with the name of every point that is passed; set by tests only."""


def point(name: str) -> None:
    """Mark a place where a crash must be harmless (docs/formats/store.md lists them)."""
    if hook is not None:
        hook(name)
