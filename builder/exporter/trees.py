"""A result's file tree as a directory or as a tar (EXL-01…EXL-05)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.cache.differ import Change, everything
from builder.cache.layer import END, encode, entry_header, pack, pad
from builder.cache.store import Store
from builder.cache.tree import View, join
from builder.cache.treewriter import Writer
from builder.cache.types import OnWait
from builder.errors import ExportError
from builder.exporter.destination import hint
from builder.exporter.tarout import Out
from builder.oci.platform import Platform

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One platform's tree: a committed snapshot, None = empty. ``notes`` are further files in it, private to
    their owner."""

    platform: Platform
    snapshot: str | None
    notes: tuple[tuple[str, bytes], ...] = ()


def folder_of(platform: Platform) -> str:
    """The directory of one platform among several (EXL-01)."""
    return str(platform).replace("/", "_")


def view_of(store: Store, snapshot: str | None) -> View:
    """A snapshot's tree for reading."""
    return View(store.snapshots.layers(snapshot), userxattr=store.snapshots.userxattr)


def write_local(
    store: Store,
    trees: Sequence[Tree],
    dest: Path,
    *,
    split: bool = False,
    mode: str = "copy",
    epoch: int | None = None,
    on_wait: OnWait | None = None,
) -> None:
    """Merge the trees into ``dest``, owned by the caller; ``mode`` ``delete`` removes all else there.

    Modes and times are kept, or all times are ``epoch``. Sockets are left out. Builds of one store that write
    into one directory take turns: ``on_wait`` is called once. Raises ExportError.
    """
    try:
        dest.mkdir(parents=True, exist_ok=True)
        writer = Writer(dest)
        with store.lock(lock_name(dest), on_wait=on_wait), writer:
            copier = _Copier(writer, epoch)
            for tree in trees:
                folder = folder_of(tree.platform) if split else ""
                with view_of(store, tree.snapshot) as source:
                    copier.copy(source, folder, str(tree.platform))
                for name, data in tree.notes:
                    copier.note(join(folder, name) if folder else name, data)
            if mode == "delete":
                copier.remove_others()
            copier.finish()
    except OSError as error:
        raise ExportError(
            f"cannot write {_where(dest, error)}: {error.strerror}", hint=hint(error)
        ) from error


def lock_name(dest: Path) -> str:
    """The lock of who writes into a directory; that itself is left to users (``flock DIR COMMAND``)."""
    found = os.stat(dest)
    return f"output {found.st_dev}:{found.st_ino}"


def _where(dest: Path, error: OSError) -> str:
    """The place of an error: a name in ``dest`` is all that calls relative to a descriptor tell."""
    if not isinstance(error.filename, str):
        return str(dest)
    return error.filename if error.filename.startswith("/") else f"{error.filename!r} in {dest}"


class _Copier:
    """Copies trees into one directory."""

    def __init__(self, writer: Writer, epoch: int | None) -> None:
        self._writer = writer
        self._epoch_ns = None if epoch is None else epoch * _NS
        self._uid, self._gid = os.getuid(), os.getgid()
        self._owners: dict[str, str] = {}
        self._dirs: list[tuple[str, os.stat_result]] = []

    def copy(self, source: View, folder: str, platform: str) -> None:
        links: dict[tuple[int, int], str] = {}
        if folder:
            self._replace_other(folder, directory=True)
            self._writer.mkdir(folder, 0o755, self._uid, self._gid)
            self._owners[folder] = platform
        for path, st in source.walk() if source.layers else ():
            target = join(folder, path) if folder else path
            is_dir = stat.S_ISDIR(st.st_mode)
            known = self._owners.get(target)
            if known is not None and known != platform and not is_dir:
                raise ExportError(
                    f"cannot overwrite /{target} from {known} with {platform} when split option is disabled"
                )
            self._owners[target] = platform
            self._replace_other(target, directory=is_dir)
            if is_dir:
                self._writer.mkdir(target, 0o700, self._uid, self._gid)
                self._dirs.append((target, st))
                continue
            self._entry(source, path, target, st, links)

    def _entry(
        self, source: View, path: str, target: str, st: os.stat_result, links: dict[tuple[int, int], str]
    ) -> None:
        kind = stat.S_IFMT(st.st_mode)
        if kind == stat.S_IFSOCK:
            return
        if st.st_nlink > 1:
            first = links.setdefault((st.st_dev, st.st_ino), target)
            if first != target:
                self._writer.link(target, first)
                return
        options: dict[str, Any] = {"mtime_ns": self._mtime(st), "xattrs": source.xattrs(path)}
        if kind == stat.S_IFREG:
            with open(source.open(path), "rb", buffering=0) as file:
                self._writer.write_file(
                    target, file.fileno(), stat.S_IMODE(st.st_mode), self._uid, self._gid, **options
                )
        elif kind == stat.S_IFLNK:
            self._writer.symlink(target, source.readlink(path), self._uid, self._gid, **options)
        else:
            self._writer.mknod(target, st.st_mode, st.st_rdev, self._uid, self._gid, **options)

    def note(self, target: str, data: bytes) -> None:
        """A file from memory."""
        self._owners[target] = ""
        self._replace_other(target, directory=False)
        self._writer.write_file(target, data, 0o600, self._uid, self._gid, mtime_ns=self._epoch_ns)

    def _replace_other(self, target: str, *, directory: bool) -> None:
        """What is at ``target`` goes when it is a directory and should not be, or the other way round."""
        old = self._writer.lstat(target)
        if old is not None and stat.S_ISDIR(old.st_mode) != directory:
            self._writer.remove(target)

    def remove_others(self) -> None:
        """Remove what no tree has (EXL-02)."""
        extra = [path for path, _ in self._strangers()]
        for path in extra:
            try:
                self._writer.remove(path)
            except OSError as error:
                raise ExportError(f"cannot remove {path} from the directory: {error.strerror}") from error

    def _strangers(self) -> Iterator[tuple[str, os.stat_result]]:
        for path, st in self._writer.walk(enter=lambda path: path in self._owners):
            if path not in self._owners:
                yield path, st

    def finish(self) -> None:
        """Directories get modes and times last: they had to be written to until now."""
        for path, st in reversed(self._dirs):
            self._writer.set_meta(path, mode=stat.S_IMODE(st.st_mode), mtime_ns=self._mtime(st))

    def _mtime(self, st: os.stat_result) -> int:
        return st.st_mtime_ns if self._epoch_ns is None else self._epoch_ns


def write_tar(
    store: Store, trees: Sequence[Tree], out: Out, *, split: bool = False, epoch: int | None = None
) -> None:
    """The trees as one tar; with ``split`` each below a directory of its own (EXL-03)."""
    seen: dict[str, str] = {}
    for tree in trees:
        if not split and len(trees) > 1:
            _check_overlap(store, tree, seen)
        if split:
            name = encode(folder_of(tree.platform) + "/")
            out.write(entry_header(name, b"5", mode=0o755, uid=0, gid=0, mtime=epoch or 0))
        with view_of(store, tree.snapshot) as source:
            if source.layers:
                _pack_tree(source, folder_of(tree.platform) if split else "", out, epoch)
        for path, data in tree.notes:
            name = encode(f"{folder_of(tree.platform)}/{path}" if split else path)
            out.write(
                entry_header(name, b"0", mode=0o600, uid=0, gid=0, size=len(data), mtime=epoch or 0)
                + data
                + pad(len(data))
            )
    out.write(END)


def _pack_tree(source: View, prefix: str, out: Out, epoch: int | None) -> None:
    shown = _Prefixed(source, prefix) if prefix else source
    found = everything(source)
    if prefix:
        found = (Change(join(prefix, change.path), change.kind, change.stat) for change in found)
    if epoch is not None:
        found = (Change(c.path, c.kind, _dated(c.stat, epoch)) for c in found)
    pack(found, shown, _without_end(out), plain=True)


def _check_overlap(store: Store, tree: Tree, seen: dict[str, str]) -> None:
    with view_of(store, tree.snapshot) as source:
        for path, st in source.walk() if source.layers else ():
            if stat.S_ISDIR(st.st_mode):
                continue
            known = seen.setdefault(path, str(tree.platform))
            if known != str(tree.platform):
                raise ExportError(
                    f"cannot overwrite /{path} from {known} with {tree.platform} when split "
                    "option is disabled"
                )


def _without_end(out: Out) -> Any:
    """Several packs make one archive: only the last end counts."""

    def write(data: bytes) -> None:
        if data is not END:
            out.write(data)

    return write


def _dated(st: os.stat_result | None, epoch: int) -> os.stat_result | None:
    if st is None:
        return None
    reduced: Any = st.__reduce__()
    fields, named = reduced[1]
    return os.stat_result(fields, {**named, "st_mtime_ns": epoch * _NS, "st_mtime": float(epoch)})


class _Prefixed:
    """A view as seen from a directory above it; just what packing asks for."""

    owner = None

    def __init__(self, source: View, prefix: str) -> None:
        self._source = source
        self._cut = len(prefix) + 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def lstat(self, path: str) -> os.stat_result | None:
        if len(path) < self._cut:
            return None
        return self._source.lstat(path[self._cut :])

    def readlink(self, path: str) -> str:
        return self._source.readlink(path[self._cut :])

    def open(self, path: str) -> int:
        return self._source.open(path[self._cut :])

    def xattrs(self, path: str) -> dict[str, bytes]:
        return self._source.xattrs(path[self._cut :])
