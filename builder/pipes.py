"""Opening what may be a named pipe: a plain open waits for the other end, and no signal ends that."""

from __future__ import annotations

import errno
import os

from builder.cancelling import pause

_POLL_S = 0.05


def at_once(path: str, flags: int) -> int:
    """An opener for files to read that are no pipes in earnest: one is taken for empty if nobody writes."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def for_writing(path: str, flags: int) -> int:
    """An opener that waits for a pipe's reader until the signal in force is set (Cancelled)."""
    while True:
        try:
            fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            pause(_POLL_S)
            continue
        os.set_blocking(fd, True)
        return fd
