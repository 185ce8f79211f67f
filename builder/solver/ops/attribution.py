"""Whose files a RUN step made, in a user namespace where every file has the same owner.

There a step with USER runs as the only id. What it made anew belongs to its user, as it would if that user
had an id; what it changed keeps the owner it had.
"""

from __future__ import annotations

import stat
from contextlib import closing

from builder.cache import ownership
from builder.cache.differ import Change, changes, compare
from builder.cache.store import Store
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.cache.types import Active
from builder.errors import PathNotFound
from runtime.user import resolve

_LIMIT_BYTES = 4 << 20


def attribute(store: Store, active: Active, user: str) -> None:
    """Record the owners of what a finished step left in ``active`` without one; elsewhere than in a namespace
    with one id there is nothing to do.

    New entries belong to ``user`` of the tree. A step of root that replaced a file gave it the owner it saw,
    as ``sed -i`` and ``useradd`` do: it keeps the old one.
    """
    if not ownership.MODE.owners:
        return
    layers = store.snapshots.layers(active.parent)
    with (
        View(layers, userxattr=active.userxattr) as below,
        closing(Writer(active.upper, active.lowers, userxattr=active.userxattr)) as tree,
    ):
        who = resolve(user, (), lambda name: _lines(tree, name)) if user else None
        new = (0, 0) if who is None else (who.uid, who.gid)
        if active.lowers:
            found = changes(active.upper, active.lowers, userxattr=active.userxattr)
        else:
            with View((active.upper,)) as now:
                found = compare(below, now)
        for change in found:
            owner = _owner(change, below, new)
            if owner != (0, 0) and not ownership.is_recorded(tree.host_path(change.path)):
                tree.set_meta(change.path, uid=owner[0], gid=owner[1])


def _owner(change: Change, below: View, new: tuple[int, int]) -> tuple[int, int]:
    """Whose a changed entry is; root's also stands for "as it is"."""
    st = change.stat
    if st is None or (st.st_uid, st.st_gid) != (0, 0):
        return (0, 0)
    if change.kind == "add":
        return new
    before = below.lstat(change.path) if change.kind == "modify" else None
    if before is None or (before.st_uid, before.st_gid) == (0, 0):
        return (0, 0)
    if new == (0, 0) and stat.S_IFMT(before.st_mode) == stat.S_IFMT(st.st_mode):
        return before.st_uid, before.st_gid
    return new


def _lines(tree: View, name: str) -> list[bytes]:
    where = tree.resolve(name)
    st = tree.lstat(where)
    if st is None or not stat.S_ISREG(st.st_mode):
        return []
    try:
        return tree.read(where, _LIMIT_BYTES).split(b"\n")
    except PathNotFound:
        return []
