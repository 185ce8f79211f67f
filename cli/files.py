"""Files that a verb writes for the user: all of their content or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from builder.errors import UsageError


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
