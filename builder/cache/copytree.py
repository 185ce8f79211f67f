"""Copies a stack of directories, topmost first, into one: what an overlay mount of them would show.

Ownership, modes, extended attributes, times, hard links, devices, fifos, sockets and holes are kept; data
is shared with the source where the file system can (reflink), else copied in the kernel. Sources must be at
rest.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from builder.cache import ownership
from builder.cache.treepaths import by_fd, copy_xattrs

_FICLONE = 0x40049409
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_CHUNK = 1 << 20


def merge_trees(layers: Sequence[str], target: str, *, link: bool = False) -> None:
    """Fill the existing, empty directory ``target``; with ``link`` regular files become hard links to the
    source.

    Raises OSError. What was copied before it stays; the caller drops the target.
    """
    sources: list[int] = []
    try:
        for layer in layers:
            sources.append(os.open(layer, _DIR))
        target_fd = os.open(target, _DIR)
        mine, sources = sources, []
        _Merge(link=link, layers=layers, target=target).run(mine, target_fd)
    finally:
        for fd in sources:
            os.close(fd)


class _Frame:
    """One directory being merged: its layers' descriptors, the target's, and the directories still to
    visit.
    """

    __slots__ = ("pending", "sources", "target")

    def __init__(self, sources: list[int], target: int) -> None:
        self.sources = sources
        self.target = target
        self.pending: list[tuple[str, list[int]]] = []

    def close(self) -> None:
        for fd in (*self.sources, self.target):
            os.close(fd)


class _Merge:
    def __init__(self, *, link: bool, layers: Sequence[str], target: str) -> None:
        self._link = link
        self._recorded: dict[int, ownership.Record] = {}
        if ownership.MODE.nodes:
            self._records = ownership.Records(Path(target))
            for layer in layers:
                self._recorded |= ownership.Records(Path(layer)).items()
        self._reflink = True
        self._seen: dict[tuple[int, int], str] = {}
        self._root = -1

    def run(self, sources: list[int], target: int) -> None:
        """Takes over all descriptors."""
        self._root = target
        stack = [_Frame(sources, target)]
        names: list[str] = []
        try:
            self._files(stack[-1], "")
            while stack:
                frame = stack[-1]
                if frame.pending:
                    name, owners = frame.pending.pop()
                    child = self._enter(frame, name, owners)
                    stack.append(child)
                    names.append(name)
                    self._files(child, "/".join(names))
                    continue
                _copy_meta_fd(frame.sources[0], frame.target)
                if names:
                    names.pop()
                stack.pop().close()
        finally:
            for frame in reversed(stack):
                frame.close()

    def _enter(self, frame: _Frame, name: str, owners: list[int]) -> _Frame:
        os.mkdir(name, 0o700, dir_fd=frame.target)
        opened: list[int] = []
        try:
            for index in owners:
                opened.append(os.open(name, _DIR, dir_fd=frame.sources[index]))
            return _Frame(opened, os.open(name, _DIR, dir_fd=frame.target))
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise

    def _files(self, frame: _Frame, where: str) -> None:
        """Copy what is not a directory; note the directories, with the layers that take part in each."""
        closed: set[str] = set()
        directories: dict[str, list[int]] = {}
        for index, source in enumerate(frame.sources):
            with os.scandir(source) as entries:
                listed = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
            for name, status in listed:
                if name in closed:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    directories.setdefault(name, []).append(index)
                    if _is_opaque(source, name):
                        closed.add(name)
                    continue
                closed.add(name)
                if name in directories or (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
                    continue
                self._copy(name, status, source, frame.target, f"{where}/{name}" if where else name)
                if record := self._recorded.get(status.st_ino):
                    made = os.stat(name, dir_fd=frame.target, follow_symlinks=False)
                    self._records.add(made.st_ino, record)
        frame.pending = sorted(directories.items(), reverse=True)

    def _copy(self, name: str, status: os.stat_result, source: int, target: int, path: str) -> None:
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            first = self._seen.setdefault(key, path)
            if first != path:
                self._link_first(first, name, target)
                return
        mode = status.st_mode
        if stat.S_ISREG(mode):
            if self._link and _try_link(name, source, target):
                return
            self._regular(name, status, source, target)
            return
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, mode, status.st_rdev, dir_fd=target)
        _own(name, status, target)
        copy_xattrs(by_fd(source, name), by_fd(target, name))
        if not stat.S_ISLNK(mode):
            os.chmod(name, stat.S_IMODE(mode), dir_fd=target)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)

    def _link_first(self, first: str, name: str, target: int) -> None:
        """``first`` may be longer than a path can be: walk to its directory."""
        directory, _, base = first.rpartition("/")
        fd = os.dup(self._root)
        try:
            for part in directory.split("/") if directory else ():
                inner = os.open(part, _DIR, dir_fd=fd)
                os.close(fd)
                fd = inner
            os.link(base, name, src_dir_fd=fd, dst_dir_fd=target, follow_symlinks=False)
        finally:
            os.close(fd)

    def _regular(self, name: str, status: os.stat_result, source: int, target: int) -> None:
        fd_in = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd_out = os.open(name, flags, 0o600, dir_fd=target)
            try:
                if status.st_size:
                    self._data(fd_in, fd_out, status)
                _copy_meta_fd(fd_in, fd_out, status)
            finally:
                os.close(fd_out)
        finally:
            os.close(fd_in)

    def _data(self, source: int, target: int, status: os.stat_result) -> None:
        if self._reflink:
            try:
                fcntl.ioctl(target, _FICLONE, source)
                return
            except OSError:
                self._reflink = False
        copy_data(source, target, status.st_size, sparse=status.st_blocks * 512 < status.st_size)


def copy_data(source: int, target: int, size: int, *, sparse: bool) -> None:
    """Copy ``size`` bytes between two files from their start, holes kept when ``sparse``."""
    if not sparse:
        _copy_range(source, target, 0, size)
        return
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        _copy_range(source, target, start, end)
        position = end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    position = start
    try:
        while position < end:
            done = os.copy_file_range(source, target, end - position, position, position)
            if done == 0:
                return
            position += done
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    while position < end:
        data = os.pread(source, min(_CHUNK, end - position), position)
        if not data:
            return
        position += os.pwrite(target, data, position)


def _is_opaque(parent: int, name: str) -> bool:
    path = f"/proc/self/fd/{parent}/{name}"
    for attribute in _OPAQUE:
        try:
            if os.getxattr(path, attribute, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def _try_link(name: str, source: int, target: int) -> bool:
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EPERM, errno.EXDEV):
            raise
        return False
    return True


def _own(name: str, status: os.stat_result, target: int) -> None:
    made = os.stat(name, dir_fd=target, follow_symlinks=False)
    if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_meta_fd(source: int, target: int, status: os.stat_result | None = None) -> None:
    """Owner before mode, because a change of owner clears set-id bits; times last."""
    wanted = os.fstat(source) if status is None else status
    made = os.fstat(target)
    if (made.st_uid, made.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.fchown(target, wanted.st_uid, wanted.st_gid)
    copy_xattrs(source, target)
    os.fchmod(target, stat.S_IMODE(wanted.st_mode))
    os.utime(target, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))
