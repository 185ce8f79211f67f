"""Finding a container by what a user wrote."""

from __future__ import annotations

from pathlib import Path

from builder.cache.containerstore import ContainerRow
from builder.cache.store import Store
from builder.containers.types import Container
from runtime import state
from runtime.errors import NoSuchContainer
from runtime.state import State


def directory_of(store: Store, container_id: str) -> Path:
    """The directory of a container."""
    return store.root / "containers" / container_id


def find(store: Store, ref: str) -> Container:
    """By id, name or unique beginning of an id, as it is now (CLI-10); NoSuchContainer, InvalidValue."""
    row = store.containers.get(ref)
    if row is None:
        raise NoSuchContainer(f"No such container: {ref}", hint="ps -a lists containers")
    return current(store, row)


def current(store: Store, row: ContainerRow) -> Container:
    """The container of a row as it is now; one whose directory is damaged or gone is dead."""
    directory = directory_of(store, row.id)
    if row.data.get("Root", str(store.root)) != str(store.root):
        from builder.containers.moved import follow

        row = follow(store, row, directory)
    try:
        found = state.observe(directory)
    except NoSuchContainer:
        found = State(status="dead", error="the container's directory is gone")
    return Container(row, directory, found)


def every(store: Store) -> tuple[Container, ...]:
    """All containers, newest first."""
    return tuple(current(store, row) for row in store.containers.list())
