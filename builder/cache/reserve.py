"""A little space that is kept so that a full disk can be freed: deleting writes to the database first.

The file ``reserve`` of a state directory takes it. A command that removes things gives it up when the disk is
full, and takes it again when there is room; without it everything works except removing on a full disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

NAME = "reserve"
SIZE = 1 << 20
_SHORT = 512 << 10
_PLENTY = 16 * SIZE


def lay(root: str) -> None:
    """Take the space if it can be had easily; never fails."""
    path = f"{root}/{NAME}"
    try:
        if os.path.exists(path) or not os.path.exists(f"{root}/VERSION") or _free(root) < _PLENTY:
            return
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE)
        finally:
            os.close(fd)
    except OSError:
        return


@contextmanager
def given_up(root: str) -> Iterator[None]:
    """While entered the space is free, if the disk is full."""
    try:
        if _free(root) < _SHORT:
            os.unlink(f"{root}/{NAME}")
    except OSError:
        pass
    try:
        yield
    finally:
        lay(root)


def _free(root: str) -> int:
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize
