"""A start without what is hardly ever used.

The standard library's dataclasses imports inspect, with ast, dis and tokenize behind it, for a docstring that our
classes already have: 4 ms of every call. A stand-in takes its place and turns into the real module when somebody
asks it for anything. The collector would also run dozens of times over modules and classes that never become garbage.
"""

from __future__ import annotations

import gc
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
