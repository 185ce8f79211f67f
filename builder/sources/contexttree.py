"""A directory of the user, seen as the build may see it (SLO-01, SLO-05, IGN-02…09).

What the build sees differs from the directory in three ways: ignored paths do not exist, a socket is an empty
regular file, and everything counts as owned by 0:0. The kernel never follows a link for us: directories and
files are opened relative to their parent, and links are resolved in here, inside the directory.

The tree is looked at once: every later question about the same directory gets the same answer, so that what
was hashed and what is copied are the same thing, or are known not to be (``changed``).
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from builder.cache.tree import DIR_FLAGS, by_fd, join, read_xattrs, resolve_in, sort_names, walk_tree
from builder.errors import PathNotFound, SourceUnavailable
from builder.sources import beneath
from builder.sources.index import Stamp, stamp

_SCAN_FDS = 64
"""How many directories a scan keeps open at once; deeper ones are opened from the root."""
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL})
"""Somebody removed or replaced it after its directory was listed."""


class Ignore(Protocol):
    """The rules of an ignore file (``frontend.dockerignore.IgnoreMatcher``)."""

    def excludes(self, path: str) -> bool:
        """Do the rules leave this path out?"""

    def may_hold_exception(self, directory: str) -> bool:
        """May an excluded directory hold a path that an exception brings back?"""


Entries = dict[str, os.stat_result]


class ContextTree:
    """The ``SourceTree`` of a directory on this machine. Safe for many threads; ``close`` it."""

    owner: tuple[int, int] | None = (0, 0)

    def __init__(self, root: Path, *, name: str = "context", ignore: Ignore | None = None) -> None:
        self.root = root
        self.name = name
        self._ignore = ignore
        self._lock = threading.RLock()
        self._dirs: dict[str, Entries] = {}
        self._single: dict[str, os.stat_result | None] = {}
        self._looked: dict[str, int] = {}
        self._opened: dict[str, Stamp] = {}
        self._root_fd = -1
        try:
            self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceUnavailable(
                f'unable to prepare context: path "{root}": {error.strerror}', code="context-not-found"
            ) from error
        self._near = beneath.Near(self._root_fd)
        self._root_stat = os.fstat(self._root_fd)

    def close(self) -> None:
        """Release the directory."""
        with self._lock:
            self._near.close()
            if self._root_fd >= 0:
                os.close(self._root_fd)
                self._root_fd = -1

    def __enter__(self) -> ContextTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the tree ---------------------------------------------------------------------------------------

    def lstat(self, path: str) -> os.stat_result | None:
        """The stat of a visible path, not following a final link; None if there is no such path."""
        st = self._stat(path)
        return st if st is None or not stat.S_ISSOCK(st.st_mode) else _empty_file(st)

    def scandir(self, path: str) -> list[tuple[str, os.stat_result]]:
        """Names and stats of the visible entries, sorted by name; [] for what is not a directory."""
        found = []
        for name, st in self._entries(path).items():
            found.append((name, _empty_file(st) if stat.S_ISSOCK(st.st_mode) else st))
        return found

    def readlink(self, path: str) -> str:
        """The text of a symbolic link."""
        try:
            with self._lock:
                fd, name = self._at(path)
                return os.readlink(name, dir_fd=fd)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def open(self, path: str) -> int:
        """A descriptor to read a regular file; the caller closes it."""
        expected = self._must_see(path)
        try:
            with self._lock:
                fd, name = self._at(path)
                opened = beneath.open_file(fd, name)
        except OSError as error:
            raise self._unreadable(path, error) from error
        self._opened.setdefault(path, stamp(expected))
        return opened

    def read(self, path: str, limit: int) -> bytes:
        """The content of a regular file of at most ``limit`` bytes."""
        fd = self.open(path)
        try:
            data = beneath.read_limited(fd, limit)
        finally:
            os.close(fd)
        if data is None:
            raise SourceUnavailable(
                f"{path} in {self.name} is larger than the {limit} bytes allowed here", code="file-too-large"
            )
        return data

    def xattrs(self, path: str) -> dict[str, bytes]:
        """Extended attributes that belong into an image: those that count in checksums (CHK-02)."""
        if not path:
            return {}
        self._must_see(path)
        try:
            with self._lock:
                fd, name = self._at(path)
                found = read_xattrs(by_fd(fd, name))
        except OSError as error:
            raise self._unreadable(path, error) from error
        return {key: value for key, value in found.items() if _keeps_xattr(key)}

    def resolve(self, path: str, *, follow_final: bool = True) -> str:
        """The path with links resolved as if the root were ``/``; a missing tail is kept as it is.

        ``..`` stops at the root; raises PathNotFound after 255 links.
        """
        return resolve_in(self, path, follow_final=follow_final)

    def walk(
        self, path: str = "", *, enter: Callable[[str], bool] | None = None
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below ``path``, each directory sorted by name and before its content."""
        return walk_tree(self, path, enter=enter)

    def host_path(self, path: str) -> Path:
        """Where the user has it; for messages, never for opening."""
        return self.root / path if path else self.root

    def is_ignored(self, path: str) -> bool:
        """Does the path exist in the directory but, by the ignore rules, not in the build (ERR-03)?"""
        return bool(path) and self.lstat(path) is None and self._fresh(path) is not None

    def changed(self) -> tuple[str, ...]:
        """Files that were opened and are not, or no longer, what they were when looked at (SLO-06)."""
        with self._lock:
            self._near.close()
            opened = sorted(self._opened.items())
        moved = []
        for path, expected in opened:
            now = self._fresh(path)
            if now is None or stamp(now) != expected:
                moved.append(path)
        return tuple(moved)

    # --- looking ----------------------------------------------------------------------------------------

    def _stat(self, path: str) -> os.stat_result | None:
        """The stat as the file system has it, from the last look if there was one."""
        if not path:
            return self._root_stat
        with self._lock:
            if path in self._single:
                return self._single[path]
            parent, _, name = path.rpartition("/")
            entries = self._dirs.get(parent)
            if entries is not None:
                return entries.get(name)
            looked = time.time_ns()
            st = self._fresh(path)
            if st is not None and not self._sees(path, stat.S_ISDIR(st.st_mode)):
                st = None
            self._single[path] = st
            self._looked[path + "/."] = looked
            return st

    def _looked_ns(self, path: str) -> int:
        """When the stat of ``path`` was taken."""
        single = self._looked.get(path + "/.")
        return single if single is not None else self._looked.get(path.rpartition("/")[0], 0)

    def _fresh(self, path: str) -> os.stat_result | None:
        """What the file system says now, ignore rules aside."""
        try:
            with self._lock:
                fd, name = self._at(path)
                return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EIO}:
                raise self._unreadable(path, error) from error
            return None

    def _sees(self, path: str, is_dir: bool) -> bool:
        if self._ignore is None or not self._ignore.excludes(path):
            return True
        return is_dir and self._holds_exception(path)

    def _must_see(self, path: str) -> os.stat_result:
        st = self._stat(path)
        if st is None:
            raise PathNotFound(f'"/{path}": not found', path=path)
        return st

    def _entries(self, path: str) -> Entries:
        """The visible entries of a directory; none for what is not a directory."""
        with self._lock:
            entries = self._dirs.get(path)
            if entries is not None:
                return entries
            if path and self._is_closed(path):
                return {}
            try:
                fd = self._near.dir(path)
            except OSError as error:
                if error.errno in _GONE:
                    return {}
                raise self._unreadable(path, error) from error
            return self._look(fd, path)

    def _is_closed(self, path: str) -> bool:
        """Is this directory excluded with all that it holds?"""
        ignore = self._ignore
        return ignore is not None and ignore.excludes(path) and not ignore.may_hold_exception(path)

    def _holds_exception(self, path: str) -> bool:
        """Is there anything in an excluded directory that an exception brings back (IGN-06)?"""
        if self._is_closed(path):
            return False
        try:
            return bool(self._entries(path))
        except SourceUnavailable:
            return False

    def _look(self, fd: int, path: str) -> Entries:
        """Read one directory: its visible entries by name, with their stats."""
        found = self._listed(fd, path)
        if self._ignore is not None:
            self._see(path, found, self._ignore)
        else:
            self._dirs[path] = dict(found)
        return self._dirs[path]

    def _listed(self, fd: int, path: str) -> list[tuple[str, os.stat_result]]:
        looked = time.time_ns()
        found: list[tuple[str, os.stat_result]] = []
        with os.scandir(fd) as listing:
            for entry in listing:
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
        self._looked[path] = looked
        return sort_names(found)

    def _see(self, path: str, found: list[tuple[str, os.stat_result]], ignore: Ignore) -> None:
        """Note what is visible in a directory, and first in those excluded ones that have a say in it."""
        looked = [(path, found)]
        left: list[tuple[str, Entries, list[str]]] = []
        for inner, listed in looked:
            prefix = f"{inner}/" if inner else ""
            entries: Entries = {}
            doubtful: list[str] = []
            left.append((prefix, entries, doubtful))
            self._dirs[inner] = entries
            for name, st in listed:
                below = prefix + name
                if ignore.excludes(below):
                    if st.st_mode & 0o170000 != stat.S_IFDIR or not ignore.may_hold_exception(below):
                        continue
                    if below not in self._dirs:
                        looked.append((below, self._excluded(below)))
                    doubtful.append(name)
                entries[name] = st
        for prefix, entries, doubtful in reversed(left):
            for name in doubtful:
                if not self._dirs[prefix + name]:
                    del entries[name]

    def _excluded(self, path: str) -> list[tuple[str, os.stat_result]]:
        """What is in an excluded directory; nothing when it cannot be read."""
        try:
            return self._listed(self._near.dir(path), path)
        except OSError:
            return []

    def _scan_below(self, top: str) -> None:
        """Look at every directory below ``top``, each opened relative to its parent."""
        with self._lock:
            later = [top]
            while later:
                path = later.pop()
                try:
                    fd = beneath.open_dir(self._root_fd, path)
                except OSError as error:
                    if path and error.errno in _GONE:
                        continue
                    raise self._unreadable(path, error) from error
                try:
                    self._scan_from(fd, path, later, 0)
                finally:
                    os.close(fd)

    def _scan_from(self, fd: int, path: str, later: list[str], depth: int) -> None:
        entries = self._dirs.get(path)
        if entries is None:
            entries = self._look(fd, path)
        for name, st in entries.items():
            if st.st_mode & 0o170000 != stat.S_IFDIR:
                continue
            below = join(path, name)
            if depth >= _SCAN_FDS:
                later.append(below)
                continue
            try:
                child = os.open(name, DIR_FLAGS, dir_fd=fd)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise self._unreadable(below, error) from error
            try:
                self._scan_from(child, below, later, depth + 1)
            finally:
                os.close(child)

    def _at(self, path: str) -> tuple[int, str]:
        """The open directory that holds ``path``, and its name in there; use it under the lock."""
        parent, _, name = path.rpartition("/")
        beneath.check_name(name)
        return self._near.dir(parent), name

    def _unreadable(self, path: str, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(
            f"error checking context: cannot read {path or '.'!r}: {error.strerror}",
            context=(f"in {self.root}",),
            hint="it was there a moment ago: build again when nobody changes the context"
            if error.errno in _GONE
            else "make it readable, or list it in .dockerignore",
            code="context-unreadable",
        )


def _keeps_xattr(key: str) -> bool:
    if key.startswith(("com.apple.", "system.")):
        return False
    return key == "security.capability" or not key.startswith("security.")


def _empty_file(st: os.stat_result) -> os.stat_result:
    """A socket's stat as that of an empty regular file."""
    mode = stat.S_IFREG | stat.S_IMODE(st.st_mode)
    fields = (mode, st.st_ino, st.st_dev, st.st_nlink, st.st_uid, st.st_gid, 0, st[7], st[8], st[9])
    more = {
        "st_atime_ns": st.st_atime_ns,
        "st_mtime_ns": st.st_mtime_ns,
        "st_ctime_ns": st.st_ctime_ns,
        "st_blksize": st.st_blksize,
        "st_blocks": 0,
        "st_rdev": 0,
    }
    return os.stat_result(fields, more)
