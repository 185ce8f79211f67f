"""``cp``: between a container and the host, or a tar stream on standard input or output (IO-CP-1 to
IO-CP-3).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from builder.cache.store import Store
from builder.cache.treewriter import Writer
from builder.containers import document
from builder.containers.lookup import find
from builder.containers.trees import live_tree
from runtime import cp, tarcopy
from runtime.cp import CopyFailed, Ownership


def copy_out(
    store: Store, ref: str, source: str, target: str, *, archive: bool = False, follow: bool = False
) -> int:
    """Copy ``source`` in the container to the host path ``target``; bytes of files copied."""
    container = find(store, ref)
    host, inner = _host_tree(target)
    ownership = Ownership(os.geteuid(), os.getegid(), archive=archive)
    with _translated(), live_tree(store, container) as tree, closing(host):
        _named(tree, source, container.name, follow=follow)
        done = cp.copy(tree, host, cp.plan(tree, source, host, inner, follow=follow), ownership)
    store.events.add("container", "copy", container.id, document.event_attributes(container.row))
    return done


def copy_in(
    store: Store, ref: str, source: str, target: str, *, archive: bool = False, follow: bool = False
) -> int:
    """Copy the host path ``source`` to ``target`` in the container; bytes of files copied."""
    container = find(store, ref)
    host, inner = _host_tree(source)
    with _translated(), closing(host), live_tree(store, container) as tree:
        done = cp.copy(
            host, tree, cp.plan(host, inner, tree, target, follow=follow), Ownership(archive=archive)
        )
    store.events.add("container", "copy", container.id, document.event_attributes(container.row))
    return done


def tar_out(store: Store, ref: str, source: str, out: IO[bytes], *, follow: bool = False) -> None:
    """Write ``source`` of the container as a tar stream."""
    container = find(store, ref)
    with _translated(), live_tree(store, container) as tree:
        _named(tree, source, container.name, follow=follow)
        tarcopy.write_tar(tree, source, out, follow=follow)
    store.events.add("container", "copy", container.id, document.event_attributes(container.row))


def tar_in(store: Store, ref: str, stream: IO[bytes], target: str, *, archive: bool = False) -> int:
    """Unpack a tar stream into the directory ``target`` of the container; how many entries it had."""
    container = find(store, ref)
    with _translated(), live_tree(store, container) as tree:
        done = tarcopy.read_tar(stream, tree, target, Ownership(archive=archive))
    store.events.add("container", "copy", container.id, document.event_attributes(container.row))
    return done


@contextmanager
def _translated() -> Iterator[None]:
    """What the system refuses is an expected failure: no space, no right, a path that is gone."""
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise CopyFailed(f"cannot copy{where}: {error.strerror}") from error


def _named(tree: cp.Source, path: str, container: str, *, follow: bool) -> None:
    """Fail with the container's name when the source is not there."""
    try:
        cp.find_source(tree, path, follow=follow)
    except CopyFailed as error:
        if error.code == "copy-source-missing":
            raise CopyFailed(
                f"Could not find the file {path} in container {container}", code=error.code
            ) from error
        raise


def _host_tree(path: str) -> tuple[Writer, str]:
    """The host's file system as a tree, and the path in it with everything above the last part resolved.

    The user's own path is theirs: the kernel resolves links in its directories. Below it no link is followed.
    """
    if not path:
        raise CopyFailed("Path not specified")
    tail = "/." if path == "." or path.endswith("/.") else "/" if path.endswith("/") else ""
    absolute = os.path.join(str(Path.cwd()), path)
    parent, name = os.path.split(os.path.normpath(absolute))
    place = os.path.realpath(parent)
    if not os.path.isdir(place):
        raise CopyFailed(f"no such directory: {parent}", code="copy-target-missing")
    if (
        name
        and os.path.islink(os.path.join(place, name))
        and (tail or os.path.isdir(os.path.join(place, name)))
    ):
        place, name = os.path.split(os.path.realpath(os.path.join(place, name)))
    return Writer(Path(place)), name + tail
