"""Cache mounts as archives: what a machine has gathered in one is handed to another (BET-07)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import StoreError

if TYPE_CHECKING:
    from builder.cache.cachemounts import CacheMount
    from builder.cache.compression import Readable
    from builder.cache.store import Store


def find_mounts(store: Store, name: str) -> tuple[CacheMount, ...]:
    """The instances of an id, or the one that ``du`` lists under ``name``; StoreError when there is none.

    ``RUN --mount=type=cache,id=NAME`` keeps it as ``/NAME``; both are found.
    """
    name = name.removesuffix("*")
    every = store.cache_mounts.list()
    found = tuple(item for item in every if item.id in (name, f"/{name}")) or tuple(
        item for item in every if item.directory == name
    )
    if not found:
        raise StoreError(
            f"there is no cache mount {name!r}",
            hint="pybuild builder mounts ls lists them",
            code="no-such-cache-mount",
        )
    return found


def export_mount(store: Store, name: str, write: Callable[[bytes], object]) -> None:
    """Write a mount's content as a tar archive, equal content to equal bytes; waits until no step uses it."""
    from builder.cache.differ import compare
    from builder.cache.layer import pack
    from builder.cache.tree import View

    mount = find_mounts(store, name)[0]
    with (
        store.cache_mounts.acquire(mount.id, "locked") as directory,
        View(()) as nothing,
        View((directory,), raw=True) as tree,
    ):
        pack(compare(nothing, tree), tree, write)


def import_mount(store: Store, mount_id: str, stream: Readable, *, replace: bool = False) -> None:
    """Make a mount of an archive's content.

    StoreError when there is one with this id: with ``replace`` only when a step uses it.
    """
    from builder.cache.extract import apply
    from builder.cache.tarfields import BadArchive
    from builder.cache.treewriter import Writer

    mount_id = mount_id if "/" in mount_id else f"/{mount_id}"
    existing = [item for item in store.cache_mounts.list() if item.id == mount_id]
    if existing and not replace:
        raise StoreError(
            f"there is a cache mount {mount_id!r} already",
            hint="replace it with --force",
            code="cache-mount-exists",
        )

    def fill(directory: Path) -> None:
        try:
            with Writer(directory) as writer:
                if not apply(stream, writer, whiteouts=False).size:
                    raise StoreError("there is no archive to read: it is empty")
        except BadArchive as error:
            raise BadArchive(
                f"cache mount {mount_id!r}: not a tar archive, or a damaged one: {error.message}",
                context=error.context,
                hint="pybuild builder mounts export makes one",
            ) from error

    with store.staging("mount") as staged:
        (staged / "d").mkdir(mode=0o755)
        fill(staged / "d")
        remove_mounts(store, existing)
        taken: list[bool] = []

        def take(directory: Path) -> None:
            taken.append(True)
            directory.rmdir()
            (staged / "d").rename(directory)

        while True:
            with store.cache_mounts.acquire(mount_id, "locked", fill=take):
                pass
            if taken:
                return
            if not replace:
                raise StoreError(
                    f"cache mount {mount_id!r} was made by a build meanwhile",
                    hint="replace it with --force",
                    code="cache-mount-exists",
                )
            remove_mounts(store, [item for item in store.cache_mounts.list() if item.id == mount_id])


def remove_mounts(
    store: Store, mounts: list[CacheMount] | tuple[CacheMount, ...], *, wait_s: float = 0
) -> None:
    """Remove instances; StoreError when a step uses one of them for longer than ``wait_s``."""
    deadline = time.monotonic() + wait_s
    for mount in mounts:
        while not store.cache_mounts.delete(mount.directory):
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"cache mount {mount.id!r} is in use",
                    hint="a build is running",
                    code="cache-mount-in-use",
                )
            time.sleep(0.05)
