"""Reading file trees: a ``View`` lays directories over each other as overlayfs does, without a mount.

Every access walks from an open directory to the next one by name, never following a link, so a tree that is
hostile or that somebody changes meanwhile cannot lead outside. Links are followed only by ``resolve``, as if
chrooted. The writing twin is ``builder.cache.treewriter``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from builder.cache import ownership
from builder.cache.treepaths import (
    DIR_FLAGS,
    MAX_LINKS,
    OVERLAY_XATTRS,
    Links,
    SourceTree,
    TreeError,
    by_fd,
    clean,
    is_whiteout,
    join,
    read_xattrs,
    resolve_in,
    sort_names,
    split,
    walk_tree,
)
from builder.errors import PathNotFound
from runtime import openfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "DIR_FLAGS",
    "MAX_LINKS",
    "OVERLAY_XATTRS",
    "Links",
    "SourceTree",
    "Stack",
    "TreeError",
    "View",
    "by_fd",
    "clean",
    "is_whiteout",
    "join",
    "read_xattrs",
    "resolve_in",
    "sort_names",
    "split",
    "walk_tree",
]

_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MAX_FDS = 192

Stack = tuple[tuple[int, int], ...]
"""The open directories that make up one directory of the union: (layer number, fd), topmost first."""


class View:
    """A read-only union of directories, topmost first; one thread at a time.

    Whiteouts (character device 0/0) and opaque directories hide what lies below and are never listed. Open
    directories are kept, so one that somebody else replaces may be seen as it was. ``close`` releases them;
    they open again on use, so closing is only a courtesy. ``raw`` shows whiteouts and overlayfs' attributes
    as what they are on disk: for one layer that is looked at for itself.
    """

    owner: tuple[int, int] | None = None

    def __init__(self, layers: Sequence[Path], *, userxattr: bool = False, raw: bool = False) -> None:
        self.layers = tuple(layers)
        self.userxattr = userxattr
        self._raw = raw
        self._opaque = "user.overlay.opaque" if userxattr else "trusted.overlay.opaque"
        self._dirs: dict[str, Stack] = {}
        self._fds = 0
        self._most = len(self.layers) + min(_MAX_FDS, openfiles.room(0, 16))
        self._records: dict[int, ownership.Records] = {}

    def close(self) -> None:
        """Close every open directory."""
        dirs, self._dirs, self._fds = self._dirs, {}, 0
        for stack in dirs.values():
            _close(stack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        for stack in getattr(self, "_dirs", {}).values():
            _close(stack)

    # --- directories

    def _dir(self, path: str) -> Stack:
        """The directories that make up ``path``, () when it is not a directory. Never evicts."""
        stack = self._dirs.get(path)
        if stack is not None:
            return stack
        known, todo = path, []
        while known and known not in self._dirs:
            known, name = split(known)
            todo.append((join(known, name), name))
        stack = self._dirs[known] if known in self._dirs else self._open_root()
        while todo and stack:
            known, name = todo.pop()
            stack = self._merge(stack, name)
            if stack:
                self._remember(known, stack)
        return stack

    def _remember(self, path: str, stack: Stack) -> None:
        self._dirs[path] = stack
        self._fds += len(stack)

    def _open_root(self) -> Stack:
        stack: list[tuple[int, int]] = []
        try:
            for number, layer in enumerate(self.layers):
                stack.append((number, os.open(layer, DIR_FLAGS & ~os.O_NOFOLLOW)))
        except OSError as error:
            _close(tuple(stack))
            raise TreeError(f"cannot open a layer's directory: {error.strerror}: {error.filename}") from error
        self._remember("", tuple(stack))
        return tuple(stack)

    def _merge(self, parent: Stack, name: str) -> Stack:
        """What ``name`` is made of, given what its parent is made of."""
        if len(parent) == 1:
            fd = _open_dir(name, parent[0][1])
            return () if fd < 0 else ((parent[0][0], fd),)
        found: list[tuple[int, int]] = []
        last = parent[-1][0]
        for number, parent_fd in parent:
            fd = _open_dir(name, parent_fd)
            if fd == _ABSENT:
                continue
            if fd < 0:
                break
            found.append((number, fd))
            if number != last and self._is_opaque(fd):
                break
        return tuple(found)

    def _is_opaque(self, fd: int) -> bool:
        try:
            return os.getxattr(fd, self._opaque) in {b"y", b"x"}
        except OSError as error:
            if error.errno == errno.EBADF:  # opened without the right to read
                return self._is_opaque_by_path(fd)
            return False

    def _is_opaque_by_path(self, fd: int) -> bool:
        try:
            return os.getxattr(by_fd(fd), self._opaque) in {b"y", b"x"}
        except OSError:
            return False

    def _tidy(self) -> None:
        """Close the directories opened longest ago when there are many; only ever before an access."""
        if self._fds <= self._most:
            return
        for path in [path for path in self._dirs if path][: max(1, len(self._dirs) * 3 // 4)]:
            self._forget(path)

    def _forget(self, path: str) -> None:
        stack = self._dirs.pop(path, None)
        if stack is not None:
            self._fds -= len(stack)
            _close(stack)

    def _find(self, stack: Stack, name: str) -> tuple[int, os.stat_result] | None:
        """The topmost entry called ``name``: (fd of the directory that holds it, its stat)."""
        for number, fd in stack:
            try:
                st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if is_whiteout(st) and not self._raw:
                return None
            return fd, st if not ownership.MODE.nodes else self._recorded(number, by_fd(fd, name), st)
        return None

    def _recorded(self, number: int, target: int | str, st: os.stat_result) -> os.stat_result:
        """What an entry of a layer should be, where not everything can be set (``ownership``)."""
        return ownership.read(target, st, self._records_of(number))

    def _records_of(self, number: int) -> ownership.Records:
        records = self._records.get(number)
        if records is None:
            records = self._records[number] = ownership.Records(self.layers[number])
        return records

    def _listed(
        self, number: int, fd: int, known: dict[str, os.stat_result] | tuple[()]
    ) -> list[tuple[str, os.stat_result]]:
        entries = _list(fd, known)
        if not ownership.MODE.nodes:
            return entries
        return [(name, self._recorded(number, by_fd(fd, name), st)) for name, st in entries]

    def _stat_of(self, stack: Stack) -> os.stat_result:
        """The stat of a directory of the union."""
        number, fd = stack[0]
        st = os.fstat(fd)
        return st if not ownership.MODE.nodes else self._recorded(number, by_fd(fd, "."), st)

    def _locate(self, path: str) -> tuple[int, str, os.stat_result]:
        """Where ``path`` is; PathNotFound when it is not there."""
        self._tidy()
        parent, name = split(path)
        found = self._find(self._dir(parent), name)
        if found is None:
            raise PathNotFound(f'"/{path}": not found', path=path)
        return found[0], name, found[1]

    # --- reading

    def lstat(self, path: str) -> os.stat_result | None:
        """What is at ``path``, links not followed anywhere; None when nothing is."""
        self._tidy()
        if not path:
            stack = self._dir("")
            return self._stat_of(stack) if stack else None
        parent, name = split(path)
        found = self._find(self._dir(parent), name)
        return None if found is None else found[1]

    def readlink(self, path: str) -> str:
        """A symbolic link's text."""
        fd, name, _ = self._locate(path)
        return os.readlink(name, dir_fd=fd)

    def scandir(self, path: str) -> list[tuple[str, os.stat_result]]:
        """Names and stats of a directory, sorted by name; [] when it is not a directory."""
        self._tidy()
        stack = self._dir(path)
        if len(stack) == 1:
            entries = self._listed(*stack[0], ())
            return sort_names([entry for entry in entries if self._raw or not is_whiteout(entry[1])])
        seen: dict[str, os.stat_result] = {}
        for number, fd in stack:
            seen.update(self._listed(number, fd, seen))
        return sort_names([entry for entry in seen.items() if not is_whiteout(entry[1])])

    def raw_scandir(self, path: str) -> list[tuple[str, os.stat_result]]:
        """The topmost layer's own entries of a directory, whiteouts included."""
        self._tidy()
        stack = self._dir(path)
        return sort_names(self._listed(*stack[0], ())) if stack else []

    def is_opaque(self, path: str) -> bool:
        """Whether the topmost directory at ``path`` hides the ones below it."""
        self._tidy()
        stack = self._dir(path)
        return bool(stack) and self._is_opaque(stack[0][1])

    def open(self, path: str) -> int:
        """Open a regular file for reading; PathNotFound when there is none (links are not followed)."""
        self._tidy()
        parent, name = split(path)
        for _, dir_fd in self._dir(parent):
            try:
                fd = os.open(name, _FILE_FLAGS, dir_fd=dir_fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENXIO, errno.ENODEV}:
                    break
                raise
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
            break
        raise PathNotFound(f'"/{path}": not a regular file', path=path)

    def read(self, path: str, limit: int) -> bytes:
        """A regular file's bytes; TreeError when there are more than ``limit``."""
        fd = self.open(path)
        with open(fd, "rb", buffering=0) as file:
            data = b""
            while len(data) <= limit and (chunk := file.read(limit + 1 - len(data))):
                data += chunk
        if len(data) > limit:
            raise TreeError(f'"/{path}": larger than the {limit} bytes allowed here')
        return data

    def xattrs(self, path: str) -> dict[str, bytes]:
        """Extended attributes, except overlayfs' own."""
        if not path:
            stack = self._dir("")
            return read_xattrs(by_fd(stack[0][1], "."), raw=self._raw) if stack else {}
        fd, name, _ = self._locate(path)
        return read_xattrs(by_fd(fd, name), raw=self._raw)

    def resolve(self, path: str, *, follow_final: bool = True) -> str:
        """``path`` with links followed as if this tree were the root directory; a missing rest is kept.

        ".." stays inside; more than 255 links raise PathNotFound.
        """
        return resolve_in(self, path, follow_final=follow_final)

    def walk(
        self, path: str = "", *, enter: Callable[[str], bool] | None = None
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below ``path``, each directory sorted by name and before its content.

        ``enter`` says whether to look inside a directory that was just given.
        """
        return walk_tree(self, path, enter=enter)

    def host_path(self, path: str) -> Path:
        """The layer's file that provides ``path``; only for reading and while nobody changes the tree."""
        self._tidy()
        if not path:
            return self.layers[0]
        parent, name = split(path)
        for number, fd in self._dir(parent):
            if self._find(((number, fd),), name) is not None:
                return self.layers[number] / path
            if _exists(name, fd):
                break
        raise PathNotFound(f'"/{path}": not found', path=path)


_ABSENT = -1
_NOT_A_DIRECTORY = -2


def _open_dir(name: str, dir_fd: int) -> int:
    """An fd, or whether nothing or something else is there."""
    try:
        return os.open(name, DIR_FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        return _ABSENT
    except PermissionError:
        return os.open(name, DIR_FLAGS | os.O_PATH, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            return _NOT_A_DIRECTORY
        raise


def _exists(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _list(fd: int, known: dict[str, os.stat_result] | tuple[()]) -> list[tuple[str, os.stat_result]]:
    """Entries of an open directory that are not ``known`` yet, whiteouts included."""
    entries: list[tuple[str, os.stat_result]] = []
    with os.scandir(fd) as listing:
        for entry in listing:
            if entry.name in known:
                continue
            try:
                entries.append((entry.name, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue  # gone since it was listed
    return entries


def _close(stack: Stack) -> None:
    for _, fd in stack:
        try:
            os.close(fd)
        except OSError:
            pass
