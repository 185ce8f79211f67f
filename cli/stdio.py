"""Standard streams that the caller has closed (``<&-``): nothing that we open may take their numbers.

A closed input is empty and closed diagnostics go nowhere. Writing to a closed output fails, as a result
that nobody gets is no success.
"""

from __future__ import annotations

import os
import sys


def fill() -> None:
    """Open what is missing of 0, 1 and 2, and make its stream."""
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            _move(os.open(os.devnull, flags), fd)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _move(found: int, fd: int) -> None:
    if found == fd:
        os.set_inheritable(fd, True)
        return
    os.dup2(found, fd)
    os.close(found)
