"""Entries of ``tmp/``: made by a live process that holds a flock on them, rubbish once nobody does.

The first part of a name says what it is: ``stage-`` a directory, ``blob-`` a blob being written, ``pub-`` a
blob being published, ``own-`` and ``hold-`` a process's claims, ``lock-`` a named lock, ``gone-`` something
being removed.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path
from types import TracebackType

from builder.cache.locks import names_fd, try_flock
from builder.cache.problems import translated

_counter = itertools.count()


def token() -> str:
    """A name that no other call returns, in any process on this machine."""
    return f"{os.getpid():x}-{next(_counter):x}-{time.monotonic_ns():x}"


def claim_file(tmp: str, prefix: str) -> tuple[str, int]:
    """A new, empty, locked file below ``tmp``: its path and a descriptor opened for reading and writing.

    A sweep may catch a file between its creation and its lock; then another is made.
    """
    while True:
        path = f"{tmp}/{prefix}-{token()}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        if try_flock(fd) and names_fd(path, fd):
            return path, fd
        os.close(fd)


def claim_dir(tmp: str, prefix: str) -> tuple[str, int]:
    """A new, locked directory below ``tmp``: its path and the descriptor that holds the lock."""
    while True:
        path = f"{tmp}/{prefix}-{token()}"
        try:
            os.mkdir(path, 0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, FileNotFoundError):
            continue
        if try_flock(fd) and names_fd(path, fd):
            return path, fd
        os.close(fd)


class Owner:
    """This process as an owner of rows: a locked file whose name they carry, made when first needed."""

    def __init__(self, tmp: str) -> None:
        self._tmp = tmp
        self._lock = threading.Lock()
        self._path = ""
        self._fd = -1

    def name(self) -> str:
        """The name to write into rows."""
        with self._lock:
            if self._fd < 0:
                with translated("claim a place in the state directory"):
                    self._path, self._fd = claim_file(self._tmp, "own")
            return self._path.rpartition("/")[2]

    def made(self) -> str | None:
        """The name, if anything was ever owned."""
        return self._path.rpartition("/")[2] if self._fd >= 0 else None

    def close(self, *, forget: bool) -> None:
        """Give up every claim. ``forget``: no row carries the name; else a sweep deals with those that do."""
        with self._lock:
            if self._fd >= 0:
                if forget:
                    os.unlink(self._path)
                os.close(self._fd)
                self._fd = -1


class Staging:
    """``with Staging(tmp, "unpack") as directory:`` a private directory that is gone afterwards, whatever
    happens.
    """

    __slots__ = ("_fd", "_path", "_prefix", "_tmp")

    def __init__(self, tmp: str, prefix: str) -> None:
        self._tmp = tmp
        self._prefix = prefix
        self._fd = -1
        self._path = ""

    def __enter__(self) -> Path:
        safe = "".join(c if c.isalnum() else "_" for c in self._prefix)[:40]
        with translated("make a staging directory"):
            self._path, self._fd = claim_dir(self._tmp, f"stage-{safe}")
        return Path(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from builder.cache.removal import remove_tree

        try:
            remove_tree(self._path)
        finally:
            os.close(self._fd)
