"""Noting that a container has ended: the ``die`` event, ``oom``, and removal when it is auto-remove
(LIF-MON).

Whoever sees the end first does it: the foreground command that owns the session, the helper that a monitor
starts when nobody owned it (``main``), or the next command that lists containers. Each end is noted once.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from builder.cache.store import Store
from builder.containers import document
from builder.containers.lookup import current, find
from builder.containers.types import Container
from runtime.errors import PybuildError

_NOTED = "ended"


def settle(store: Store, ref: str, *, removes: bool = True) -> None:
    """Note the end of a container that has stopped; one that runs is left alone. Who holds its lock and
    removes it afterwards says ``removes=False``.
    """
    try:
        container = find(store, ref)
    except PybuildError:
        return  # somebody else has removed it
    _settle(store, container, removes=removes)


def settle_all(store: Store) -> None:
    """Finish what monitors and starters that died left undone."""
    for row in store.containers.list():
        container = current(store, row)
        if container.state.status == "exited":
            _settle(store, container)


def _settle(store: Store, container: Container, *, removes: bool = True) -> None:
    if container.state.status not in ("exited", "restarting"):
        return
    if _claim(container):
        found = container.state
        attributes = document.event_attributes(container.row, exitCode=str(found.exit_code))
        if found.oom_killed:
            store.events.add("container", "oom", container.id, attributes)
        store.events.add("container", "die", container.id, attributes)
    if removes and container.data["HostConfig"]["AutoRemove"] and container.state.status == "exited":
        from builder.containers.lifecycle import remove

        try:
            remove(store, container.id, volumes=True)
        except PybuildError:
            pass  # started again, or removed by somebody else


def _claim(container: Container) -> bool:
    """True for the first who notes this end; the mark is the time of the end."""
    mark = container.state.finished_at
    path = container.directory / f"{_NOTED}-{mark}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    with suppress(FileNotFoundError):  # somebody removes the container
        for name in os.listdir(container.directory):
            if name.startswith(f"{_NOTED}-") and name != path.name:
                (container.directory / name).unlink(missing_ok=True)
    return True


def main(root: str, container_id: str) -> None:
    """What a monitor runs when a container ended without an owner. A state directory that was moved or
    removed meanwhile is not made anew.
    """
    if os.path.isdir(f"{root}/containers/{container_id}"):
        with Store.open(Path(root)) as store:
            settle(store, container_id)
