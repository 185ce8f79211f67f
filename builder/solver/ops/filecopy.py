"""The copy action: sources of one tree into another, as ``cp -a`` with the builder's rules (FIL-06…FIL-16).

Reads through a ``SourceTree`` and writes through a ``Writer``; nothing is mounted and no link is followed but
by their ``resolve``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

from builder.cache.contenthash import with_parents
from builder.cache.differ import kept_xattrs
from builder.cache.plannedtree import NotPlanned
from builder.cache.selection import Found, Source, below, check_required, excludes_source, find_sources
from builder.cache.tree import SourceTree, clean, join, split
from builder.cache.treewriter import Writer
from builder.errors import PathNotFound, SolveError
from builder.llb.ops import Copy
from builder.solver.ops.chmod import symbolic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.protocols import TreeSink

_PERMISSIONS = 0o7777
_CHECK_EVERY = 256


class Copier:
    """One copy action. ``check`` is called now and then and may raise to stop.

    ``remark`` is told which attributes were left out (FIL-13), once for each reason.
    """

    def __init__(
        self,
        action: Copy,
        source: SourceTree,
        writer: TreeSink,
        owner: tuple[int, int] | None,
        check: Callable[[], None] | None = None,
        remark: Callable[[str], None] | None = None,
    ) -> None:
        self._action = action
        self._source = source
        self._writer = writer
        self._owner = owner
        self._read_owner = owner or source.owner
        self._check = check
        self._remark = remark
        self._remarks: set[tuple[str, int | None]] = set()
        self._inodes: dict[tuple[int, int], str] = {}
        self._fresh: set[str] = set()
        self._times: list[tuple[str, int]] = []
        self._made: list[str] = []  # created parents that get the action's time at the end

    def run(self) -> None:
        """Copy every source. PathNotFound for a missing one, and for a destination that lacks its parent
        (FIL-06); SolveError where types clash.
        """
        if not self._action.create_dest_path:
            self._need_parent()
        try:
            self._copy_all()
        except PathNotFound as error:
            error.selected = True
            raise

    def _copy_all(self) -> None:
        action = self._action
        sources = find_sources(
            self._source, action.src, wildcards=action.allow_wildcard, follow=action.follow_symlink
        )
        if not sources and not action.allow_empty_wildcard:
            raise PathNotFound(f'"{action.src}": not found', path=action.src)
        for source in sources:
            if excludes_source(source, action.exclude_patterns):
                continue
            self._writer.xattr_failed = self._left_out
            try:
                if not (action.attempt_unpack and self._unpack(source)):
                    self._copy(source)
            finally:
                self._writer.xattr_failed = None
        for path in reversed(self._made):
            self._writer.set_meta(path, mtime_ns=action.timestamp_ns)

    def _left_out(self, name: str, error: OSError) -> None:
        if (name, error.errno) not in self._remarks:
            self._remarks.add((name, error.errno))
            if self._remark is not None:
                self._remark(f"extended attribute {name!a} is not copied: {error.strerror}")

    # --- destinations

    def _need_parent(self) -> None:
        dest = self._writer.resolve(clean(self._action.dest))
        if dest and self._writer.lstat(split(dest)[0]) is None:
            raise PathNotFound(f'"/{split(dest)[0]}": not found', path=f"/{split(dest)[0]}")

    def _parents(self, path: str) -> None:
        """Make what is missing of a destination directory (FIL-06)."""
        st = self._writer.lstat(path)
        if st is not None:
            if not stat.S_ISDIR(st.st_mode):
                raise SolveError(f"cannot copy to non-directory: /{path}", code="copy-clash")
            return
        mode = self._action.mode & _PERMISSIONS if self._action.mode >= 0 else 0o755
        uid, gid = self._owner or (0, 0)
        time = self._action.timestamp_ns
        made = self._writer.makedirs(path, mode, uid, gid)
        self._fresh.update(made)
        if time >= 0:
            self._made.extend(made)

    def _target(self, source: Source) -> str:
        """Where a source goes, its parent there (FIL-07, FIL-08, CPY-05…CPY-08)."""
        dest = self._action.dest
        writer = self._writer
        plain = clean(dest)
        if dest.endswith(("/", "/.")) or not plain:
            self._parents(writer.resolve(plain))
        target = writer.resolve(plain)
        existing = writer.lstat(target)
        contents = source.is_dir and self._action.dir_contents
        if existing is not None and not contents and (source.is_dir or stat.S_ISDIR(existing.st_mode)):
            base = source.name.rpartition("/")[2]
            if source.is_dir and not stat.S_ISDIR(existing.st_mode):
                raise SolveError(f"cannot copy to non-directory: /{target}", code="copy-clash")
            target = join(target, base) if base else target
        if contents and existing is None:
            self._parents(target)
        elif target:
            self._parents(split(target)[0])
        return target

    # --- one source

    def _unpack(self, source: Source) -> bool:
        """Extract an archive into the destination directory; False when it is none (FIL-15)."""
        from builder.cache.extract import apply, is_archive

        if not stat.S_ISREG(source.stat.st_mode):
            return False
        if not isinstance(self._writer, Writer):
            raise NotPlanned
        fd = self._source.open(source.path)
        with open(fd, "rb") as file:
            if not is_archive(file):
                return False
            file.seek(0)
            target = self._writer.resolve(clean(self._action.dest))
            self._parents(target)
            apply(file, self._writer, dest=target, whiteouts=False, owner=self._owner)
        return True

    def _copy(self, source: Source) -> None:
        self._fresh.clear()
        target = self._target(source)
        if not source.is_dir:
            self._entry(source.path, source.stat, target)
            return
        action = self._action
        check_required(self._source, source.path, action.required_paths)
        self._times = [(target, self._time(source.stat))]
        self._top(source, target)
        found: Iterable[Found] = below(
            self._source, source.path, action.include_patterns, action.exclude_patterns
        )
        if self._source is self._writer:
            found = list(found)  # or what is copied could be copied again
        prefix = target + "/" if target else ""
        for count, entry in enumerate(with_parents(iter(found))):
            self._entry(entry.path, entry.stat, prefix + entry.relative)
            if self._check is not None and count % _CHECK_EVERY == 0:
                self._check()
        for path, mtime_ns in reversed(self._times):
            self._writer.set_meta(path, mtime_ns=mtime_ns)

    def _top(self, source: Source, target: str) -> None:
        """The directory that a source directory becomes; an existing one keeps its mode and owner."""
        existing = self._writer.lstat(target)
        if existing is None or (not stat.S_ISDIR(existing.st_mode) and self._action.always_replace):
            self._directory(source.path, source.stat, target, existing)
            self._times.pop()
        elif not stat.S_ISDIR(existing.st_mode):
            raise SolveError(f"cannot copy to non-directory: /{target}", code="copy-clash")

    # --- one entry

    def _entry(self, path: str, st: os.stat_result, target: str) -> None:
        kind = st.st_mode & 0o170000
        existing = None
        if target.rpartition("/")[0] not in self._fresh:
            existing = self._writer.lstat(target)
        if kind == stat.S_IFDIR:
            self._directory(path, st, target, existing)
            return
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            if not self._action.always_replace:
                raise SolveError(f"cannot replace to directory /{target} with file", code="copy-clash")
            self._writer.remove(target)
        if kind == stat.S_IFREG:
            self._file(path, st, target)
            return
        uid, gid = self._read_owner or (st.st_uid, st.st_gid)
        mtime_ns = self._time(st)
        if kind == stat.S_IFLNK:
            self._writer.symlink(target, self._source.readlink(path), uid, gid, mtime_ns=mtime_ns)
        elif kind == stat.S_IFSOCK:
            self._writer.write_file(target, b"", self._mode(st), uid, gid, mtime_ns=mtime_ns)
        else:
            self._writer.mknod(target, kind | self._mode(st), st.st_rdev, uid, gid, mtime_ns=mtime_ns)

    def _directory(self, path: str, st: os.stat_result, target: str, existing: os.stat_result | None) -> None:
        """Make or take over a directory: it ends with the source's metadata (FIL-09)."""
        uid, gid = self._read_owner or (st.st_uid, st.st_gid)
        xattrs = kept_xattrs(self._source.xattrs(path))
        self._times.append((target, self._time(st)))
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            self._writer.set_meta(target, mode=self._mode(st), uid=uid, gid=gid, xattrs=xattrs)
            return
        if existing is not None:
            if not self._action.always_replace:
                raise SolveError(f"cannot copy to non-directory: /{target}", code="copy-clash")
            self._writer.remove(target)
        self._writer.mkdir(target, self._mode(st), uid, gid, xattrs=xattrs)
        self._fresh.add(target)

    def _file(self, path: str, st: os.stat_result, target: str) -> None:
        if st.st_nlink > 1:
            inode = (st.st_dev, st.st_ino)
            first = self._inodes.setdefault(inode, target)
            if first != target and self._writer.lstat(first) is not None:
                self._writer.link(target, first)
                return
        uid, gid = self._read_owner or (st.st_uid, st.st_gid)
        self._writer.copy_file(
            target, self._source, path, st, self._mode(st), uid, gid, mtime_ns=self._time(st)
        )

    def _mode(self, st: os.stat_result) -> int:
        action = self._action
        if action.mode >= 0:
            return action.mode & _PERMISSIONS
        if action.mode_str:
            return symbolic(action.mode_str, st.st_mode)
        return st.st_mode & _PERMISSIONS

    def _time(self, st: os.stat_result) -> int:
        return self._action.timestamp_ns if self._action.timestamp_ns >= 0 else st.st_mtime_ns
