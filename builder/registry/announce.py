"""Telling whoever watches that a token is being asked for (REG-02), or something tried again (REG-05)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

Watcher = Callable[[str], AbstractContextManager[object]]
_watchers: list[Watcher] = []


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Inside, ``watcher`` gets the name of each request for a token, and is entered while it lasts."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@contextmanager
def announced(name: str) -> Iterator[None]:
    """Show ``name`` to all watchers while the body runs."""
    with ExitStack() as stack:
        for watcher in tuple(_watchers):
            stack.enter_context(watcher(name))
        yield


def tell(message: str) -> None:
    """Show that something went wrong and will be tried again."""
    with announced(f"[registry] {message}"):
        pass


def step_name(scopes: Iterable[str], host: str) -> str:
    """``[auth] REPOSITORY:ACTIONS token for HOST``."""
    shown = " ".join(scope.removeprefix("repository:") for scope in scopes)
    return f"[auth] {shown} token for {host}" if shown else f"[auth] token for {host}"
