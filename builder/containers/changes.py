"""What a container has changed: ``diff``, and its tree as a tar: ``export`` (IO-DIFF-1, IO-DIFF-2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from builder.cache.differ import Change
from builder.cache.store import Store
from builder.cache.tree import View
from builder.containers import document
from builder.containers.initlayer import STUBS
from builder.containers.lookup import find
from builder.containers.trees import below_tree, own_tree
from builder.containers.types import Container
from builder.errors import StoreError

_KINDS: dict[str, Literal["A", "C", "D"]] = {"add": "A", "modify": "C", "delete": "D"}
_NOT_OURS = ("dev", "proc", "sys")


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One line of ``diff``: A, C or D and an absolute path."""

    kind: Literal["A", "C", "D"]
    path: str


def diff(store: Store, ref: str) -> tuple[DiffRow, ...]:
    """What changed in a container; a changed entry's directories show as changed, too."""
    container = find(store, ref)
    rows: dict[str, Literal["A", "C", "D"]] = {}
    for change in changes_of(store, container):
        parent = change.path.rpartition("/")[0]
        while parent and parent not in rows:
            rows[parent] = "C"
            parent = parent.rpartition("/")[0]
        if change.kind in _KINDS:
            rows[change.path] = _KINDS[change.kind]
    return tuple(DiffRow(kind, f"/{path}") for path, kind in sorted(rows.items()))


def changes_of(store: Store, container: Container) -> list[Change]:
    """The changes on top of image and mount points, without what mounts cover (EX-88, VOL-09)."""
    from builder.cache.differ import changes, compare

    if container.row.snapshot is None:
        raise StoreError(f"container {container.name} has no file system", code="snapshot-missing")
    active = store.snapshots.reopen(container.row.snapshot)
    if active.driver == "overlay" and active.lowers:
        found = changes(active.upper, active.lowers, userxattr=active.userxattr)
    else:
        with below_tree(store, container) as old, View((active.upper,)) as new:
            found = compare(old, new)
    hidden = _covered(container)
    return [change for change in found if not hidden(change.path)]


def _covered(container: Container) -> Callable[[str], bool]:
    """Whether a path lies below something that is mounted in the container, and so is not its own."""
    mounts = {entry["Destination"].strip("/") for entry in container.data["Mounts"]}

    def hidden(path: str) -> bool:
        parts = path.split("/")
        if parts[0] in _NOT_OURS:
            return True
        return any("/".join(parts[:count]) in mounts for count in range(1, len(parts) + 1))

    return hidden


def export(store: Store, ref: str, write: Callable[[bytes], object]) -> None:
    """Write the container's whole tree as a tar; volumes are empty directories in it (EX-50)."""
    from builder.cache.layer import pack

    container = find(store, ref)
    with closing(own_tree(store, container)) as tree:
        pack(_exported(store, container, tree), tree, write)
    store.events.add("container", "export", container.id, document.event_attributes(container.row))


def _exported(store: Store, container: Container, tree: View) -> Iterable[Change]:
    """Every entry, without the files that were only mount points."""
    from builder.cache.differ import everything

    snapshot = container.data["ImageSnapshot"]
    layers = store.snapshots.layers(snapshot) if snapshot else ()
    with View(layers, userxattr=store.snapshots.userxattr) as image:
        made = {path for path in STUBS if image.lstat(path) is None}
    found: Iterator[Change] = iter(everything(tree))
    return (change for change in found if change.path not in made)
