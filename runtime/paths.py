"""Opening and making paths beneath a directory that somebody else fills.

``openat2`` does it in one call; where it is missing, or where something has to be created on the way, a walk
from descriptor to descriptor does the same: links are read and resolved as if the directory were ``/``,
``..`` goes back along the descriptors already held, and no name is ever joined to a string that the kernel
would resolve again.
"""

from __future__ import annotations

import os
import stat

from runtime.syscalls import constants as c
from runtime.syscalls.linux import KERNEL, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Maker = Callable[[int, str, bool], None]

_HOPS = 255
_O_PATH = os.O_PATH | os.O_CLOEXEC
_ENOENT, _EPERM, _EAGAIN, _ENOTDIR, _ENOSYS, _ELOOP = 2, 1, 11, 20, 38, 40
_missing = False


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` as a process whose root is ``root_fd`` would; OSError as from openat2.

    Links of procfs that lead anywhere (``/proc/self/fd/N``) are refused with ELOOP.
    """
    return _open(root_fd, path, flags, mode, c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS)


def open_beneath(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` beneath ``root_fd``; a link or ``..`` that would leave it is EXDEV."""
    if path.startswith("/"):
        raise failed("openat2", path, 18)
    return _open(root_fd, path or ".", flags, mode, c.RESOLVE_BENEATH | c.RESOLVE_NO_MAGICLINKS)


def open_plain(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` beneath ``root_fd`` where no component may be a symbolic link (ELOOP)."""
    return _open(root_fd, path, flags, mode, c.RESOLVE_IN_ROOT | c.RESOLVE_NO_SYMLINKS)


def _open(root_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    global _missing
    if not _missing:
        for _ in range(64):  # EAGAIN: something was renamed while ".." was being resolved
            try:
                return KERNEL.openat2(root_fd, path or "/", flags, mode, resolve)
            except OSError as error:
                if error.errno == _ENOSYS or (error.errno == _EPERM and not _works()):
                    _missing = True
                    break
                if error.errno != _EAGAIN:
                    raise
        else:
            raise failed("openat2", path, _EAGAIN)
    return walk_open(root_fd, path, flags, mode, resolve)


def _works() -> bool:
    """Whether openat2 is there at all; an outer seccomp filter may answer EPERM for it."""
    try:
        os.close(KERNEL.openat2(c.AT_FDCWD, "/", os.O_PATH, 0, 0))
    except OSError:
        return False
    return True


def walk_open(root_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """What openat2 does, by a walk."""
    follow = not flags & os.O_NOFOLLOW and not flags & os.O_EXCL
    parent, name = walk(root_fd, path, follow_final=follow, resolve=resolve)
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent)
    except OSError as error:
        raise failed("openat", path, error.errno or 0) from error
    finally:
        os.close(parent)
    return fd


def walk(
    root_fd: int,
    path: str,
    *,
    follow_final: bool = True,
    resolve: int = c.RESOLVE_IN_ROOT,
    make: Maker | None = None,
) -> tuple[int, str]:
    """Resolve all but the last component: (descriptor of its parent, its name), the name never a link if
    followed.

    ``make(parent_fd, name, is_last)`` is called for each component that is missing and should create it;
    without it a missing directory is ENOENT. The caller closes the descriptor.
    """
    stack = [os.open(".", _O_PATH | os.O_DIRECTORY, dir_fd=root_fd)]
    todo = _components(path)
    hops = 0
    try:
        while todo:
            name = todo.pop()
            if name == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                elif resolve & c.RESOLVE_BENEATH:
                    raise failed("openat", path, 18)
                continue
            last = not todo
            child = _step(stack[-1], name, path, last, make)
            if child < 0:
                return stack.pop(), name
            info = os.fstat(child)
            if stat.S_ISLNK(info.st_mode) and not (last and not follow_final):
                hops += 1
                target = _link(child, path, hops, resolve)
                if target.startswith("/"):
                    if resolve & c.RESOLVE_BENEATH:
                        raise failed("openat", path, 18)
                    while len(stack) > 1:
                        os.close(stack.pop())
                todo += _components(target)
                continue
            if last:
                os.close(child)
                return stack.pop(), name
            if not stat.S_ISDIR(info.st_mode):
                os.close(child)
                raise failed("openat", path, _ENOTDIR)
            stack.append(child)
        return stack.pop(), "."
    finally:
        for fd in stack:
            os.close(fd)


def _step(parent: int, name: str, path: str, last: bool, make: Maker | None) -> int:
    """Open one component without following it; -1 when the last one is missing."""
    for attempt in (0, 1):
        try:
            return os.open(name, _O_PATH | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            if attempt or make is None:
                break
            make(parent, name, last)
        except OSError as error:
            raise failed("openat", path, error.errno or 0) from error
    if last and make is None:
        return -1
    raise failed("openat", path, _ENOENT)


def _link(fd: int, path: str, hops: int, resolve: int) -> str:
    """Where the link ``fd`` points; closes it."""
    try:
        target = os.readlink("", dir_fd=fd)
        magic = KERNEL.fs_magic(fd) == c.PROC_MAGIC and (target.startswith("/") or ":" in target)
    finally:
        os.close(fd)
    if magic or hops > _HOPS or resolve & c.RESOLVE_NO_SYMLINKS:
        raise failed("openat", path, _ELOOP)
    return target


def _components(path: str) -> list[str]:
    """The components in reverse; a trailing slash asks for a directory and adds ``.`` as nothing."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


class Stub:
    """A mount point that had to be made: how to find it again without a path, and its parent's times
    before."""

    __slots__ = ("after_ns", "atime_ns", "directory", "mtime_ns", "name", "parent_fd")

    def __init__(
        self, parent_fd: int, name: str, directory: bool, atime_ns: int, mtime_ns: int, after_ns: int
    ) -> None:
        self.parent_fd = parent_fd
        self.name = name
        self.directory = directory
        self.atime_ns = atime_ns
        self.mtime_ns = mtime_ns
        self.after_ns = after_ns

    def wire(self) -> tuple[str, bool, int, int, int]:
        """The parts that travel beside the descriptor."""
        return self.name, self.directory, self.atime_ns, self.mtime_ns, self.after_ns


def ensure(
    root_fd: int, path: str, directory: bool, stubs: list[Stub] | None = None, mode: int = 0o755
) -> int:
    """An O_PATH descriptor of ``path`` in the root, made (with its parents) when missing; links stay in the
    root.

    What was made is appended to ``stubs``, outermost first.
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        pass

    def make(parent: int, name: str, last: bool) -> None:
        before = os.fstat(parent)
        as_directory = directory or not last
        holder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        try:
            if as_directory:
                os.mkdir(name, mode if last else 0o755, dir_fd=parent)
            else:
                os.close(
                    os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=parent)
                )
        except FileExistsError:
            os.close(holder)
            return
        except OSError as error:
            os.close(holder)
            raise failed("mkdirat" if as_directory else "openat", path, error.errno or 0) from error
        if stubs is None:
            os.close(holder)
            return
        after = os.fstat(holder).st_mtime_ns
        stubs.append(Stub(holder, name, as_directory, before.st_atime_ns, before.st_mtime_ns, after))

    parent, name = walk(root_fd, path, make=make)
    try:
        return os.open(name, _O_PATH | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        raise failed("openat", path, error.errno or 0) from error
    finally:
        os.close(parent)


def remove_stubs(stubs: list[Stub]) -> None:
    """Remove mount points that are still empty, innermost first, and give their parents their times back.

    Works on the directories that were open when the stub was made, whatever their names lead to now; a name
    that has become a link or has content is left alone. Closes the descriptors.
    """
    for stub in reversed(stubs):
        try:
            _remove_stub(stub)
        except OSError:
            pass  # gone, filled or replaced by the container: not ours any more
        finally:
            os.close(stub.parent_fd)


def _remove_stub(stub: Stub) -> None:
    before = os.fstat(stub.parent_fd)
    if stub.directory:
        os.rmdir(stub.name, dir_fd=stub.parent_fd)
    else:
        info = os.stat(stub.name, dir_fd=stub.parent_fd, follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode) or info.st_size:
            return
        os.unlink(stub.name, dir_fd=stub.parent_fd)
    ours = before.st_mtime_ns == stub.after_ns  # nobody else changed the directory in between
    mtime = stub.mtime_ns if ours else before.st_mtime_ns
    os.utime(stub.parent_fd, ns=(stub.atime_ns if ours else before.st_atime_ns, mtime))
