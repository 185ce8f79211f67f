"""Translates what SQLite and the kernel say into the store's own errors. Every door to disk in this room
uses it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from builder.errors import StoreBusy, StoreError, StoreFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_HINT = "free some space (pybuild prune), or put the state directory on a larger disk with --root"
_PERMISSION_HINT = "run as the user who owns the state directory, or choose another one with --root"
_LONGEST = 500  # SQLite opens paths of up to 512 bytes, the names of its own files included
_READ_ONLY_HINT = "the state directory is on a read-only file system: choose another one with --root"
_HINTS = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "look at the kernel log: the disk may be failing",
}
_ENTRY_HINTS = {
    errno.ENAMETOOLONG: "make the path shorter in the step that makes it",
    errno.E2BIG: "its extended attributes are larger than the file system takes",
}


def from_os(error: OSError, doing: str) -> StoreError:
    """The StoreError for a failed system call; ``doing`` completes "cannot ..."."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    where = f"{path}: " if path else ""
    message = f"cannot {doing}: {where}{error.strerror or error}"
    if error.errno in _FULL:
        return StoreFull(message, hint=_FULL_HINT)
    if error.errno == errno.EROFS:
        return StoreError(message, hint=_READ_ONLY_HINT, code="store-read-only")
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreError(message, hint=_PERMISSION_HINT, code="store-permission")
    return StoreError(message, hint=_HINTS.get(error.errno or 0))


def at_entry(error: OSError, doing: str) -> StoreError:
    """The same where ``doing`` names the entry of a tree; the name that the kernel was given is left out."""
    found = from_os(OSError(error.errno, error.strerror or str(error)), doing)
    if error.errno in (errno.EACCES, errno.EPERM):
        found.hint = None  # the entry may be one of the build's context
    found.hint = found.hint or _ENTRY_HINTS.get(error.errno or 0)
    return found


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is in the way and trying again makes sense."""
    code = _primary(error)
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def from_sqlite(error: sqlite3.Error, doing: str, path: str) -> StoreError:
    """The StoreError for a failed statement or connection on the database at ``path``."""
    code = _primary(error)
    message = f"cannot {doing}: {path}: {error}"
    if is_busy(error):
        return StoreBusy(message, hint="other pybuild processes are using the state directory; try again")
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(message, hint=_FULL_HINT)
    if code == sqlite3.SQLITE_READONLY:
        return StoreError(message, hint=_read_only_hint(path), code="store-read-only")
    if code == sqlite3.SQLITE_CANTOPEN and len(os.fsencode(path)) > _LONGEST:
        return StoreError(message, hint="the path is too long for SQLite: choose a shorter --root")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return StoreError(message, hint=_read_only_hint(path), code="store-permission")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such table" in str(error):
        return StoreError(
            message,
            hint="the database was changed or damaged from outside: move the state directory away",
            code="store-corrupt",
        )
    if code == sqlite3.SQLITE_IOERR:
        return _io_error(message, path)
    return StoreError(message)


class translated:  # noqa: N801  (reads as a phrase: with translated("write a blob"))
    """``with translated("write a blob"):`` turns OSError into StoreError; other exceptions pass."""

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise from_os(error, self._doing) from error


@contextmanager
def if_writable() -> Iterator[None]:
    """For notes that only save time, or tell of what is done: a full or read-only disk loses them."""
    try:
        yield
    except StoreError as error:
        if not isinstance(error, StoreFull) and error.code != "store-read-only":
            raise


def _primary(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR
    return code & 0xFF


def _read_only_hint(path: str) -> str:
    try:
        flags = os.statvfs(os.path.dirname(path)).f_flag
    except OSError:
        return _PERMISSION_HINT
    return _READ_ONLY_HINT if flags & os.ST_RDONLY else _PERMISSION_HINT


def _io_error(message: str, path: str) -> StoreError:
    """SQLite reports some writes on a full disk as plain I/O errors; the file system knows better."""
    try:
        free = os.statvfs(os.path.dirname(path))
    except OSError:
        return StoreError(message)
    if free.f_bavail * free.f_frsize < 1 << 20:
        return StoreFull(message, hint=_FULL_HINT)
    return StoreError(message, hint=_HINTS[errno.EIO])
