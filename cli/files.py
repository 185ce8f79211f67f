"""Files that a verb writes for the user: all of their content or nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Named(io.FileIO):
    """A file that is named by the errors of writing to it."""

    shown = ""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = self.shown
            raise


def named(path: str, shown: str, opener: Callable[[str, int], int] | None = None) -> io.BufferedWriter:
    """Open ``path`` for writing; errors call it ``shown``. Raises OSError."""
    file = _Named(path, "w", opener=opener)
    file.shown = shown
    return io.BufferedWriter(file)


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

    Raises UsageError when it cannot be made, and OSError with its name when it cannot be filled.
    """
    direct = os.path.exists(path) and not os.path.isfile(path)
    staged = path if direct else f"{path}.tmp{os.getpid()}"
    try:
        file = named(staged, path)
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
