"""What is certain to fail in an output is said before the build, not after it (EXP-03, EXO-05, EXL-01).

Nothing is written here: a place that can be written to now may still be full when its turn comes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from builder.errors import ExportError, InvalidValue, UsageError
from builder.exporter.types import OutputSpec
from builder.oci.reference import Reference


def check(outputs: Iterable[OutputSpec], root: Path) -> None:
    """Names and places of all outputs; ``root`` is the state directory. Raises UsageError, ExportError."""
    files: set[str] = set()
    for spec in outputs:
        _names(spec)
        if spec.type == "docker" and not spec.dest:
            raise UsageError("docker archive has no destination", hint="give dest=FILE")
        if spec.dest in ("", "-") or spec.type in ("image", "cacheonly"):
            continue
        if spec.type == "local" or (spec.type != "tar" and not spec.tar):
            directory(spec.dest)
        else:
            file(spec.dest, f"{spec.type} archive" if spec.type != "tar" else "tar archive")
            real = os.path.realpath(spec.dest)
            if real in files and (os.path.isfile(real) or not os.path.exists(real)):
                raise UsageError(f"two outputs go to {spec.dest}", hint="give each a file of its own")
            files.add(real)
        if spec.type == "local" and spec.mode == "delete":
            _not_over(Path(spec.dest), root)


def file(dest: str, what: str) -> None:
    """A file to be made or replaced: its directory is there and can be written to."""
    path = Path(dest)
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(f"destination {dest} is a directory", hint=f"name a file for {what}")
    if mode is not None and not stat.S_ISREG(mode):
        return
    parent = Path(os.path.realpath(path)).parent
    found = _mode(parent)
    if found is None:
        raise ExportError(f"cannot write {dest}: there is no directory {parent}", hint=f"mkdir -p {parent}")
    if not stat.S_ISDIR(found):
        raise ExportError(f"cannot write {dest}: {parent} is not a directory")
    _writable(parent, dest)


def _names(spec: OutputSpec) -> None:
    if spec.dangling_prefix:
        _reference(spec.dangling_prefix)
    names = [_reference(name) for name in spec.names if name != "*"]
    if spec.type != "image" or not (spec.push or spec.push_by_digest):
        return
    if not names:
        raise UsageError("tag is needed when pushing to registry", hint="give a name")
    for name in names:
        if spec.push_by_digest and name.tag not in (None, "latest"):
            raise UsageError(f"can't push tagged ref {name} by digest", hint="give a name without a tag")


def _reference(name: str) -> Reference:
    try:
        return Reference.parse(name)
    except InvalidValue as error:
        raise UsageError(error.message, hint=error.hint) from error


def directory(dest: str) -> None:
    """A directory, or a place where one can be made."""
    path = here = Path(dest)
    while (mode := _mode(here)) is None:
        if os.path.islink(here):
            raise ExportError(f"cannot write {path}: {here} is a link that leads nowhere")
        here = here.absolute().parent
    if not stat.S_ISDIR(mode):
        raise ExportError(f"cannot write {path}: {here} is not a directory")
    _writable(here, path)


def _writable(directory: Path, dest: object) -> None:
    if not os.access(directory, os.W_OK | os.X_OK):
        reason = "the file system is read-only" if _read_only(directory) else "permission denied"
        raise ExportError(f"cannot write {dest}: {directory}: {reason}")


def _read_only(directory: Path) -> bool:
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _not_over(dest: Path, root: Path) -> None:
    """``mode=delete`` empties its directory of all else."""
    real, store = os.path.realpath(dest), os.path.realpath(root)
    if os.path.commonpath([real, store]) == real:
        what = "the whole file system" if real == "/" else f"the state directory {root}"
        raise UsageError(f"mode=delete in {dest} would remove {what}", hint="choose a directory of its own")


def _mode(path: Path) -> int | None:
    """The kind of what is there, links followed; None when there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ExportError(f"cannot write {path}: {reason}") from error
