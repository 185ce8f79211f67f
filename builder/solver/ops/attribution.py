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
    """Record ``user`` of the tree as the owner of what a finished step made in ``active``; elsewhere than in
    a namespace with one id there is nothing to do."""
    if not ownership.MODE.owners or not user:
        return
    layers = store.snapshots.layers(active.parent)
    with (
        View(layers, userxattr=active.userxattr) as below,
        closing(Writer(active.upper, active.lowers, userxattr=active.userxattr)) as tree,
    ):
        who = resolve(user, (), lambda name: _lines(tree, name))
        if (who.uid, who.gid) == (0, 0):
            return
        if active.lowers:
            found = changes(active.upper, active.lowers, userxattr=active.userxattr)
        else:
            with View((active.upper,)) as now:
                found = compare(below, now)
        for change in found:
            if _is_theirs(change, below):
                tree.set_meta(change.path, uid=who.uid, gid=who.gid)


def _is_theirs(change: Change, below: View) -> bool:
    st = change.stat
    if st is None or (st.st_uid, st.st_gid) != (0, 0):
        return False
    if change.kind == "add":
        return True
    before = below.lstat(change.path)
    # Somebody else's file without a record of its own was replaced, not changed.
    return change.kind == "modify" and before is not None and (before.st_uid, before.st_gid) != (0, 0)


def _lines(tree: View, name: str) -> list[bytes]:
    where = tree.resolve(name)
    st = tree.lstat(where)
    if st is None or not stat.S_ISREG(st.st_mode):
        return []
    try:
        return tree.read(where, _LIMIT_BYTES).split(b"\n")
    except PathNotFound:
        return []
