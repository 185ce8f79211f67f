"""Writing file trees: a ``Writer`` puts changes into an upper directory, in the form that overlayfs keeps.

Nothing is mounted: deletions become whiteouts, directories that hide a lower one become opaque, directories
and files that only a lower layer has are copied up before they change. Without lower layers the upper
directory is an ordinary tree. All writing is relative to open directories and follows no link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping

from builder.cache import ownership
from builder.cache.filedata import copy_data, remove_tree, write_all, write_pieces
from builder.cache.tree import SourceTree, Stack, TreeError, View, by_fd, join, read_xattrs, split
from builder.cache.treepaths import is_carried, make_missing
from builder.cache.treeupper import Upper, times_kept
from builder.errors import PathNotFound

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XATTRS: Mapping[str, bytes] = {}


class Writer(Upper):
    """A view plus the upper directory that takes its changes; one thread at a time.

    Parents must exist (``makedirs``). Anything that is not a directory is replaced; replacing a directory by
    something else is refused (``remove`` it first). Modes are taken as given, the umask has no say. Extended
    attributes are best effort; overlayfs' own are never written.
    """

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
        self._tidy()
        if not path:
            return False
        parent, name = split(path)
        stack = self._dir(parent)
        existing = self._find(stack, name)
        if existing is not None and stat.S_ISDIR(existing[1].st_mode):
            if not exist_ok:
                raise TreeError(f'"/{path}": exists')
            return False
        fd = self._make_dir(self._up(parent), path, name)
        self._finish(fd, mode, uid, gid, xattrs, mtime_ns)
        return True

    def makedirs(
        self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0, *, mtime_ns: int | None = None
    ) -> tuple[str, ...]:
        """Make a directory and its missing parents, all alike; gives what was made, outermost first."""
        return make_missing(self, path, mode, uid, gid, mtime_ns=mtime_ns)

    def write_file(
        self,
        path: str,
        source: int | bytes | Iterable[bytes | int],
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        *,
        mtime_ns: int | None = None,
        xattrs: Mapping[str, bytes] = _NO_XATTRS,
        source_stat: os.stat_result | None = None,
    ) -> None:
        """Make a regular file from bytes, from an open file at its start (holes stay holes), or from pieces.

        A piece that is a number stands for a hole of that length.
        """
        fd = self._create(path, mode)
        try:
            if isinstance(source, int):
                copy_data(source, fd, source_stat or os.fstat(source))
            elif isinstance(source, bytes):
                write_all(fd, source)
            else:
                write_pieces(fd, source)
            self._finish(fd, mode, uid, gid, xattrs, mtime_ns)
        finally:
            os.close(fd)

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
        """Make a regular file with the content and the kept attributes of one of another tree."""
        fd = source.open(source_path)
        try:
            xattrs = {name: value for name, value in read_xattrs(fd).items() if is_carried(name)}
            self.write_file(
                path, fd, mode, uid, gid, mtime_ns=mtime_ns, xattrs=xattrs, source_stat=source_stat
            )
        finally:
            os.close(fd)

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
        """Make a symbolic link; its text is kept as given."""
        fd, name = self._place(path)
        os.symlink(target, name, dir_fd=fd)
        self._finish_name(fd, name, None, uid, gid, xattrs, mtime_ns)

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
        """Make a node; ``mode`` holds its type. A character device 0/0 is refused: it is a whiteout."""
        if stat.S_ISCHR(mode) and device == 0:
            raise TreeError(f'"/{path}": a character device 0/0 would read as a deletion')
        fd, name = self._place(path)
        recorded = ""
        try:
            os.mknod(name, mode, device, dir_fd=fd)
        except PermissionError:
            if not ownership.MODE.nodes or stat.S_IFMT(mode) not in (stat.S_IFCHR, stat.S_IFBLK):
                raise
            recorded = ownership.device_text(mode, device)
            os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=fd))
        self._finish_name(fd, name, stat.S_IMODE(mode), uid, gid, xattrs, mtime_ns, device=recorded)

    def link(self, path: str, existing: str) -> None:
        """Give a file a second name; a file that only a lower layer has is copied up first."""
        self._tidy()
        if path == existing:
            return
        old = self._copy_up(existing)
        if stat.S_ISDIR(old.st_mode):
            raise TreeError(f'"/{existing}": a directory cannot be hard-linked')
        fd, name = self._place(path)
        old_parent, old_name = split(existing)
        old_fd = self._up(old_parent)[0][1]
        os.link(old_name, name, src_dir_fd=old_fd, dst_dir_fd=fd, follow_symlinks=False)

    def adopt(self, path: str, source: View) -> bool:
        """Make ``path`` one more name of what ``source`` has there; False when the system gives it none.

        Neither may change any more afterwards. A directory in the way is the caller's to remove.
        """
        self._tidy()
        parent, name = split(path)
        fd = self._up(parent)[0][1]
        holder, old, st = source._locate(path)
        try:
            try:
                os.link(old, name, src_dir_fd=holder, dst_dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                os.unlink(name, dir_fd=fd)
                os.link(old, name, src_dir_fd=holder, dst_dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in {errno.EMLINK, errno.EPERM, errno.EXDEV}:
                raise
            return False
        if ownership.MODE.nodes:
            real = os.stat(name, dir_fd=fd, follow_symlinks=False)
            same = stat.S_IFMT(real.st_mode) == stat.S_IFMT(st.st_mode)
            device = "" if same else ownership.device_text(st.st_mode, st.st_rdev)
            ownership.write(by_fd(fd, name), real, st.st_uid, st.st_gid, self._records_of(0), device)
        return True

    # --- changing things

    def remove(self, path: str) -> bool:
        """Remove a path and all below it; False when nothing was there."""
        self._tidy()
        parent, name = split(path)
        stack = self._dir(parent)
        if self._find(stack, name) is None:
            return False
        self._forget_below(path)
        lower = stack
        if stack[0][0] == 0:
            lower = stack[1:]
            remove_tree(stack[0][1], name)
        if lower and self._find(lower, name) is not None:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=self._up(parent)[0][1])
        return True

    def clear(self, path: str) -> None:
        """Remove everything below a directory, not the directory."""
        for name, _ in self.scandir(path):
            self.remove(join(path, name))

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
        """Change what is given of an entry's metadata, copying it up first; links are not followed."""
        self._tidy()
        st = self._copy_up(path)
        uid = st.st_uid if uid is None else uid
        gid = st.st_gid if gid is None else gid
        if stat.S_ISDIR(st.st_mode):
            fd = self._up(path)[0][1]
            self._finish(
                fd, stat.S_IMODE(st.st_mode) if mode is None else mode, uid, gid, xattrs or {}, mtime_ns
            )
            return
        fd = self._up(split(path)[0])[0][1]
        wanted = None if stat.S_ISLNK(st.st_mode) else stat.S_IMODE(st.st_mode) if mode is None else mode
        self._finish_name(fd, split(path)[1], wanted, uid, gid, xattrs or {}, mtime_ns, old=st)

    def drop_xattrs(self, path: str, kept: Iterable[str]) -> None:
        """Take a directory's ``user`` attributes away, except those ``kept`` and overlayfs' own."""
        for name in self.xattrs(path).keys() - set(kept):
            if name.startswith("user."):
                os.removexattr(by_fd(self._up(path)[0][1], "."), name)

    # --- the upper directory

    def _place(self, path: str) -> tuple[int, str]:
        """The upper directory and the name to make something at, any old non-directory there unlinked."""
        self._tidy()
        parent, name = split(path)
        stack = self._up(parent)
        self._unlink_old(stack, path, name)
        return stack[0][1], name

    def _unlink_old(self, stack: Stack, path: str, name: str) -> None:
        existing = self._find(stack, name)
        if existing is not None and stat.S_ISDIR(existing[1].st_mode):
            raise TreeError(f'"/{path}": is a directory', code="is-a-directory")
        try:
            os.unlink(name, dir_fd=stack[0][1])
        except FileNotFoundError:
            pass

    def _create(self, path: str, mode: int) -> int:
        """A new empty regular file, open for writing."""
        self._tidy()
        parent, name = split(path)
        stack = self._up(parent)
        if len(stack) == 1:
            try:
                return os.open(name, _NEW_FILE, mode & 0o777, dir_fd=stack[0][1])
            except FileExistsError:
                pass
        self._unlink_old(stack, path, name)
        return os.open(name, _NEW_FILE, mode & 0o777, dir_fd=stack[0][1])

    def _copy_up(self, path: str) -> os.stat_result:
        """Make sure that the upper directory itself holds an entry; gives its stat."""
        if not path:
            return self._stat_of(self._up(""))
        parent, name = split(path)
        stack = self._dir(parent)
        found = self._find(stack, name)
        if found is None:
            raise PathNotFound(f'"/{path}": not found', path=path)
        holder, st = found
        if stack[0][0] == 0 and holder == stack[0][1]:
            return st
        if stat.S_ISDIR(st.st_mode):
            self._up(path)
            return st
        with times_kept(self._up(parent)[0][1]):
            self._take_up(path, holder, st)
        return st

    def _take_up(self, path: str, holder: int, st: os.stat_result) -> None:
        """Copy an entry that is no directory from the lower directory ``holder``."""
        name = split(path)[1]
        xattrs = read_xattrs(by_fd(holder, name))
        if stat.S_ISREG(st.st_mode):
            with open(self.open(path), "rb", buffering=0) as file:
                self.write_file(
                    path,
                    file.fileno(),
                    stat.S_IMODE(st.st_mode),
                    st.st_uid,
                    st.st_gid,
                    mtime_ns=st.st_mtime_ns,
                    xattrs=xattrs,
                )
        elif stat.S_ISLNK(st.st_mode):
            target = os.readlink(name, dir_fd=holder)
            self.symlink(path, target, st.st_uid, st.st_gid, mtime_ns=st.st_mtime_ns, xattrs=xattrs)
        else:
            self.mknod(
                path, st.st_mode, st.st_rdev, st.st_uid, st.st_gid, mtime_ns=st.st_mtime_ns, xattrs=xattrs
            )
