"""Removes directory trees that others filled: any depth, any modes, without following links or crossing
mounts.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from builder.cache.problems import translated
from builder.cache.staging import token
from builder.errors import StoreError

_MAX_DEPTH = 64
_MAX_PASSES = 10_000
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Freed:
    """How much space removals gave back."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, name: str, parent: int | None) -> None:
        """An entry is about to go; a file that has another name gives nothing back."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            self.size += status.st_blocks * 512


_freed: ContextVar[Freed | None] = ContextVar("freed", default=None)


@contextmanager
def counted() -> Iterator[Freed]:
    """What is removed inside, in this thread, is counted."""
    found = Freed()
    before = _freed.set(found)
    try:
        yield found
    finally:
        _freed.reset(before)


def remove_tree(path: str) -> None:
    """Remove a file or a whole tree; nothing there, or somebody else removing it too, is fine.

    Refuses (StoreError ``store-mounted``) when something is mounted inside: deleting through a forgotten
    bind mount would delete what belongs to somebody else.
    """
    with translated("remove"):
        if not _is_real_dir(path):
            _unlink(path, None)
            return
        mounted = _mount_below(path)
        if mounted is not None:
            raise StoreError(
                f"not removed: {mounted} is a mount point inside {path}",
                hint=f"unmount it: umount {mounted}",
                code="store-mounted",
            )
        for _ in range(_MAX_PASSES):
            if _remove_dir(path):
                return
        raise StoreError(f"not removed: {path} keeps being filled", hint="a process still works in it")


def discard_path(path: str, tmp: str) -> None:
    """Rename ``path`` into ``tmp`` (so that it is gone at once, and rubbish if we die), then remove it."""
    gone = f"{tmp}/gone-{token()}"
    with translated("remove"):
        try:
            os.rename(path, gone)
        except FileNotFoundError:
            return
    remove_tree(gone)


def _remove_dir(path: str) -> bool:
    """One pass over a tree. What lies deeper than ``_MAX_DEPTH`` is moved up, and another pass is needed:
    False.
    """
    try:
        top = os.open(path, _FLAGS)
    except FileNotFoundError:
        return True
    except PermissionError:
        os.chmod(path, 0o700)
        top = os.open(path, _FLAGS)
    try:
        complete = _empty(top)
    finally:
        os.close(top)
    return complete and _rmdir(path, None)


def _empty(top: int) -> bool:
    """Remove what is inside, depth first with a stack of open directories."""
    stack: list[tuple[int, str, list[str]]] = [(top, "", _clear_files(top))]
    complete = True
    try:
        while stack:
            fd, name, pending = stack[-1]
            if pending:
                child = pending.pop()
                if len(stack) >= _MAX_DEPTH:
                    os.rename(child, f"deep-{token()}", src_dir_fd=fd, dst_dir_fd=top)
                    complete = False
                    continue
                inner = _open_child(child, fd)
                if inner is not None:
                    stack.append((inner, child, []))
                    stack[-1] = (inner, child, _clear_files(inner))
                continue
            stack.pop()
            if stack:
                os.close(fd)
                complete = _rmdir(name, stack[-1][0]) and complete
    finally:
        for fd, _, _ in stack[1:]:
            os.close(fd)
    return complete


def _clear_files(fd: int) -> list[str]:
    """Unlink everything in a directory that is not a directory; returns the names of those that are."""
    _make_writable(fd)
    directories: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                _unlink(entry.name, fd)
    return directories


def _make_writable(fd: int) -> None:
    """Without root, a directory that is not writable keeps its entries."""
    if os.geteuid() != 0 and os.fstat(fd).st_mode & 0o700 != 0o700:
        os.chmod(fd, 0o700)


def _open_child(name: str, parent: int) -> int | None:
    try:
        return os.open(name, _FLAGS, dir_fd=parent)
    except FileNotFoundError:
        return None
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)  # a real directory: is_dir said so without following links
        return os.open(name, _FLAGS, dir_fd=parent)


def _unlink(name: str, parent: int | None) -> None:
    _count(name, parent)
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass


def _count(name: str, parent: int | None) -> None:
    freed = _freed.get()
    if freed is not None:
        freed.add(name, parent)


def _rmdir(name: str, parent: int | None) -> bool:
    """False when something is in it again: somebody else removes the same tree and moved a deep part up."""
    _count(name, parent)
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return False
        raise
    return True


def _is_real_dir(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _mount_below(path: str) -> str | None:
    """A mount point of this process's namespace at or below ``path``."""
    prefix = os.fsencode(os.path.realpath(path))
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            table = file.read()
    except OSError:
        return None
    if prefix.rpartition(b"/")[2] not in table:
        return None
    for line in table.splitlines():
        point = _unescape(line.split(b" ", 5)[4])
        if point == prefix or point.startswith(prefix + b"/"):
            return os.fsdecode(point)
    return None


def _unescape(field: bytes) -> bytes:
    """mountinfo writes space, tab, newline and backslash as octal."""
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, char)
    return field
