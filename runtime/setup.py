"""What the operations of a container's set-up share, and the few mount primitives that they are made of.

Every operation takes a ``Setup`` first. Mount points are descriptors, never paths that the kernel resolves
again.
"""

from __future__ import annotations

import os

from runtime import paths
from runtime.syscalls import constants as c
from runtime.syscalls.linux import failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.syscalls.protocol import Kernel
    from runtime.user import Identity

_ATTRS = {
    c.MS_RDONLY: c.MOUNT_ATTR_RDONLY,
    c.MS_NOSUID: c.MOUNT_ATTR_NOSUID,
    c.MS_NODEV: c.MOUNT_ATTR_NODEV,
    c.MS_NOEXEC: c.MOUNT_ATTR_NOEXEC,
}
_FALLBACK = {1, 22, 38}  # EPERM, EINVAL, ENOSYS: the new mount calls are missing or not allowed


class Setup:
    """State of one set-up, in the container's first process."""

    __slots__ = (
        "cgroup_mixed",
        "cgroup_unified",
        "cgroup_v1",
        "clean_stubs",
        "count",
        "files_fd",
        "filter_program",
        "identity",
        "join_fd",
        "kernel",
        "listener_fd",
        "listens",
        "netns_fd",
        "nodev_root",
        "powerless",
        "root_fd",
        "single",
        "slave_fd",
        "stubs",
        "terminal_fd",
        "userns",
        "warning",
    )

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.root_fd = -1
        self.filter_program: bytes | None = None
        self.netns_fd = -1
        self.join_fd = -1
        self.cgroup_unified = False
        self.cgroup_mixed = False
        self.cgroup_v1: tuple[tuple[str, str], ...] = ()
        self.terminal_fd = -1
        self.slave_fd = -1
        self.files_fd = -1
        self.count = 0
        self.stubs: list[paths.Stub] = []
        self.clean_stubs = False
        self.nodev_root = False
        self.userns = False
        self.single = False
        """The user namespace has one id, and changes of owner are pretended or recorded."""
        self.listens = False
        self.listener_fd = -1
        self.warning = ""
        self.powerless = False
        self.identity: Identity | None = None

    def target(self, path: str, *, directory: bool) -> int:
        """A descriptor of a mount point in the root, made when missing."""
        stubs = self.stubs if self.clean_stubs else None
        return paths.ensure(self.root_fd, path, directory, stubs)

    def fresh(self, prefix: str) -> str:
        """A name not used before in the staging directory."""
        self.count += 1
        return f"{prefix}{self.count}"


def fd_path(fd: int) -> str:
    """A path by which mount(2) reaches exactly what ``fd`` is open on (procfs of the host is still there)."""
    return f"/proc/self/fd/{fd}"


def mount_at(
    setup: Setup, target_fd: int, source: str, fstype: str, flags: int, data: str = "", name: str = ""
) -> None:
    """Mount a new file system on ``target_fd``; ``name`` is the path for error messages."""
    try:
        setup.kernel.mount(source, fd_path(target_fd), fstype, flags, data)
    except OSError as error:
        raise failed("mount", name or source, error.errno or 0) from error


def bind_at(
    setup: Setup,
    source_fd: int,
    target_fd: int,
    flags: int,
    *,
    recursive: bool,
    name: str,
    propagation: int = 0,
) -> None:
    """Show what ``source_fd`` is open on at ``target_fd``, with ``flags`` (MS_RDONLY and kin) on every mount
    below.

    The mount gets its flags before it is attached, so it is never visible without them.
    """
    kernel = setup.kernel
    below = c.AT_RECURSIVE if recursive else 0
    attrs = sum(attr for flag, attr in _ATTRS.items() if flags & flag)
    try:
        tree = kernel.open_tree(
            source_fd, "", c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_EMPTY_PATH | below
        )
    except OSError as error:
        if error.errno not in _FALLBACK:
            raise failed("open_tree", name, error.errno or 0) from error
        _bind_classic(setup, source_fd, target_fd, flags, recursive=recursive, name=name)
        return
    try:
        if attrs or propagation:
            kernel.mount_setattr(tree, "", c.AT_EMPTY_PATH | below, attrs, propagation)
        kernel.move_mount(tree, target_fd)
    except OSError as error:
        if error.errno != 38:
            raise failed("mount", name, error.errno or 0) from error
        _bind_classic(setup, source_fd, target_fd, flags, recursive=recursive, name=name)
    finally:
        os.close(tree)


def _bind_classic(
    setup: Setup, source_fd: int, target_fd: int, flags: int, *, recursive: bool, name: str
) -> None:
    """The same with mount(2), for kernels before 5.12; submounts do not get the flags."""
    kernel = setup.kernel
    kernel.mount(fd_path(source_fd), fd_path(target_fd), "", c.MS_BIND | (c.MS_REC if recursive else 0))
    if not flags:
        return
    # The descriptor still names what is now covered, so the new mount has to be looked up again.
    again = os.open(os.readlink(fd_path(target_fd)), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not os.path.sameopenfile(again, source_fd):
            raise failed("mount", name, 11)
        kept = os.fstatvfs(source_fd).f_flag
        locked = sum(flag for st_flag, flag in c.ST_LOCKED_FLAGS.items() if kept & st_flag)
        kernel.mount("", fd_path(again), "", c.MS_REMOUNT | c.MS_BIND | flags | locked)
    finally:
        os.close(again)


def reopen_plain(setup: Setup, path: str, magic: int = 0) -> int:
    """Open the directory at ``path`` in the root without following links; check its file-system type."""
    fd = paths.open_plain(setup.root_fd, path, os.O_PATH | os.O_DIRECTORY)
    if magic and setup.kernel.fs_magic(fd) != magic:
        os.close(fd)
        raise failed("open", path, 1)
    return fd
