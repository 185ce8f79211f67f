"""The upper directory of a ``Writer``: its directories, and the metadata of what is in it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from builder.cache import ownership
from builder.cache.filedata import XattrFailed, set_xattrs
from builder.cache.tree import DIR_FLAGS, Stack, View, by_fd, read_xattrs, split
from builder.errors import PathNotFound


@contextlib.contextmanager
def times_kept(dir_fd: int) -> Iterator[None]:
    """Something of a lower directory is taken up into this one: nothing in it changes by that (LAY-01)."""
    before = os.fstat(dir_fd).st_mtime_ns
    yield
    os.utime(dir_fd, ns=(before, before))


class Upper(View):
    """A view whose topmost directory can be changed; see ``builder.cache.treewriter.Writer``.

    ``xattr_failed``, when set, is told of attributes that could not be set; see ``set_xattrs``.
    """

    def __init__(self, upper: Path, lowers: Sequence[Path] = (), *, userxattr: bool = False) -> None:
        super().__init__((upper, *lowers), userxattr=userxattr)
        self.upper = upper
        self.xattr_failed: XattrFailed | None = None

    # --- directories

    def _up(self, path: str) -> Stack:
        """The stack of an existing directory, its upper part made; PathNotFound when it is none."""
        stack = self._dir(path)
        if stack and stack[0][0] == 0:
            return stack
        if not stack:
            raise PathNotFound(f'"/{path}": not a directory', path=path)
        parent, name = split(path)
        st = self._stat_of(stack)
        xattrs = read_xattrs(by_fd(stack[0][1], "."))
        up = self._up(parent)[0][1]
        with times_kept(up):
            os.mkdir(name, 0o700, dir_fd=up)
        fd = os.open(name, DIR_FLAGS, dir_fd=up)
        self._finish(fd, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, xattrs, st.st_mtime_ns)
        stack = ((0, fd), *stack)
        self._dirs[path] = stack
        self._fds += 1
        return stack

    def _make_dir(self, parent: Stack, path: str, name: str) -> int:
        """A new upper directory where there is none; opaque when it would show a lower one."""
        up = parent[0][1]
        try:
            os.mkdir(name, 0o700, dir_fd=up)
        except FileExistsError:
            os.unlink(name, dir_fd=up)
            os.mkdir(name, 0o700, dir_fd=up)
        fd = os.open(name, DIR_FLAGS, dir_fd=up)
        if len(parent) > 1:
            below = self._find(parent[1:], name)
            if below is not None and stat.S_ISDIR(below[1].st_mode):
                os.setxattr(fd, self._opaque, b"y")
        self._forget(path)
        self._remember(path, ((0, fd),))
        return fd

    def _forget_below(self, path: str) -> None:
        self._forget(path)
        prefix = path + "/"
        for known in [known for known in self._dirs if known.startswith(prefix)]:
            self._forget(known)

    # --- metadata

    def _finish(
        self, fd: int, mode: int, uid: int, gid: int, xattrs: Mapping[str, bytes], mtime_ns: int | None
    ) -> None:
        """Owner, then attributes, mode and time: changing the owner clears set-id bits and capabilities."""
        st = os.fstat(fd)
        if ownership.MODE.owners:
            ownership.write(fd, st, uid, gid, self._records_of(0))
        elif st.st_uid != uid or st.st_gid != gid:
            os.fchown(fd, uid, gid)
            st = os.fstat(fd)
        if xattrs:
            set_xattrs(fd, xattrs, self.xattr_failed)
        if stat.S_IMODE(st.st_mode) != mode:
            os.fchmod(fd, mode)
        if mtime_ns is not None:
            os.utime(fd, ns=(mtime_ns, mtime_ns))

    def _finish_name(
        self,
        dir_fd: int,
        name: str,
        mode: int | None,
        uid: int,
        gid: int,
        xattrs: Mapping[str, bytes],
        mtime_ns: int | None,
        *,
        old: os.stat_result | None = None,
        device: str = "",
    ) -> None:
        """The same for an entry that is better not opened: a link, a node, an older file.

        ``device`` is what to record of a node that could not be made.
        """
        if ownership.MODE.nodes:
            old = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            known = self._records_of(0).get(old)
            device = device or (known.device if known is not None else "")
        st = old or os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if not ownership.MODE.owners and (st.st_uid != uid or st.st_gid != gid):
            os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if xattrs:
            set_xattrs(by_fd(dir_fd, name), xattrs, self.xattr_failed)
        if mode is not None and stat.S_IMODE(st.st_mode) != mode:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            try:
                os.chmod(by_fd(fd), mode)
            finally:
                os.close(fd)
        if mtime_ns is not None:
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
        if device or ownership.MODE.owners:
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            ownership.write(by_fd(dir_fd, name), st, uid, gid, self._records_of(0), device)
