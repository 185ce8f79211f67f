"""A start and an end without what a short-lived process has no use for; most verbs take half as long.

* The collector would run dozens of times over modules and classes that never become garbage.
* The standard library imports modules for what we never ask of it: inspect, with ast, dis and tokenize
  behind it, and copy for dataclasses, ntpath and urllib.parse for pathlib, datetime in Python for sqlite3. A
  stand-in takes the place of each and turns into the real module when somebody asks it for anything.
* dataclasses compiles six methods for every class at import, most of which nobody calls in one run: each is
  compiled by its first call instead.
* At the end everything is closed and flushed; taking the interpreter apart is left to the kernel.

All of it is for a process of our own (``cli.main.main`` without arguments), never for a library's user.
"""

from __future__ import annotations

import _thread
import gc
import importlib
import os
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_GC_THRESHOLD = 50_000
_KNOWN_VERSIONS = ((3, 11), (3, 12))
_LATER = ("copy", "inspect", "ntpath")
_lock = _thread.allocate_lock()


class _Later(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        with _lock:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def start_lean() -> None:
    """For a process of our own: fewer garbage collections, and stand-ins for what is hardly ever used."""
    gc.set_threshold(_GC_THRESHOLD)
    for name in _LATER:
        if name not in sys.modules:
            sys.modules[name] = _Later(name)
    if sys.version_info[:2] == (3, 11) and "datetime" not in sys.modules:
        import _datetime  # type: ignore[import-not-found]  # whose names are all that datetime has in the end

        sys.modules["datetime"] = _datetime


def import_pathlib() -> None:
    """pathlib, without urllib.parse and ipaddress: it wants one function of them, for ``Path.as_uri``."""
    if "pathlib" in sys.modules or "urllib.parse" in sys.modules:
        return
    later = types.ModuleType("urllib.parse")
    later.quote_from_bytes = _quote_from_bytes  # type: ignore[attr-defined]
    sys.modules["urllib.parse"] = later
    try:
        import pathlib  # noqa: F401
    finally:
        del sys.modules["urllib.parse"]


def _quote_from_bytes(data: bytes, safe: str | bytes = "/") -> str:
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(data, safe)


def postpone_methods() -> None:
    """Let dataclasses compile the methods of a class when they are called, and look at annotations quickly.

    It replaces private functions of the standard library, so it does so only where those are known.
    """
    import dataclasses

    compile_now = getattr(dataclasses, "_create_fn", None)
    is_type = getattr(dataclasses, "_is_type", None)
    if compile_now is None or is_type is None or sys.version_info[:2] not in _KNOWN_VERSIONS:
        return
    dataclasses._create_fn = _postponed(compile_now)  # type: ignore[attr-defined]
    dataclasses._is_type = _quick(is_type)  # type: ignore[attr-defined]


def _quick(is_type: Callable[..., bool]) -> Callable[..., bool]:
    """Most annotations cannot be ClassVar or InitVar, which can be seen without a regular expression."""

    def quick(annotation: str, *rest: Any) -> bool:
        return ("Var" in annotation or "KW_ONLY" in annotation) and is_type(annotation, *rest)

    return quick


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
