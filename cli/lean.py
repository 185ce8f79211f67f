"""A start and an end without what a short-lived process has no use for; most verbs take half as long.

* The collector would run dozens of times over modules and classes that never become garbage.
* dataclasses imports inspect, with ast, dis and tokenize behind it, for docstrings that our classes have
  already: a stand-in takes its place and turns into the real module when somebody asks it for anything.
* dataclasses compiles six methods for every class at import, most of which nobody calls in one run: each is
  compiled by its first call instead.
* At the end everything is closed and flushed; taking the interpreter apart is left to the kernel.

All of it is for a process of our own (``cli.main.main`` without arguments), never for a library's user.
"""

from __future__ import annotations

import gc
import os
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_GC_THRESHOLD = 50_000
_KNOWN_VERSIONS = ((3, 11), (3, 12))


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


def postpone_methods() -> None:
    """Let dataclasses compile the methods of a class when they are called.

    It replaces a private function of the standard library, so it does so only where that is known.
    """
    import dataclasses

    compile_now = getattr(dataclasses, "_create_fn", None)
    if compile_now is not None and sys.version_info[:2] in _KNOWN_VERSIONS:
        dataclasses._create_fn = _postponed(compile_now)  # type: ignore[attr-defined]


def _postponed(compile_now: Callable[..., Any]) -> Callable[..., Any]:
    def create(name: str, *args: Any, **options: Any) -> Callable[..., Any]:
        real: Callable[..., Any] | None = None

        def method(self: Any, *positional: Any, **named: Any) -> Any:
            nonlocal real
            if real is None:
                real = compile_now(name, *args, **options)
            for cls in type(self).__mro__:
                if cls.__dict__.get(name) is method:
                    setattr(cls, name, real)
                    break
            return real(self, *positional, **named)

        method.__name__ = name
        return method

    return create


def leave(status: int) -> None:
    """End the process at once; output must have been flushed. Returns when a tracer wants to see the end."""
    if sys.gettrace() is None and sys.getprofile() is None:
        os._exit(status)
