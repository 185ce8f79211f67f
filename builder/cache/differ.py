"""Two trees → changes (rows LAY-01, LAY-02, LAY-04).

``changes`` reads an upper directory in overlay's form and asks its lower layers only about what it names;
``compare`` walks two whole trees. Both give the same list, in directory-walk order: an entry is changed when
its type, mode, owner, device, link text, kept attributes, time (not of directories) or content differ. The
root itself is never among them; ``root_change`` says whether it changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.cache.tree import SourceTree, View, is_whiteout, join
from builder.cache.treepaths import is_carried

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.plannedtree import PlannedTree

Kind = Literal["add", "modify", "delete", "unchanged"]
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a path.

    ``stat`` is the new entry's, None for a deletion. ``unchanged`` is another name of a file that changed or
    is new: a layer needs it so that the two stay one file.
    """

    path: str
    kind: Kind
    stat: os.stat_result | None = None


def kept_xattrs(xattrs: dict[str, bytes]) -> dict[str, bytes]:
    """The extended attributes that a layer carries."""
    return {name: value for name, value in xattrs.items() if is_carried(name)}


def everything(tree: SourceTree) -> Iterator[Change]:
    """A whole tree as additions to an empty one."""
    return (Change(path, "add", st) for path, st in tree.walk())


def changes(upper: Path, lowers: Sequence[Path] = (), *, userxattr: bool = False) -> list[Change]:
    """The changes that an upper directory makes to the layers below it, topmost first."""
    with (
        View([upper, *lowers], userxattr=userxattr) as new,
        View(lowers, userxattr=userxattr) as old,
        View([upper], userxattr=userxattr) as own,
    ):
        differ = _Differ(old, new)
        if lowers:
            differ.overlay(own)
        else:
            differ.added("")
        return differ.result()


def planned_changes(base: View, tree: PlannedTree) -> list[Change]:
    """The changes that a planned tree makes to ``base``, as ``changes`` gives them for one on disk."""
    differ = _Differ(base, tree)
    if base.layers:
        differ.overlay(tree)
    else:
        differ.added("")
    return differ.result()


def compare(old: SourceTree, new: SourceTree, *, untouched_before_ns: int = 0) -> list[Change]:
    """The changes from one tree to another.

    Files whose inode has not changed since ``untouched_before_ns`` (the ctime of something made right after
    the copy that ``new`` started as) are taken as equal when their metadata is.
    """
    differ = _Differ(old, new, untouched_before_ns)
    differ.compared("")
    return differ.result()


def root_change(old: View, new: SourceTree) -> list[Change]:
    """The root directory as a change, path "", when its mode, owner or kept attributes differ (BET-04).

    Without lower layers ``old`` is empty, and the root before is one like any new tree's: root's own, 0755.
    """
    after = new.lstat("")
    if after is None:
        return []
    before = old.lstat("") if old.layers else None
    facts = (0o755, 0, 0) if before is None else (stat.S_IMODE(before.st_mode), before.st_uid, before.st_gid)
    known = kept_xattrs(old.xattrs("")) if before is not None else {}
    same = facts == (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid)
    return [] if same and known == kept_xattrs(new.xattrs("")) else [Change("", "modify", after)]


class _Differ:
    def __init__(self, old: SourceTree, new: SourceTree, untouched_before_ns: int = 0) -> None:
        self._old, self._new = old, new
        self._untouched_before_ns = untouched_before_ns
        self._found: list[Change] = []
        self._same: dict[tuple[int, int], list[tuple[int, Change]]] = {}  # unchanged files with several names

    def result(self) -> list[Change]:
        """Everything found, the unchanged names of changed files put where the walk met them (LAY-04)."""
        if not self._same:
            return self._found
        siblings: list[tuple[int, Change]] = []
        inodes = {(c.stat.st_dev, c.stat.st_ino) for c in self._found if c.stat and c.stat.st_nlink > 1}
        for inode, names in self._same.items():
            if inode in inodes:
                siblings.extend(names)
        merged: list[Change] = []
        at = 0
        for position, change in sorted(siblings, key=lambda item: item[0]):
            merged.extend(self._found[at:position])
            merged.append(change)
            at = position
        return merged + self._found[at:]

    def _unchanged(self, path: str, st: os.stat_result) -> None:
        if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode):
            inode = (st.st_dev, st.st_ino)
            self._same.setdefault(inode, []).append((len(self._found), Change(path, "unchanged", st)))

    def added(self, path: str) -> None:
        """Everything below ``path`` is new."""
        self._found.extend(Change(inner, "add", st) for inner, st in self._new.walk(path))

    def deleted(self, path: str) -> None:
        self._found.append(Change(path, "delete"))

    def entry(self, path: str, before: os.stat_result, after: os.stat_result) -> None:
        """A path that both trees have; says nothing about what is below it."""
        if self._is_same(path, before, after):
            self._unchanged(path, after)
        else:
            self._found.append(Change(path, "modify", after))

    # --- whole trees

    def compared(self, path: str) -> None:
        """Compare all below a directory of both trees."""
        pending = [self._pairs(path)]
        while pending:
            for inner, before, after in pending[-1]:
                if after is None:
                    self.deleted(inner)
                    continue
                is_dir = stat.S_ISDIR(after.st_mode)
                if before is None:
                    self._found.append(Change(inner, "add", after))
                    if is_dir:
                        self.added(inner)
                    continue
                self.entry(inner, before, after)
                if is_dir and stat.S_ISDIR(before.st_mode):
                    pending.append(self._pairs(inner))
                    break
                if is_dir:
                    self.added(inner)
            else:
                pending.pop()

    def _pairs(self, path: str) -> Iterator[tuple[str, os.stat_result | None, os.stat_result | None]]:
        before = dict(self._old.scandir(path))
        after = dict(self._new.scandir(path))
        names = sorted({*before, *after}, key=os.fsencode)
        return iter([(join(path, name), before.get(name), after.get(name)) for name in names])

    # --- an upper directory

    def overlay(self, own: View | PlannedTree) -> None:
        """Walk the upper directory; ``own`` is that directory alone."""
        pending = [_raw_entries(own, "")]
        while pending:
            for path, after in pending[-1]:
                before = self._old.lstat(path)
                if is_whiteout(after):
                    if before is not None:
                        self.deleted(path)
                    continue
                is_dir = stat.S_ISDIR(after.st_mode)
                if before is None:
                    self._found.append(Change(path, "add", after))
                else:
                    self.entry(path, before, after)
                if not is_dir:
                    continue
                if before is None or not stat.S_ISDIR(before.st_mode):
                    self.added(path)
                elif own.is_opaque(path):
                    self.compared(path)
                else:
                    pending.append(_raw_entries(own, path))
                    break
            else:
                pending.pop()

    # --- one entry

    def _is_same(self, path: str, before: os.stat_result, after: os.stat_result) -> bool:
        if before.st_ino == after.st_ino and before.st_dev == after.st_dev:
            return True
        if (before.st_mode, before.st_uid, before.st_gid, before.st_rdev) != (
            after.st_mode,
            after.st_uid,
            after.st_gid,
            after.st_rdev,
        ):
            return False
        if not stat.S_ISDIR(after.st_mode) and (
            before.st_mtime_ns != after.st_mtime_ns or before.st_size != after.st_size
        ):
            return False
        if after.st_ctime_ns < self._untouched_before_ns:
            return True
        if kept_xattrs(self._old.xattrs(path)) != kept_xattrs(self._new.xattrs(path)):
            return False
        return self._same_content(path, after)

    def _same_content(self, path: str, st: os.stat_result) -> bool:
        if stat.S_ISLNK(st.st_mode):
            return self._old.readlink(path) == self._new.readlink(path)
        if not stat.S_ISREG(st.st_mode) or st.st_size == 0:
            return True
        with open(self._old.open(path), "rb", 0) as before, open(self._new.open(path), "rb", 0) as after:
            while True:
                data = before.read(_CHUNK)
                if data != after.read(_CHUNK):
                    return False
                if not data:
                    return True


def _raw_entries(own: View | PlannedTree, path: str) -> Iterator[tuple[str, os.stat_result]]:
    return iter([(join(path, name), st) for name, st in own.raw_scandir(path)])
