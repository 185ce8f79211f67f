"""Locks that work between processes and between threads, and die with their owner (flock).

A named lock is a file below ``tmp/`` that exists only while somebody wants it. The holder unlinks it before
letting go, so whoever was waiting on the old file sees that it has no name any more and starts over on a
new one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from builder.cache.problems import from_os
from builder.errors import StoreBusy
from builder.oci.digest import sha256_hex

_FIRST_DELAY_S = 0.0005
_LONGEST_DELAY_S = 0.02


def try_flock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock on an open file if nobody else has it."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def names_fd(path: str, fd: int) -> bool:
    """Whether ``path`` still leads to the open file ``fd``."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return named.st_ino == held.st_ino and named.st_dev == held.st_dev


class NamedLock:
    """An exclusive (or shared) lock by name; a context manager that is used once.

    ``on_wait`` is called once, when somebody else turns out to hold it; ``check`` again and again while
    waiting, and may raise to give up. Cancelled when the thread's stop signal is set meanwhile; StoreBusy
    after ``timeout_s``. ``note`` is for those who wait.
    """

    __slots__ = ("_check", "_fd", "_name", "_note", "_on_wait", "_path", "_shared", "_timeout_s")

    def __init__(
        self,
        tmp: str,
        name: str,
        *,
        shared: bool = False,
        note: str = "",
        timeout_s: float | None = None,
        on_wait: Callable[[], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        digest = sha256_hex(name.encode("utf-8", "surrogateescape"))
        self._path = f"{tmp}/lock-{digest[:40]}"
        self._name = name
        self._shared = shared
        self._note = note
        self._timeout_s = timeout_s
        self._on_wait = on_wait
        self._check = check
        self._fd = -1

    def __enter__(self) -> None:
        if self.try_acquire():
            return
        from builder.cancelling import check as check_cancelled

        started = time.monotonic()
        delay = _FIRST_DELAY_S
        told = self._on_wait is None
        while True:
            time.sleep(delay)
            if self.try_acquire():
                return
            waited = time.monotonic() - started
            if not told and waited > 0.003:  # a sweep looks at every lock for an instant
                told = True
                if self._on_wait is not None:
                    self._on_wait()
            if self._check is not None:
                self._check()
            check_cancelled()
            if self._timeout_s is not None and waited >= self._timeout_s:
                raise StoreBusy(
                    f"another process holds {self._name!r} for more than {self._timeout_s:g} seconds",
                    hint="try again when it is done",
                )
            delay = min(delay * 1.5, _LONGEST_DELAY_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def try_acquire(self) -> bool:
        """Take the lock if it is free; the caller then owes a ``release()``."""
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise from_os(error, f"take the lock {self._name!r}") from error
            try:
                if not try_flock(fd, shared=self._shared):
                    os.close(fd)
                    return False
                current = names_fd(self._path, fd)
            except BaseException:
                os.close(fd)
                raise
            if current:
                self._fd = fd
                if self._note:
                    self._write_note(fd)
                return True
            os.close(fd)

    def is_wanted(self) -> bool:
        """Whether its file is there; without one nobody has it, which a read-only disk can tell, too."""
        return os.path.lexists(self._path)

    def note(self) -> str:
        """What the holder noted; "" while there is none, or nothing."""
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                return file.read()
        except OSError:
            return ""

    def _write_note(self, fd: int) -> None:
        with suppress(OSError):  # a full disk
            os.ftruncate(fd, 0)  # of a dead holder
            os.pwrite(fd, self._note.encode("utf-8", "surrogateescape"), 0)

    def release(self) -> None:
        """Let go; the file goes too unless others share the lock."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if not self._shared or (try_flock(fd) and names_fd(self._path, fd)):
                try:
                    os.unlink(self._path)
                except FileNotFoundError:
                    pass
        finally:
            os.close(fd)


class Gate:
    """Many publish at a time, or one removes.

    ``passing()`` is shared and held while something is published or protected; ``removing()`` is exclusive
    and held while rows and files are unlinked, so nothing disappears between a look and the use of what was
    seen. Both go through a second lock first, so those who pass cannot keep out the one who wants to
    remove.
    """

    __slots__ = ("_gate", "_path", "_wait_s")

    def __init__(self, root: str, *, wait_s: float = 30.0) -> None:
        self._gate = f"{root}/gate.lock"
        self._path = f"{root}/gc.lock"
        self._wait_s = wait_s

    def passing(self) -> _GateHeld:
        """Shared."""
        return _GateHeld(self._gate, self._path, True, self._wait_s)

    def removing(self) -> _GateHeld:
        """Exclusive. Not inside ``passing()`` of the same thread."""
        return _GateHeld(self._gate, self._path, False, self._wait_s)


class _GateHeld:
    __slots__ = ("_fd", "_gate", "_path", "_shared", "_wait_s")

    def __init__(self, gate: str, path: str, shared: bool, wait_s: float) -> None:
        self._gate = gate
        self._path = path
        self._shared = shared
        self._wait_s = wait_s
        self._fd = -1

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._wait_s
        try:
            gate = os.open(self._gate, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _flock_until(gate, False, deadline)
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    _flock_until(self._fd, self._shared, deadline)
                except BaseException:
                    os.close(self._fd)
                    raise
            finally:
                os.close(gate)
        except OSError as error:
            raise from_os(error, "lock the state directory") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _flock_until(fd: int, shared: bool, deadline: float) -> None:
    delay = _FIRST_DELAY_S
    while not try_flock(fd, shared=shared):
        if time.monotonic() >= deadline:
            raise StoreBusy(
                "another process is changing the state directory and does not finish",
                hint="look for a stopped pybuild process",
            )
        time.sleep(delay)
        delay = min(delay * 1.5, _LONGEST_DELAY_S)
