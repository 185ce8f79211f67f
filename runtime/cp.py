"""Copying into and out of a container: the rules of ``docker cp``, over two trees.

Nothing is mounted and no path is handed to the kernel twice. Both sides are trees that walk from descriptor
to descriptor and follow no link (the builder's ``View`` and ``Writer``; for a running container over
``/proc/<pid>/root``, where its volumes are visible too). Links in the path that the user names are resolved
as the container would resolve them; links met while copying are copied as links.

Copying in makes everything owned by root, copying out by whoever copies; archive mode keeps the ids. Modes
and times are kept. What cannot be made on the other side (devices without the right to make them) is an
error that names it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from runtime.errors import ContainerError

_NO_XATTRS: Mapping[str, bytes] = {}


class CopyFailed(ContainerError):
    """A copy cannot be made as asked."""

    code = "copy-failed"


class Source(Protocol):
    """A tree to copy from; paths are relative, "" is the root."""

    def lstat(self, path: str) -> os.stat_result | None: ...
    def readlink(self, path: str) -> str: ...
    def scandir(self, path: str) -> list[tuple[str, os.stat_result]]: ...
    def open(self, path: str) -> int: ...
    def resolve(self, path: str, *, follow_final: bool = True) -> str: ...


class Sink(Source, Protocol):
    """A tree to copy into."""

    def mkdir(
        self,
        path: str,
        mode: int,
        uid: int,
        gid: int,
        *,
        mtime_ns: int | None = None,
        exist_ok: bool = True,
        xattrs: Mapping[str, bytes] = _NO_XATTRS,
    ) -> bool: ...
    def write_file(
        self,
        path: str,
        source: int | bytes | Iterator[bytes],
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        *,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] = _NO_XATTRS,
        source_stat: os.stat_result | None = None,
    ) -> None: ...
    def symlink(
        self,
        path: str,
        target: str,
        uid: int = 0,
        gid: int = 0,
        *,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] = _NO_XATTRS,
    ) -> None: ...
    def mknod(
        self,
        path: str,
        mode: int,
        device: int = 0,
        uid: int = 0,
        gid: int = 0,
        *,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] = _NO_XATTRS,
    ) -> None: ...
    def link(self, path: str, existing: str) -> None: ...
    def set_meta(
        self,
        path: str,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None: ...


@dataclass(slots=True)
class Ownership:
    """Who owns what is made: fixed ids, or those of the source in archive mode."""

    uid: int = 0
    gid: int = 0
    archive: bool = False

    def of(self, status: os.stat_result) -> tuple[int, int]:
        """The ids for a copy of this entry."""
        return (status.st_uid, status.st_gid) if self.archive else (self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be copied where: ``target`` is the path of the copy itself; ``merge`` = into an existing
    directory.
    """

    source: str
    target: str
    directory: bool
    merge: bool = False


@dataclass(slots=True)
class _Links:
    """Hard links seen so far, so that they stay links: (device, inode) -> path made."""

    made: dict[tuple[int, int], str] = field(default_factory=dict)


def find_source(tree: Source, path: str, *, follow: bool, shown: str = "") -> tuple[str, os.stat_result]:
    """Where ``path`` of the user leads in ``tree``; a final link is followed with ``follow`` or a trailing
    slash.
    """
    follow = follow or path.endswith(("/", "/."))
    where = tree.resolve(path, follow_final=follow)
    status = tree.lstat(where)
    if status is None:
        raise CopyFailed(f"Could not find the file {shown or path}", code="copy-source-missing")
    if path.endswith("/") and not stat.S_ISDIR(status.st_mode):
        raise CopyFailed(f"{shown or path}: not a directory")
    return where, status


def plan(source: Source, source_path: str, sink: Source, target_path: str, *, follow: bool = False) -> Plan:
    """Apply the destination rules of ``docker cp``.

    A file goes to the name given, or into a directory of that name under its own name; a directory becomes
    the name given, or goes into an existing directory, as a whole or (with a trailing ``/.``) only its
    content. The parent of the destination must exist.
    """
    where, status = find_source(source, source_path, follow=follow)
    directory = stat.S_ISDIR(status.st_mode)
    name = base_name(source_path) or base_name(where)
    target = sink.resolve(target_path)
    found = sink.lstat(target)
    if found is None:
        parent = target.rpartition("/")[0]
        parent_status = sink.lstat(parent)
        if parent_status is None or not stat.S_ISDIR(parent_status.st_mode):
            raise CopyFailed(f"no such directory: /{parent}", code="copy-target-missing")
        if not directory and target_path.endswith("/"):
            raise CopyFailed(
                f"the destination directory must exist: {target_path}", code="copy-target-missing"
            )
        return Plan(where, target, directory)
    if not stat.S_ISDIR(found.st_mode):
        if directory:
            raise CopyFailed(f"cannot copy a directory to the file {target_path}")
        if target_path.endswith("/"):
            raise CopyFailed(f"{target_path}: not a directory")
        return Plan(where, target, directory)
    if directory and (content_only(source_path) or not name):
        return Plan(where, target, directory, merge=True)
    inner = f"{target}/{name}" if target else name
    existing = sink.lstat(inner)
    if existing is not None and directory != stat.S_ISDIR(existing.st_mode):
        kinds = ("directory", "non-directory") if directory else ("non-directory", "directory")
        raise CopyFailed(f"cannot overwrite {kinds[1]} /{inner} with {kinds[0]} {source_path}")
    return Plan(where, inner, directory, merge=existing is not None and directory)


def content_only(path: str) -> bool:
    """Whether a user's path means what is in the directory instead of the directory."""
    return path == "." or path.endswith("/.")


def base_name(path: str) -> str:
    """The last real part of a path as the user wrote it; empty for the root, "." and ".."."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return parts[-1] if parts and parts[-1] != ".." else ""


def copy(source: Source, sink: Sink, what: Plan, ownership: Ownership) -> int:
    """Carry out a plan; returns how many bytes of files were copied."""
    status = source.lstat(what.source)
    if status is None:
        raise CopyFailed(f"/{what.source} vanished while it was being copied", code="copy-source-missing")
    return _Copier(source, sink, ownership).entry(what.source, what.target, status)


class _Copier:
    def __init__(self, source: Source, sink: Sink, ownership: Ownership) -> None:
        self._source = source
        self._sink = sink
        self._ownership = ownership
        self._links = _Links()

    def entry(self, path: str, target: str, status: os.stat_result) -> int:
        """One entry and what is below it."""
        if stat.S_ISDIR(status.st_mode):
            return self._directory(path, target, status)
        if status.st_nlink > 1:
            known = self._links.made.get((status.st_dev, status.st_ino))
            if known is not None:
                self._sink.link(target, known)
                return 0
            self._links.made[status.st_dev, status.st_ino] = target
        return self._leaf(path, target, status)

    def _directory(self, path: str, target: str, status: os.stat_result) -> int:
        uid, gid = self._ownership.of(status)
        existing = self._sink.lstat(target)
        if existing is not None and not stat.S_ISDIR(existing.st_mode):
            raise CopyFailed(f"cannot overwrite non-directory /{target} with directory /{path}")
        made = target != "" and self._sink.mkdir(target, stat.S_IMODE(status.st_mode) | 0o700, uid, gid)
        copied = 0
        for name, below in self._source.scandir(path):
            copied += self.entry(join(path, name), join(target, name), below)
        if made:
            # Last, because making entries changes the time, and a directory without the write bit takes none.
            self._sink.set_meta(target, mode=stat.S_IMODE(status.st_mode), mtime_ns=status.st_mtime_ns)
        return copied

    def _leaf(self, path: str, target: str, status: os.stat_result) -> int:
        uid, gid = self._ownership.of(status)
        mode, mtime_ns = stat.S_IMODE(status.st_mode), status.st_mtime_ns
        existing = self._sink.lstat(target)
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            raise CopyFailed(f"cannot overwrite directory /{target} with non-directory /{path}")
        if stat.S_ISREG(status.st_mode):
            fd = self._source.open(path)
            try:
                self._sink.write_file(target, fd, mode, uid, gid, mtime_ns=mtime_ns)
                return os.fstat(fd).st_size
            finally:
                os.close(fd)
        if stat.S_ISLNK(status.st_mode):
            self._sink.symlink(target, self._source.readlink(path), uid, gid, mtime_ns=mtime_ns)
        elif stat.S_ISSOCK(status.st_mode):
            return 0  # a socket is nothing without its process
        else:
            self._sink.mknod(target, status.st_mode, status.st_rdev, uid, gid, mtime_ns=mtime_ns)
        return 0


def join(parent: str, name: str) -> str:
    """A path below ``parent``, which may be the root."""
    return f"{parent}/{name}" if parent else name
