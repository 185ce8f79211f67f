"""Finding the Dockerfile and its ignore file (CTX-01, IGN-01, BLD-21, BLD-22, CVE-2022-4122).

Inside a context both are read as the build reads files: a link is followed inside the context only, so a
context made by somebody else cannot disclose a file of this machine. A Dockerfile outside of the context is
the user's own path and is opened as given.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from builder.cache.tree import clean, join
from builder.errors import PathNotFound, SourceUnavailable
from builder.sources.beneath import read_limited
from builder.sources.contexttree import ContextTree

DEFAULT_NAME = "Dockerfile"
DOCKERFILE_LIMIT = 16 << 20
IGNORE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDockerfile:
    """The text, the name to show, and the text of its ignore file (None: there is none)."""

    data: bytes
    name: str
    ignore_text: bytes | None = None
    ignore_name: str = ""


def find_in_tree(tree: ContextTree, name: str | None, *, place: str = "") -> FoundDockerfile:
    """Read the Dockerfile ``name`` (default: Dockerfile, then dockerfile) of a tree, and its ignore file.

    ``place`` is where the user has the tree, if it is not a directory of theirs.
    """
    wanted = clean(name) if name else DEFAULT_NAME
    data = read_file(tree, wanted, DOCKERFILE_LIMIT)
    if data is None and wanted.rpartition("/")[2] == DEFAULT_NAME:
        lower = join(wanted.rpartition("/")[0], DEFAULT_NAME.lower())
        data = read_file(tree, lower, DOCKERFILE_LIMIT)
        wanted = lower if data is not None else wanted
    if data is None:
        raise missing_dockerfile(wanted, tree.root / wanted, place=place)
    ignore_text, ignore_name = ignore_of(tree, wanted)
    return FoundDockerfile(data=data, name=wanted, ignore_text=ignore_text, ignore_name=ignore_name)


def find_outside(path: Path, context: ContextTree) -> FoundDockerfile:
    """Read a Dockerfile outside of the context; its own ignore file is looked for beside it."""
    data = read_given(path)
    own = path.with_name(f"{path.name}.dockerignore")
    name = path.name
    if own.is_file():
        with ContextTree(path.parent, name="dockerfile") as beside:
            text = read_file(beside, own.name, IGNORE_LIMIT)
        if text is not None:
            return FoundDockerfile(data=data, name=name, ignore_text=text, ignore_name=own.name)
    ignore_text, ignore_name = ignore_of(context, None)
    return FoundDockerfile(data=data, name=name, ignore_text=ignore_text, ignore_name=ignore_name)


def ignore_of(tree: ContextTree, dockerfile: str | None) -> tuple[bytes | None, str]:
    """The ignore file that holds for a Dockerfile in the tree, or for the tree alone."""
    names = [".dockerignore"]
    if dockerfile:
        names.insert(0, f"{dockerfile}.dockerignore")
    for name in names:
        text = read_file(tree, name, IGNORE_LIMIT)
        if text is not None:
            return text, name
    return None, ""


def read_file(tree: ContextTree, path: str, limit: int) -> bytes | None:
    """A file of the tree, links followed inside it; None when there is none."""
    st = tree.lstat(path)
    if st is None and tree.lstat(path.rpartition("/")[0]) is None:
        return None
    try:
        resolved = tree.resolve(path)
    except PathNotFound:
        resolved = path
    found = tree.lstat(resolved)
    if found is None or stat.S_ISLNK(found.st_mode):
        if st is not None and stat.S_ISLNK(st.st_mode):
            raise SourceUnavailable(
                f"{path} is a symbolic link that leads out of the context, or nowhere",
                hint="copy the file into the context; links are followed inside the context only",
                code="link-out-of-context",
            )
        return None
    if not stat.S_ISREG(found.st_mode):
        raise SourceUnavailable(
            f"failed to read dockerfile: {path or 'the context'} is not a regular file", code="not-a-file"
        )
    return tree.read(resolved, limit)


def read_given(path: Path) -> bytes:
    """A file that the user named; a fifo or a descriptor of the shell is fine too."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise missing_dockerfile(path.name, path) from error
        raise SourceUnavailable(
            f"failed to read dockerfile: open {path}: {(error.strerror or '').lower()}",
            code="dockerfile-unreadable",
        ) from error
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise SourceUnavailable(
                f"failed to read dockerfile: {path} is a directory",
                hint=f"name the file: -f {path / DEFAULT_NAME}",
                code="dockerfile-unreadable",
            )
        data = read_limited(fd, DOCKERFILE_LIMIT)
    finally:
        os.close(fd)
    if data is None:
        raise SourceUnavailable(
            f"failed to read dockerfile: {path} is larger than {DOCKERFILE_LIMIT} bytes",
            code="file-too-large",
        )
    return data


def missing_dockerfile(name: str, path: Path, *, place: str = "") -> SourceUnavailable:
    """The error for a Dockerfile that is not there; ``place`` is shown instead of the tree's directory."""
    hint = "name another file with -f"
    if not place:
        hint += ", or give the directory that holds the Dockerfile as the context"
    similar = _similar(path.parent)
    if similar:
        hint = f"did you mean -f {(Path(name) if place else path).with_name(similar)}?"
    return SourceUnavailable(
        f"failed to read dockerfile: open {name}: no such file or directory",
        hint=f"looked {f'in {place}' if place else f'for {path}'}; {hint}",
        code="dockerfile-not-found",
    )


def _similar(directory: Path) -> str:
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.is_file())
    except OSError:
        return ""
    for name in names:
        low = name.lower()
        if not low.endswith(".dockerignore") and (
            low.startswith("dockerfile") or low.endswith(".dockerfile")
        ):
            return name
    return "Containerfile" if "Containerfile" in names else ""
