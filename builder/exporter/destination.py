"""Where archives go: a file that appears whole, or standard output unless it is a terminal (EXO-05)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from builder.cache.faults import point
from builder.errors import ExportError, UsageError
from builder.pipes import for_writing


@contextmanager
def opened(dest: str, what: str, stdout: BinaryIO | None) -> Iterator[BinaryIO]:
    """A stream to write ``what`` to. A file is written beside ``dest`` and renamed at the end, so that a
    failed export leaves neither half a file nor a changed one. Raises UsageError for a terminal or a
    directory.
    """
    if dest in ("", "-"):
        with _standard_output(what, stdout) as out:
            yield out
        return
    path = Path(dest)
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise ExportError(f"cannot write {dest}: {error.strerror}") from error
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise UsageError(f"destination {dest} is a directory", hint=f"name a file for {what}")
    try:
        if found is not None and not stat.S_ISREG(found.st_mode):
            with open(path, "wb", opener=for_writing) as out:  # a pipe or a device: nothing to replace
                yield out
            return
        with _replacing(path, found) as out:
            yield out
    except OSError as error:
        raise ExportError(f"cannot write {dest}: {error.strerror or error}", hint=hint(error)) from error


@contextmanager
def _standard_output(what: str, stdout: BinaryIO | None) -> Iterator[BinaryIO]:
    if stdout is None:
        raise UsageError(f"{what} has no destination", hint="give dest=FILE")
    if stdout.isatty():
        raise UsageError(
            f"refusing to write {what} to a terminal", hint="give dest=FILE or redirect the output"
        )
    try:
        yield stdout
        stdout.flush()
    except OSError as error:
        raise ExportError(f"cannot write to standard output: {error.strerror}") from error


@contextmanager
def _replacing(path: Path, found: os.stat_result | None) -> Iterator[BinaryIO]:
    target = path.resolve()
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "wb") as out:
            yield out
        if found is not None:
            temporary.chmod(stat.S_IMODE(found.st_mode))
        point("export.written")
        temporary.replace(target)
        point("export.renamed")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def hint(error: OSError) -> str | None:
    """What to try, where that can be told."""
    import errno

    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
