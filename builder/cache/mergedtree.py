"""The tree of a merge, read from the trees that its layers come from; nothing is written (MRG-03).

It shows what ``restack`` would make: later layers over earlier ones, their directories' attributes included.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from builder.cache.differ import Change, kept_xattrs
from builder.cache.tree import View
from builder.cache.treepaths import SourceTree, TreeError, resolve_in, sort_names, split, walk_tree
from builder.errors import PathNotFound

_DEVICE = -2
"""The device number of a directory of a merge, which is like no directory on disk."""
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a layer puts at a path. ``bare``: nothing that the base has below the path is seen.

    ``xattrs`` are those of a directory.
    """

    source: SourceTree
    stat: os.stat_result
    bare: bool = True
    xattrs: dict[str, bytes] | None = None


class MergedTree:
    """``base`` with layers on top; one thread at a time. All trees must stay as they are."""

    owner: tuple[int, int] | None = None

    def __init__(self, base: SourceTree) -> None:
        self._base = base
        self._entries: dict[str, _Entry | None] = {}
        self._names: dict[str, set[str]] = {}
        self._read: SourceTree = base

    def add(self, changes: Iterable[Change], source: SourceTree) -> None:
        """Lay one more layer on top; ``source`` has its content."""
        done: set[str] = set()
        for change in changes:
            path, st = change.path, change.stat
            self._parents(split(path)[0], source, done)
            if st is not None and stat.S_ISDIR(st.st_mode):
                self._directory(path, st, source, done)
            elif st is not None:
                self._put(path, _Entry(source, st))
            elif self.lstat(path) is not None:
                self._put(path, None)
        self._turn_to(self._base)
        if isinstance(source, View):
            source.close()

    def _parents(self, path: str, source: SourceTree, done: set[str]) -> None:
        if not path or path in done:
            return
        self._parents(split(path)[0], source, done)
        st = source.lstat(path)
        if st is not None:
            self._directory(path, st, source, done)

    def _directory(self, path: str, st: os.stat_result, source: SourceTree, done: set[str]) -> None:
        if path in done:
            return
        done.add(path)
        xattrs = kept_xattrs(source.xattrs(path))
        before = self.lstat(path)
        if before is None or not stat.S_ISDIR(before.st_mode):
            self._put(path, _Entry(source, _own(st), xattrs=xattrs))
            return
        known = self._entries.get(path)
        merged = {**self.xattrs(path), **xattrs}
        self._note(path, _Entry(source, _own(st), bare=known is not None and known.bare, xattrs=merged))

    def _put(self, path: str, entry: _Entry | None) -> None:
        """Replace whatever is at and below a path."""
        pending = [path]
        while pending:
            above = pending.pop()
            names = self._names.pop(above, ())
            pending += [f"{above}/{name}" for name in names]
            self._entries.pop(above, None)
        self._note(path, entry)

    def _note(self, path: str, entry: _Entry | None) -> None:
        parent, name = split(path)
        self._entries[path] = entry
        self._names.setdefault(parent, set()).add(name)

    def _shows_base(self, path: str) -> bool:
        """Whether what the base has in a directory is seen."""
        while path:
            if path in self._entries:
                entry = self._entries[path]
                return entry is not None and not entry.bare
            path = split(path)[0]
        return True

    # --- reading

    def lstat(self, path: str) -> os.stat_result | None:
        """What is at ``path``, links not followed anywhere; None when nothing is."""
        if path in self._entries:
            entry = self._entries[path]
            return None if entry is None else entry.stat
        return self._base.lstat(path) if self._shows_base(split(path)[0]) else None

    def scandir(self, path: str) -> list[tuple[str, os.stat_result]]:
        """Names and stats of a directory, sorted by name; [] when it is not a directory."""
        found = dict(self._base.scandir(path)) if self._shows_base(path) else {}
        for name in self._names.get(path, ()):
            entry = self._entries[f"{path}/{name}" if path else name]
            if entry is None:
                found.pop(name, None)
            else:
                found[name] = entry.stat
        return sort_names(list(found.items()))

    def readlink(self, path: str) -> str:
        """A symbolic link's text."""
        return self._holder(path).readlink(path)

    def open(self, path: str) -> int:
        """Open a regular file for reading; PathNotFound when there is none."""
        return self._holder(path).open(path)

    def read(self, path: str, limit: int) -> bytes:
        """A regular file's bytes; TreeError when there are more than ``limit``."""
        with open(self.open(path), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise TreeError(f'"/{path}": larger than the {limit} bytes allowed here')
        return data

    def xattrs(self, path: str) -> dict[str, bytes]:
        """Extended attributes."""
        entry = self._entries.get(path)
        if entry is not None and entry.xattrs is not None:
            return dict(entry.xattrs)
        return self._holder(path).xattrs(path)

    def resolve(self, path: str, *, follow_final: bool = True) -> str:
        """``path`` with links followed as if this tree were the root directory; a missing rest is kept."""
        return resolve_in(self, path, follow_final=follow_final)

    def walk(
        self, path: str = "", *, enter: Callable[[str], bool] | None = None
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below ``path``, each directory sorted by name and before its content."""
        return walk_tree(self, path, enter=enter)

    def _holder(self, path: str) -> SourceTree:
        """The tree that provides what is at a path."""
        entry = self._entries.get(path)
        if entry is not None:
            self._turn_to(entry.source)
            return entry.source
        if path in self._entries or not self._shows_base(split(path)[0]):
            raise PathNotFound(f'"/{path}": not found', path=path)
        return self._base

    def _turn_to(self, source: SourceTree) -> None:
        """One layer at a time keeps its directories open: there may be many layers. They open again."""
        if source is not self._read:
            if isinstance(self._read, View) and self._read is not self._base:
                self._read.close()
            self._read = source


def _own(st: os.stat_result) -> os.stat_result:
    """The stat of a directory of a merge: that of the layer's, but no other directory's identity."""
    owner = (st.st_uid, st.st_gid)
    times = (int(st.st_atime), int(st.st_mtime), int(st.st_ctime))
    exact = {name: getattr(st, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_rdev")}
    fields = (st.st_mode, next(_numbers), _DEVICE, st.st_nlink, *owner, st.st_size, *times)
    return os.stat_result(fields, exact)
