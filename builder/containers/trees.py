"""The file tree of a container, running or not, as something that can be read and written without a mount.

A running container is seen through ``/proc/<pid>/root`` in its own mount namespace, volumes included. A
stopped one is its snapshot, with its volumes and binds as trees of their own at their destinations.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from builder.cache.store import Store
from builder.cache.tree import SourceTree, View, resolve_in
from builder.cache.treewriter import Writer
from builder.containers.types import Conflict, Container
from builder.errors import StoreError
from runtime.cp import CopyFailed

_NO_XATTRS: Mapping[str, bytes] = {}


@contextmanager
def live_tree(store: Store, container: Container) -> Iterator[ContainerTree]:
    """The tree that a process in the container sees, or would see."""
    if container.state.running:
        # The descriptor keeps this very root, whatever happens to the pid.
        process = container.state.process
        root = os.open(f"/proc/{process.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not process.alive():
                raise Conflict(f"container {container.name} has just stopped; try again")
            tree = ContainerTree(Writer(Path(f"/proc/self/fd/{root}")), (), readonly=False)
            with tree:
                yield tree
        finally:
            os.close(root)
        return
    with ContainerTree(
        own_tree(store, container), _mounted(container), readonly=_readonly(container)
    ) as tree:
        yield tree


def own_tree(store: Store, container: Container) -> Writer:
    """The container's snapshot with all layers below; without its mounts."""
    if container.row.snapshot is None:
        raise StoreError(f"container {container.name} has no file system", code="snapshot-missing")
    active = store.snapshots.reopen(container.row.snapshot)
    return Writer(active.upper, active.lowers, userxattr=active.userxattr)


def below_tree(store: Store, container: Container) -> View:
    """What the container started from: the image with the mount points."""
    return View(store.snapshots.layers(container.data["InitSnapshot"]), userxattr=store.snapshots.userxattr)


def _readonly(container: Container) -> bool:
    return bool(container.data["HostConfig"]["ReadonlyRootfs"])


class _Mounted:
    """A volume or bind of a stopped container: ``path`` inside, its tree, and whether it may be changed.

    A bind of a file is the tree of its directory with one name.
    """

    def __init__(self, path: str, source: str, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        place = Path(source)
        self.name = "" if place.is_dir() else place.name
        self.tree = Writer(place if not self.name else place.parent)


def _mounted(container: Container) -> list[_Mounted]:
    found = []
    for entry in container.data["Mounts"]:
        if entry["Type"] != "tmpfs" and os.path.exists(entry["Source"]):
            found.append(
                _Mounted(entry["Destination"].strip("/"), entry["Source"], writable=bool(entry["RW"]))
            )
    return sorted(found, key=lambda mount: -mount.path.count("/"))


class ContainerTree:
    """One tree from several: paths below a mount go to that mount's own tree; see ``Writer`` for the
    methods.
    """

    owner: tuple[int, int] | None = None

    def __init__(self, root: Writer, mounts: Iterable[_Mounted], *, readonly: bool) -> None:
        self._root = root
        self._mounts = tuple(mounts)
        self._readonly = readonly

    def __enter__(self) -> ContainerTree:
        return self

    def __exit__(self, *_: object) -> None:
        self._root.close()
        for mount in self._mounts:
            mount.tree.close()

    def _at(self, path: str) -> tuple[Writer, str]:
        for mount in self._mounts:
            if path == mount.path:
                return mount.tree, mount.name
            if path.startswith(mount.path + "/") and not mount.name:
                return mount.tree, path[len(mount.path) + 1 :]
        return self._root, path

    def _for_change(self, path: str) -> tuple[Writer, str]:
        tree, inner = self._at(path)
        readonly = self._readonly
        for mount in self._mounts:
            if mount.tree is tree:
                readonly = not mount.writable
        if readonly:
            raise CopyFailed(f"/{path} is on a read-only file system of the container", code="read-only")
        return tree, inner

    def lstat(self, path: str) -> os.stat_result | None:
        tree, inner = self._at(path)
        return tree.lstat(inner)

    def readlink(self, path: str) -> str:
        tree, inner = self._at(path)
        return tree.readlink(inner)

    def scandir(self, path: str) -> list[tuple[str, os.stat_result]]:
        tree, inner = self._at(path)
        prefix = f"{path}/" if path else ""
        found = dict(tree.scandir(inner))
        for mount in self._mounts:
            parent, _, name = mount.path.rpartition("/")
            if parent == path and name in found:
                status = self.lstat(prefix + name)
                if status is not None:
                    found[name] = status
        return sorted(found.items(), key=lambda item: os.fsencode(item[0]))

    def open(self, path: str) -> int:
        tree, inner = self._at(path)
        return tree.open(inner)

    def resolve(self, path: str, *, follow_final: bool = True) -> str:
        if not self._mounts:
            return self._root.resolve(path, follow_final=follow_final)
        source: SourceTree = self  # type: ignore[assignment]  # resolve_in asks for lstat and readlink only
        return resolve_in(source, path, follow_final=follow_final)

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
    ) -> bool:
        tree, inner = self._for_change(path)
        return tree.mkdir(inner, mode, uid, gid, mtime_ns=mtime_ns, exist_ok=exist_ok, xattrs=xattrs)

    def write_file(
        self,
        path: str,
        source: int | bytes | Iterable[bytes],
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        *,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] = _NO_XATTRS,
        source_stat: os.stat_result | None = None,
    ) -> None:
        tree, inner = self._for_change(path)
        tree.write_file(
            inner, source, mode, uid, gid, mtime_ns=mtime_ns, xattrs=xattrs, source_stat=source_stat
        )

    def symlink(
        self,
        path: str,
        target: str,
        uid: int = 0,
        gid: int = 0,
        *,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] = _NO_XATTRS,
    ) -> None:
        tree, inner = self._for_change(path)
        tree.symlink(inner, target, uid, gid, mtime_ns=mtime_ns, xattrs=xattrs)

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
    ) -> None:
        tree, inner = self._for_change(path)
        tree.mknod(inner, mode, device, uid, gid, mtime_ns=mtime_ns, xattrs=xattrs)

    def link(self, path: str, existing: str) -> None:
        tree, inner = self._for_change(path)
        other, old = self._at(existing)
        if other is not tree:
            raise CopyFailed(f"/{path} and /{existing} are on different file systems")
        tree.link(inner, old)

    def set_meta(
        self,
        path: str,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        tree, inner = self._for_change(path)
        tree.set_meta(inner, mode=mode, uid=uid, gid=gid, mtime_ns=mtime_ns, xattrs=xattrs)


def is_directory(status: os.stat_result | None) -> bool:
    """Whether something is there and is a directory."""
    return status is not None and stat.S_ISDIR(status.st_mode)
