"""Opening things below a directory, component by component, never through a symbolic link.

The equivalent of ``openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`` in plain ``openat`` calls: each
component is opened relative to the descriptor of the one before with ``O_NOFOLLOW``, so that a name that is
swapped for a link while we look ends in an error, not outside.
"""

from __future__ import annotations

import errno
import os
import stat

from builder.cache.tree import DIR_FLAGS

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_KEPT = 32
"""How many directories of a way stay open."""


def open_dir(root_fd: int, path: str) -> int:
    """A descriptor of the directory ``path`` below ``root_fd``; OSError (ELOOP, ENOTDIR) for a link."""
    fd = os.dup(root_fd)
    try:
        for name in path.split("/") if path else ():
            check_name(name)
            below = os.open(name, DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


class Near:
    """Directories below ``root_fd``; those on the way to the last one stay open, so that walks are short.

    One thread at a time. ``close`` releases them; they open again on use.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._way: list[tuple[str, int]] = []

    def close(self) -> None:
        """Forget what is open."""
        way, self._way = self._way, []
        for _, fd in way:
            os.close(fd)

    def dir(self, path: str) -> int:
        """A descriptor of the directory ``path``, good until the next call; OSError as in ``open_dir``."""
        way = self._way
        while way and path != way[-1][0] and not path.startswith(way[-1][0] + "/"):
            os.close(way.pop()[1])
        known, fd = way[-1] if way else ("", self._root_fd)
        if path == known:
            return fd
        for name in path[len(known) + 1 if known else 0 :].split("/"):
            check_name(name)
            fd = os.open(name, DIR_FLAGS, dir_fd=fd)
            known = f"{known}/{name}" if known else name
            way.append((known, fd))
            if len(way) > _KEPT:
                os.close(way.pop(0)[1])
        return fd


def open_file(dir_fd: int, name: str) -> int:
    """A descriptor of the regular file ``name``; a socket reads as an empty file (SLO-05).

    Nothing but a regular file is opened: a device or a fifo may act when it is merely opened.
    """
    check_name(name)
    st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_ISSOCK(st.st_mode):
        return os.memfd_create("empty")
    _must_be_regular(st, name)
    fd = os.open(name, FILE_FLAGS, dir_fd=dir_fd)
    try:
        _must_be_regular(os.fstat(fd), name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_name(name: str) -> None:
    """One component of a path: a real name."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)


def _must_be_regular(st: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(st.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(st.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)


def read_limited(fd: int, limit: int) -> bytes | None:
    """All of an open file, or None if it is longer than ``limit``."""
    chunks: list[bytes] = []
    left = limit + 1
    while left > 0 and (chunk := os.read(fd, min(left, 1 << 16))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks) if left > 0 else None
