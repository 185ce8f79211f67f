"""A tree of which only the description exists: what file operations would write on top of another tree.

It takes changes as a ``Writer`` does and is read as any tree is, so that a layer can be packed straight from
the sources of its files, without a copy of them on disk. What only an upper directory can express (deletions,
changes to files of the base) is refused with ``NotPlanned``; the caller then writes the tree.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from builder.cache.filedata import XattrFailed, write_all
from builder.cache.treepaths import (
    SourceTree,
    TreeError,
    make_missing,
    resolve_in,
    sort_names,
    split,
    walk_tree,
)
from builder.errors import PathNotFound

_NO_XATTRS: Mapping[str, bytes] = {}
_DEVICE = -1
"""The device number of what is planned: no entry of a real tree has it."""
_NAMED = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")


class NotPlanned(Exception):
    """The change needs a tree on disk."""


@dataclass(slots=True)
class _Node:
    """An entry; ``source`` has the content of a file at ``path``, ``data`` is that of one made of bytes."""

    mode: int
    uid: int
    gid: int
    inode: int
    mtime_ns: int
    size: int = 0
    device: int = 0
    names: int = 1
    link: str = ""
    data: bytes = b""
    source: SourceTree | None = None
    path: str = ""
    xattrs: dict[str, bytes] = field(default_factory=dict)

    def stat(self) -> os.stat_result:
        """As ``lstat`` would have it."""
        time_s = self.mtime_ns // 1_000_000_000
        owner = (self.uid, self.gid)
        fields = (self.mode, self.inode, _DEVICE, self.names, *owner, self.size, time_s, time_s, time_s)
        return os.stat_result(fields, {**dict.fromkeys(_NAMED, self.mtime_ns), "st_rdev": self.device})


class PlannedTree:
    """Changes to ``base`` (None = the empty tree), kept in memory; one thread at a time.

    Paths, refusals and results are those of ``Writer``. Sources must stay as they are until it was packed.
    """

    owner: tuple[int, int] | None = None

    def __init__(self, base: SourceTree | None = None) -> None:
        self._base = base
        self._now = time.time_ns()
        self._count = 0
        self._nodes: dict[str, _Node] = {}
        self._children: dict[str, dict[str, _Node]] = {}
        self.xattr_failed: XattrFailed | None = None
        if base is None:
            self._nodes[""] = self._new(stat.S_IFDIR | 0o755, 0, 0, None)

    # --- making things

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
        """Make a directory; False, and nothing changed, when one exists already."""
        if not path:
            return False
        st = self.lstat(path)
        if st is not None and stat.S_ISDIR(st.st_mode):
            if not exist_ok:
                raise TreeError(f'"/{path}": exists')
            return False
        self._place(path, self._new(stat.S_IFDIR | mode, uid, gid, mtime_ns, xattrs))
        return True

    def makedirs(
        self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0, *, mtime_ns: int | None = None
    ) -> tuple[str, ...]:
        """Make a directory and its missing parents, all alike; gives what was made, outermost first."""
        return make_missing(self, path, mode, uid, gid, mtime_ns=mtime_ns)

    def write_file(
        self,
        path: str,
        source: bytes,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        *,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] = _NO_XATTRS,
    ) -> None:
        """Make a regular file from bytes."""
        node = self._new(stat.S_IFREG | mode, uid, gid, mtime_ns, xattrs)
        node.data, node.size = source, len(source)
        self._place(path, node)

    def copy_file(
        self,
        path: str,
        source: SourceTree,
        source_path: str,
        source_stat: os.stat_result,
        mode: int,
        uid: int,
        gid: int,
        *,
        mtime_ns: int | None = None,
    ) -> None:
        """Make a regular file with the content and the attributes of one of another tree."""
        node = self._new(stat.S_IFREG | mode, uid, gid, mtime_ns)
        node.source, node.path, node.size = source, source_path, source_stat.st_size
        self._place(path, node)

    def symlink(
        self, path: str, target: str, uid: int = 0, gid: int = 0, *, mtime_ns: int | None = None
    ) -> None:
        """Make a symbolic link; its text is kept as given."""
        node = self._new(stat.S_IFLNK | 0o777, uid, gid, mtime_ns)
        node.link, node.size = target, len(os.fsencode(target))
        self._place(path, node)

    def mknod(
        self,
        path: str,
        mode: int,
        device: int = 0,
        uid: int = 0,
        gid: int = 0,
        *,
        mtime_ns: int | None = None,
    ) -> None:
        """Make a node; ``mode`` holds its type. A character device 0/0 is refused: it is a whiteout."""
        if stat.S_ISCHR(mode) and device == 0:
            raise TreeError(f'"/{path}": a character device 0/0 would read as a deletion')
        node = self._new(mode, uid, gid, mtime_ns)
        node.device = device
        self._place(path, node)

    def link(self, path: str, existing: str) -> None:
        """Give a file a second name."""
        if path == existing:
            return
        node = self._nodes.get(existing)
        if node is None:
            raise NotPlanned
        if stat.S_ISDIR(node.mode):
            raise TreeError(f'"/{existing}": a directory cannot be hard-linked')
        self._place(path, node)
        node.names += 1

    # --- changing things

    def remove(self, path: str) -> bool:
        """Remove a path and all below it; False when nothing was there."""
        if self._base is not None and self._base.lstat(path) is not None:
            raise NotPlanned
        if path not in self._nodes:
            return False
        prefix = path + "/"
        for gone in [known for known in self._nodes if known == path or known.startswith(prefix)]:
            self._nodes.pop(gone).names -= 1
            self._children.pop(gone, None)
        parent, name = split(path)
        del self._children[parent][name]
        self._up(parent).mtime_ns = self._now
        return True

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
        """Change what is given of an entry's metadata; links are not followed."""
        node = self._nodes.get(path) or self._up(path)
        if mode is not None and not stat.S_ISLNK(node.mode):
            node.mode = stat.S_IFMT(node.mode) | mode
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        node.mtime_ns = node.mtime_ns if mtime_ns is None else mtime_ns
        node.xattrs.update(xattrs or {})

    # --- reading

    def lstat(self, path: str) -> os.stat_result | None:
        """What is at ``path``, links not followed anywhere; None when nothing is."""
        node = self._nodes.get(path)
        if node is not None:
            return node.stat()
        return None if self._base is None else self._base.lstat(path)

    def readlink(self, path: str) -> str:
        """A symbolic link's text."""
        node = self._nodes.get(path)
        return self._below(path).readlink(path) if node is None else node.link

    def scandir(self, path: str) -> list[tuple[str, os.stat_result]]:
        """Names and stats of a directory, sorted by name; [] when it is not a directory."""
        own = self._children.get(path, {})
        found = [(name, node.stat()) for name, node in own.items()]
        if self._base is not None:
            found.extend(entry for entry in self._base.scandir(path) if entry[0] not in own)
        return sort_names(found)

    def raw_scandir(self, path: str) -> list[tuple[str, os.stat_result]]:
        """What is planned in a directory, and the directories above what is planned."""
        return sort_names([(name, node.stat()) for name, node in self._children.get(path, {}).items()])

    def is_opaque(self, _path: str) -> bool:
        """No planned directory hides one of the base."""
        return False

    def open(self, path: str) -> int:
        """Open a regular file for reading; PathNotFound when there is none."""
        node = self._nodes.get(path)
        if node is None:
            return self._below(path).open(path)
        if node.source is not None:
            return node.source.open(node.path)
        if not stat.S_ISREG(node.mode):
            raise PathNotFound(f'"/{path}": not a regular file', path=path)
        fd = os.memfd_create("planned", os.MFD_CLOEXEC)
        try:
            write_all(fd, node.data)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def read(self, path: str, limit: int) -> bytes:
        """A regular file's bytes; TreeError when there are more than ``limit``."""
        with open(self.open(path), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise TreeError(f'"/{path}": larger than the {limit} bytes allowed here')
        return data

    def xattrs(self, path: str) -> dict[str, bytes]:
        """Extended attributes."""
        node = self._nodes.get(path)
        if node is None:
            return self._below(path).xattrs(path)
        return dict(node.xattrs) if node.source is None else node.source.xattrs(node.path)

    def resolve(self, path: str, *, follow_final: bool = True) -> str:
        """``path`` with links followed as if this tree were the root directory; a missing rest is kept."""
        return resolve_in(self, path, follow_final=follow_final)

    def walk(
        self, path: str = "", *, enter: Callable[[str], bool] | None = None
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below ``path``, each directory sorted by name and before its content."""
        return walk_tree(self, path, enter=enter)

    # --- entries

    def _new(
        self, mode: int, uid: int, gid: int, mtime_ns: int | None, xattrs: Mapping[str, bytes] = _NO_XATTRS
    ) -> _Node:
        self._count += 1
        time_ns = self._now if mtime_ns is None else mtime_ns
        return _Node(mode, uid, gid, self._count, time_ns, xattrs=dict(xattrs) if xattrs else {})

    def _place(self, path: str, node: _Node) -> None:
        """Put an entry where there is none, or one that is no directory."""
        parent, name = split(path)
        old = self.lstat(path)
        if old is not None and stat.S_ISDIR(old.st_mode):
            raise TreeError(f'"/{path}": is a directory', code="is-a-directory")
        above = self._up(parent)
        known = self._nodes.get(path)
        if known is not None:
            known.names -= 1
        self._nodes[path] = node
        self._children.setdefault(parent, {})[name] = node
        above.mtime_ns = self._now

    def _up(self, path: str) -> _Node:
        """The planned entry of an existing directory; PathNotFound when it is none."""
        node = self._nodes.get(path)
        if node is None:
            st = None if self._base is None else self._base.lstat(path)
            if st is not None and not stat.S_ISDIR(st.st_mode):
                raise NotPlanned
            if st is not None:
                node = self._new(
                    st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, self._below(path).xattrs(path)
                )
                if path:
                    parent, name = split(path)
                    self._up(parent)
                    self._children.setdefault(parent, {})[name] = node
                self._nodes[path] = node
        if node is None or not stat.S_ISDIR(node.mode):
            raise PathNotFound(f'"/{path}": not a directory', path=path)
        return node

    def _below(self, path: str) -> SourceTree:
        if self._base is None:
            raise PathNotFound(f'"/{path}": not found', path=path)
        return self._base
