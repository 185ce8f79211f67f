"""Files that a verb writes for the user: all of their content or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from builder.errors import UsageError


def prepare(path: str, *, stale: bool = False) -> None:
    """Say before a long work that ``path`` cannot be written after it. Raises UsageError.

    With ``stale`` a file of that name goes; a device or a pipe stays.
    """
    parent = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise UsageError(f"cannot write {path}: Is a directory")
    if not os.path.isdir(parent):
        raise UsageError(f"cannot write {path}: there is no directory {parent}")
    if not os.path.exists(path) and not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: Permission denied")
    if stale and os.path.isfile(path):
        try:
            os.unlink(path)
        except OSError as error:
            raise UsageError(f"cannot replace {path}: {error.strerror}") from error


@contextmanager
def written(path: str) -> Iterator[BinaryIO]:
    """A file that takes its place only when the block ends well; what is no regular file is written directly.

    Raises UsageError when it cannot be made.
    """
    direct = os.path.exists(path) and not os.path.isfile(path)
    staged = path if direct else f"{path}.tmp{os.getpid()}"
    try:
        file = open(staged, "wb")  # noqa: SIM115 - closed below, before it takes its place
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        with file:
            yield file
        if not direct:
            os.replace(staged, path)
    except BaseException:
        if not direct:
            os.unlink(staged)
        raise
