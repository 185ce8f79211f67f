"""A start and an end without what a short-lived process has no use for; a cached build takes half as long.

The standard library's dataclasses imports inspect, with ast, dis and tokenize behind it, for docstrings that
our classes already have: a stand-in takes its place and turns into the real module when somebody asks it for
anything. The collector would run dozens of times over modules and classes that never become garbage. At the
end everything is closed and flushed, and taking the interpreter apart piece by piece is left to the kernel.
"""

from __future__ import annotations

import gc
import os
import sys
import types

_GC_THRESHOLD = 50_000


class _Later(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get("inspect") is self:
            del sys.modules["inspect"]
        import inspect

        return getattr(inspect, name)


def start_lean() -> None:
    """For a process of our own: fewer garbage collections, and no inspect until it is used."""
    gc.set_threshold(_GC_THRESHOLD)
    if "inspect" not in sys.modules and "dataclasses" not in sys.modules:
        sys.modules["inspect"] = _Later("inspect")


def leave(status: int) -> None:
    """End the process at once; output must have been flushed. Returns when a tracer wants to see the end."""
    if sys.gettrace() is None and sys.getprofile() is None:
        os._exit(status)
