"""One layer's changes on top of another tree: what merges and diffs are made of (rows MRG-01…MRG-05).

Files become further names of the files that they come from, so nothing is copied. What cannot be seen in the
new tree any more (a deletion of something that is not there, an entry equal to the one it replaces) is kept
in a list beside it::

    snapshots/<id>/layer    "+path" for an entry and "-path" for a deletion, each ended by a NUL byte

A snapshot that has the list makes exactly that layer; one that has none makes what its tree shows.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cache.differ import Change, changes, compare, kept_xattrs
from builder.cache.mergedtree import MergedTree
from builder.cache.snapshotrows import SAME_LAYER
from builder.cache.snapshots import SnapshotStore
from builder.cache.tree import SourceTree, View, split
from builder.cache.treewriter import Writer
from builder.cache.types import Active, Recipe

if TYPE_CHECKING:
    from builder.cache.store import Store

FILE = "layer"


@contextmanager
def layer_changes(
    snapshots: SnapshotStore, snapshot: str, *, mounted: bool = False
) -> Iterator[tuple[list[Change], SourceTree]]:
    """What the layer of a snapshot says, and the tree that has the content. Raises StoreError.

    No tree of a merge is made for it; ``mounted``: they may be, and the tree is a ``View``.
    """
    recipe = snapshots.recipe(snapshot)
    if recipe is not None and recipe.kind != "image":
        with _unmade(snapshots, recipe, mounted) as made:
            yield made
        return
    own, lowers = snapshots.diff_dir(snapshot)
    info = snapshots.get(snapshot)
    stacked = info is not None and info.driver == "overlay"
    userxattr = snapshots.userxattr
    with View((own, *lowers) if stacked else (own,), userxattr=userxattr) as after:
        listed = read_list(own)
        if listed is not None:
            yield list(_listed(listed, after)), after
        elif stacked:
            yield changes(own, lowers, userxattr=userxattr), after
        else:
            with View(lowers, userxattr=userxattr) as before:
                yield compare(before, after), after


@contextmanager
def _unmade(
    snapshots: SnapshotStore, recipe: Recipe, mounted: bool
) -> Iterator[tuple[list[Change], SourceTree]]:
    """The same for a lazy snapshot, which stays as it is."""
    if recipe.kind == "layer" and recipe.source is not None:
        with layer_changes(snapshots, recipe.source, mounted=mounted) as made:
            yield made
        return
    with ExitStack() as stack:
        before = _tree(snapshots, recipe.lower, stack, mounted)
        after = _tree(snapshots, recipe.source, stack, mounted)
        yield compare(before, after), after


def _tree(snapshots: SnapshotStore, snapshot: str | None, stack: ExitStack, mounted: bool) -> SourceTree:
    """The tree of a snapshot, read from what it is made of unless it may be ``mounted``."""
    layers: list[str] = []
    while snapshot is not None and not mounted:
        recipe, info = snapshots.recipe(snapshot), snapshots.get(snapshot)
        if recipe is None or recipe.kind == "image" or info is None:
            break
        layers.append(snapshot)
        snapshot = info.parent
    base = stack.enter_context(View(snapshots.layers(snapshot), userxattr=snapshots.userxattr))
    if not layers:
        return base
    merged = MergedTree(base)
    for layer in reversed(layers):
        found, source = stack.enter_context(layer_changes(snapshots, layer))
        merged.add(found, source)
    return merged


def origin(store: Store, snapshot: str) -> str:
    """Whose layer it is that ``snapshot`` has: its own id, or that of the snapshot which it was made of."""
    while True:
        recipe = store.snapshots.recipe(snapshot)
        if recipe is not None and recipe.kind == "layer" and recipe.source is not None:
            snapshot = recipe.source
            continue
        told = store.doc(SAME_LAYER, snapshot)
        if told is None or store.snapshots.get(told.decode("ascii")) is None:
            return snapshot
        snapshot = told.decode("ascii")


def read_list(own: Path) -> bytes | None:
    """The list beside a tree, None when its layer is what the tree shows."""
    try:
        return (own.parent / FILE).read_bytes()
    except FileNotFoundError:
        return None


def _listed(listed: bytes, tree: View) -> Iterator[Change]:
    for item in listed.split(b"\0")[:-1]:
        path = os.fsdecode(item[1:])
        if item[:1] == b"-":
            yield Change(path, "delete")
        else:
            yield Change(path, "add", tree.lstat(path))


def restack(found: Sequence[Change], source: View, active: Active) -> None:
    """Make the changes, whose content is in ``source``, to the tree of ``active``.

    Raises StoreError, OSError; the caller drops the tree then.
    """
    with Writer(active.upper, active.lowers, userxattr=active.userxattr) as writer:
        step = _Restack(source, writer)
        for change in found:
            step.add(change)
        step.finish()
    if step.hidden:
        with open(active.upper.parent / FILE, "wb") as file:
            for change in found:
                sign = b"-" if change.stat is None else b"+"
                file.write(sign + os.fsencode(change.path) + b"\0")


class _Restack:
    """``hidden`` says whether the new tree no longer shows all that was asked for."""

    def __init__(self, source: View, writer: Writer) -> None:
        self.hidden = False
        self._source = source
        self._writer = writer
        self._dirs: dict[str, os.stat_result] = {}
        self._bare: set[str] = set()  # directories that were there and have got no entry yet
        self._fresh: set[str] = set()
        self._copies: dict[tuple[int, int], str] = {}

    def add(self, change: Change) -> None:
        path, st = change.path, change.stat
        parent = split(path)[0]
        self._parents(parent)
        self._bare.discard(parent)
        if st is None:
            if not self._writer.remove(path):
                self.hidden = True
        elif stat.S_ISDIR(st.st_mode):
            self._directory(path, st)
        else:
            self._entry(path, st)

    def finish(self) -> None:
        """Times of directories come last: everything that is made in one changes them."""
        for path, st in reversed(self._dirs.items()):
            self._writer.set_meta(path, mtime_ns=st.st_mtime_ns)
        self.hidden = self.hidden or bool(self._bare)

    def _parents(self, path: str) -> None:
        if not path or path in self._dirs:
            return
        parent = split(path)[0]
        self._parents(parent)
        self._bare.discard(parent)
        st = self._source.lstat(path)
        if st is not None:
            self._directory(path, st)

    def _directory(self, path: str, st: os.stat_result) -> None:
        if path in self._dirs:
            return
        self._dirs[path] = st
        xattrs = kept_xattrs(self._source.xattrs(path))
        mode = stat.S_IMODE(st.st_mode)
        existing = self._existing(path)
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            self._writer.set_meta(path, mode=mode, uid=st.st_uid, gid=st.st_gid, xattrs=xattrs)
            self._bare.add(path)
            return
        if existing is not None:
            self._writer.remove(path)
        self._writer.mkdir(path, mode, st.st_uid, st.st_gid, xattrs=xattrs)
        self._fresh.add(path)

    def _existing(self, path: str) -> os.stat_result | None:
        return None if split(path)[0] in self._fresh else self._writer.lstat(path)

    def _entry(self, path: str, st: os.stat_result) -> None:
        existing = self._existing(path)
        if existing is not None:
            self.hidden = True
            if stat.S_ISDIR(existing.st_mode):
                self._writer.remove(path)
        if not self._writer.adopt(path, self._source):
            self._copy(path, st)

    def _copy(self, path: str, st: os.stat_result) -> None:
        """Where the file system gives a file no further name."""
        mode, xattrs = stat.S_IMODE(st.st_mode), kept_xattrs(self._source.xattrs(path))
        uid, gid, mtime_ns = st.st_uid, st.st_gid, st.st_mtime_ns
        if stat.S_ISLNK(st.st_mode):
            text = self._source.readlink(path)
            self._writer.symlink(path, text, uid, gid, mtime_ns=mtime_ns, xattrs=xattrs)
            return
        if not stat.S_ISREG(st.st_mode):
            self._writer.mknod(path, st.st_mode, st.st_rdev, uid, gid, mtime_ns=mtime_ns, xattrs=xattrs)
            return
        first = self._copies.setdefault((st.st_dev, st.st_ino), path)
        if first != path:
            self._writer.link(path, first)
            return
        with open(self._source.open(path), "rb", buffering=0) as file:
            self._writer.write_file(path, file.fileno(), mode, uid, gid, mtime_ns=mtime_ns, xattrs=xattrs)
