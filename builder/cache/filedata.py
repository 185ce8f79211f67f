"""Moving bytes and attributes to open files, removing what is in the way; relative to open directories."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping

from builder.cache.treepaths import OVERLAY_XATTRS, TreeError

_SMALL = 256 * 1024
_CHUNK = 1024 * 1024
_PAUSES_S = (0.01, 0.04, 0.16)
_DEEP = 64
_NOT_POSSIBLE = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
}
_IGNORED_XATTR_ERRORS = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL}
_XATTR_TOO_BIG = {errno.ENOSPC, errno.E2BIG, errno.ERANGE}
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

XattrFailed = Callable[[str, OSError], None]


def write_all(fd: int, data: bytes) -> None:
    """Write everything; a short write goes on."""
    done = os.write(fd, data)
    if done < len(data):
        rest = memoryview(data)
        while done < len(data):
            done += os.write(fd, rest[done:])


def copy_data(source: int, target: int, st: os.stat_result) -> None:
    """Copy a regular file's content: shared blocks where the file system can, holes kept as holes.

    ``st`` is the source's stat; the target is new and empty. A file that is written meanwhile is copied
    again, at most three times, so that the copy is what it was at one moment (SLO-06).
    """
    _copy(source, target, st)
    for pause_s in _PAUSES_S:
        now = os.fstat(source)
        if now.st_mtime_ns == st.st_mtime_ns and now.st_size == st.st_size:
            return
        time.sleep(pause_s)
        st = os.fstat(source)
        os.ftruncate(target, 0)
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        _copy(source, target, st)


def _copy(source: int, target: int, st: os.stat_result) -> None:
    size = st.st_size
    if st.st_blocks * 512 < size:
        _copy_sparse(source, target, size)
    elif size <= _SMALL:
        while data := os.read(source, max(size, 4096) + 1):
            write_all(target, data)
            if len(data) <= size:  # one read gave all there is
                break
    else:
        _copy_range(source, target, 0, None)


def _copy_sparse(source: int, target: int, size: int) -> None:
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
            offset = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole remains
                return
            raise
        _copy_range(source, target, start, offset - start)


def _copy_range(source: int, target: int, start: int, count: int | None) -> None:
    """Copy ``count`` bytes at the same place, or all until the end of the file."""
    os.lseek(source, start, os.SEEK_SET)
    os.lseek(target, start, os.SEEK_SET)
    left = count
    while left is None or left > 0:
        want = 1 << 30 if left is None else left
        try:
            done = os.copy_file_range(source, target, want)
        except OSError as error:
            if error.errno not in _NOT_POSSIBLE:
                raise
            _copy_by_hand(source, target, left)
            return
        if done == 0:
            return
        left = None if left is None else left - done


def _copy_by_hand(source: int, target: int, count: int | None) -> None:
    while count is None or count > 0:
        data = os.read(source, _CHUNK if count is None else min(_CHUNK, count))
        if not data:
            return
        write_all(target, data)
        count = None if count is None else count - len(data)


def remove_tree(dir_fd: int, name: str) -> None:
    """Remove ``name`` in an open directory with all below it; nothing there is fine. Follows no link.

    Any depth is handled with a bounded number of open directories: what lies very deep is moved up first.
    """
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=dir_fd)
            return
    except FileNotFoundError:
        return
    top = _open_dir(name, dir_fd)
    try:
        moved = 0
        while True:
            before = moved
            moved = _empty(top, top, 0, moved)
            if moved == before:
                break
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _open_dir(name: str, dir_fd: int) -> int:
    """Open a directory, giving ourselves the right to first when its mode denies it."""
    try:
        return os.open(name, _DIR_FLAGS, dir_fd=dir_fd)
    except PermissionError:
        fd = os.open(name, _DIR_FLAGS | os.O_PATH, dir_fd=dir_fd)
        try:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            os.close(fd)
        return os.open(name, _DIR_FLAGS, dir_fd=dir_fd)


def _empty(fd: int, top: int, depth: int, moved: int) -> int:
    """Remove what is in ``fd``; directories too deep move to ``top``. Gives how many moved so far."""
    with os.scandir(fd) as listing:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
    for name, is_dir in entries:
        if not is_dir:
            os.unlink(name, dir_fd=fd)
        elif depth >= _DEEP:
            moved += 1
            os.rename(name, f".removing-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top)
        else:
            inner = _open_dir(name, fd)
            try:
                moved = _empty(inner, top, depth + 1, moved)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=fd)
    return moved


def write_pieces(fd: int, pieces: Iterable[bytes | int]) -> None:
    """Write bytes; a number stands for a hole of that length."""
    hole_at_end = False
    for piece in pieces:
        hole_at_end = isinstance(piece, int)
        if isinstance(piece, int):
            os.lseek(fd, piece, os.SEEK_CUR)
        else:
            write_all(fd, piece)
    if hole_at_end:
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))


def set_xattrs(target: int | str, xattrs: Mapping[str, bytes], failed: XattrFailed | None = None) -> None:
    """Set attributes as far as the file system and our rights allow.

    With ``failed`` nothing is an error: it is told of those that could not be set, and why. Without it the
    ones that are not supported are passed over, and TreeError is raised for one that is too big.
    """
    for name, value in sorted(xattrs.items()):
        if name.startswith(OVERLAY_XATTRS):
            continue
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if failed is not None:
                failed(name, error)
                continue
            if error.errno in _XATTR_TOO_BIG:
                raise TreeError(f"extended attribute {name}: too big for this file system") from error
            if error.errno not in _IGNORED_XATTR_ERRORS:
                raise
