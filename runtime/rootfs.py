"""The root of a container and what every container finds in it: /proc, /dev, /sys, masked and read-only
paths.

All of it happens in the container's own mount namespace before ``pivot_root``, with descriptors of the new
root. The image fills that root, so none of its names is trusted: /proc, /sys and /dev have to be real
directories, device nodes are made by us on our own tmpfs, and whatever is opened to be mounted over is opened
beneath the root.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime import paths
from runtime.setup import Setup, bind_at, fd_path, mount_at, reopen_plain
from runtime.syscalls import constants as c
from runtime.syscalls.linux import failed

_PAGE_BYTES = 4096
_FD = "/proc/self/fd/"
_DENIED = {
    1,
    13,
    16,
    19,
    22,
}  # EPERM, EACCES, EBUSY, ENODEV, EINVAL: this kernel or namespace does not allow it
_SYS_FLAGS = c.MS_NOSUID | c.MS_NOEXEC | c.MS_NODEV


def propagation(setup: Setup, slave: bool) -> None:
    """Cut the new mount namespace off from the one it was copied from."""
    setup.kernel.mount("", "/", "", c.MS_REC | (c.MS_SLAVE if slave else c.MS_PRIVATE))


def overlay_root(
    setup: Setup,
    lowers: tuple[str, ...],
    upper: str,
    work: str,
    userxattr: bool,
    volatile: bool,
    readonly: bool,
) -> None:
    """Mount an overlay as the new root, over its own upper (or topmost) directory."""
    place = upper or lowers[0]
    flags = (c.MS_RDONLY if readonly or not upper else 0) | (c.MS_NODEV if setup.nodev_root else 0)
    mount_overlay(setup, place, lowers, upper, work, userxattr, volatile, flags)
    setup.root_fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def dir_root(setup: Setup, path: str, readonly: bool) -> None:
    """Bind an ordinary directory to itself as the new root."""
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = (c.MS_RDONLY if readonly else 0) | (c.MS_NODEV if setup.nodev_root else 0)
    bind_at(setup, target, target, flags, recursive=True, name=path)
    os.close(target)
    setup.root_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def mount_overlay(
    setup: Setup,
    place: str,
    lowers: tuple[str, ...],
    upper: str,
    work: str,
    userxattr: bool,
    volatile: bool,
    flags: int,
) -> None:
    """Mount an overlay at the absolute path ``place``; changes the current directory.

    The options have to fit one page, so the layers are named relative to the directory that they share.
    """
    if len(lowers) == 1 and not upper:
        fd = os.open(lowers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        bind_at(setup, fd, target, flags, recursive=False, name=place)
        return
    every = [*lowers, *(path for path in (upper, work) if path)]
    parent = os.path.commonpath([path for path in every if not path.startswith(_FD)] or ["/"])
    os.chdir(parent)
    held: list[int] = []
    names = [_overlay_name(path, parent, held) for path in every]
    data = "lowerdir=" + ":".join(names[: len(lowers)])
    if upper:
        data += f",upperdir={names[-2]},workdir={names[-1]}"
        _drop_volatile_mark(work)
    try:
        _try_overlay(setup, place, data, flags, userxattr, bool(volatile and upper))
    finally:
        for fd in held:
            os.close(fd)


def _overlay_name(path: str, parent: str, held: list[int]) -> str:
    """A name for one layer directory that needs no escaping in mount options."""
    if path.startswith(_FD):
        return path
    name = os.path.relpath(path, parent)
    if not any(sign in name for sign in ":,\\\n"):
        return name
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    held.append(fd)
    return fd_path(fd)


def _try_overlay(setup: Setup, place: str, data: str, flags: int, userxattr: bool, volatile: bool) -> None:
    """Mount with the options that keep layers independent of the host's module defaults, or those it
    accepts."""
    # With userxattr the kernel refuses redirect_dir other than "nofollow", and redirects are off by
    # themselves.
    common = ",userxattr" if userxattr else ",redirect_dir=off"
    variants = [common + ",index=off,metacopy=off" + (",volatile" if volatile else "")]
    if volatile:
        variants.append(common + ",index=off,metacopy=off")
    variants += [common + ",index=off", common if userxattr else ""]
    for position, extra in enumerate(variants):
        if len(os.fsencode(data + extra)) >= _PAGE_BYTES:
            raise failed("mount overlay (too many layers)", place, 7)
        try:
            setup.kernel.mount("overlay", place, "overlay", flags, data + extra)
        except OSError as error:
            if error.errno != 22 or position == len(variants) - 1:
                raise failed("mount overlay", place, error.errno or 0) from error
        else:
            return


def _drop_volatile_mark(work: str) -> None:
    """Remove the mark of an earlier volatile mount, which would forbid this one."""
    mark = os.path.join(work, "work", "incompat", "volatile")
    try:
        os.unlink(os.path.join(mark, "dirty"))
        os.rmdir(mark)
    except OSError:
        pass


def system_dir(setup: Setup, path: str) -> int:
    """The directory for /proc, /sys or /dev: a real directory of the root, made when missing."""
    try:
        return paths.open_plain(setup.root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise failed(
                "mount on something that is not a directory", f"/{path}", error.errno or 0
            ) from error
    os.close(paths.ensure(setup.root_fd, path, True))
    return reopen_plain(setup, path)


def proc(setup: Setup) -> None:
    """Mount /proc; where a namespace may not, show the one that is there."""
    target = system_dir(setup, "proc")
    try:
        mount_at(setup, target, "proc", "proc", _SYS_FLAGS, name="/proc")
    except OSError as error:
        if error.errno not in _DENIED or not setup.userns:
            raise
        _bind_host(setup, "/proc", target, 0)
    os.close(target)


def sysfs(setup: Setup, writable: bool) -> None:
    """Mount /sys, read-only unless asked; where a namespace may not, show the host's read-only."""
    target = system_dir(setup, "sys")
    flags = _SYS_FLAGS | (0 if writable else c.MS_RDONLY)
    try:
        mount_at(setup, target, "sysfs", "sysfs", flags, name="/sys")
    except OSError as error:
        if error.errno not in _DENIED:
            raise
        _bind_host(setup, "/sys", target, c.MS_RDONLY)
    os.close(target)


def _bind_host(setup: Setup, path: str, target: int, flags: int) -> None:
    source = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        bind_at(setup, source, target, flags | _SYS_FLAGS, recursive=True, name=path)
    finally:
        os.close(source)


def cgroup_fs(setup: Setup, writable: bool) -> None:
    """/sys/fs/cgroup: the container's own subtree on version 2, its own groups bound one by one on version
    1."""
    unified, v1 = setup.cgroup_unified, setup.cgroup_v1
    try:
        target = paths.open_plain(setup.root_fd, "sys/fs/cgroup", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return  # no cgroups in this kernel, or /sys is a bind of somebody else's
    flags = _SYS_FLAGS | c.MS_RELATIME | (0 if writable else c.MS_RDONLY)
    try:
        if not setup.cgroup_mixed:
            mount_at(setup, target, "cgroup2", "cgroup2", flags, name="/sys/fs/cgroup")
        elif not setup.userns:
            _cgroup_v1(setup, target, unified, v1, flags)
    except OSError as error:
        if error.errno not in _DENIED:
            raise
    finally:
        os.close(target)


def _cgroup_v1(
    setup: Setup, target: int, unified: bool, groups: tuple[tuple[str, str], ...], flags: int
) -> None:
    mount_at(setup, target, "tmpfs", "tmpfs", _SYS_FLAGS, "mode=755,size=64k", name="/sys/fs/cgroup")
    top = reopen_plain(setup, "sys/fs/cgroup", c.TMPFS_MAGIC)
    for controller, path in groups:
        os.mkdir(controller, 0o755, dir_fd=top)
        source = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        below = paths.open_plain(top, controller, os.O_PATH | os.O_DIRECTORY)
        bind_at(setup, source, below, flags & ~c.MS_RELATIME, recursive=False, name=path)
        os.close(source)
        os.close(below)
    if unified:
        os.mkdir("unified", 0o755, dir_fd=top)
        below = paths.open_plain(top, "unified", os.O_PATH | os.O_DIRECTORY)
        mount_at(setup, below, "cgroup2", "cgroup2", flags, name="/sys/fs/cgroup/unified")
        os.close(below)
    if flags & c.MS_RDONLY:
        setup.kernel.mount("", fd_path(top), "", c.MS_REMOUNT | c.MS_BIND | _SYS_FLAGS | c.MS_RDONLY)
    os.close(top)


def mask(setup: Setup, masked: tuple[str, ...]) -> None:
    """Hide paths: a directory under an empty read-only tmpfs, a file under our own /dev/null (EXE-05)."""
    null = -1
    for path in masked:
        fd = _existing(setup, path)
        if fd < 0:
            continue
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            mount_at(setup, fd, "tmpfs", "tmpfs", c.MS_RDONLY | _SYS_FLAGS, "size=0k,nr_inodes=1", name=path)
        else:
            if null < 0:
                null = own_null(setup)
            bind_at(setup, null, fd, 0, recursive=False, name=path)
        os.close(fd)
    if null >= 0:
        os.close(null)


def own_null(setup: Setup) -> int:
    """The null device of the container's own /dev, by number, whatever the image has there."""
    fd = paths.open_plain(setup.root_fd, "dev/null", os.O_PATH | os.O_NOFOLLOW)
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise failed("open", "/dev/null", 1)
    return fd


def readonly_paths(setup: Setup, protected: tuple[str, ...]) -> None:
    """Make paths read-only by binding them to themselves (EXE-05)."""
    for path in protected:
        fd = _existing(setup, path)
        if fd < 0:
            continue
        flags = c.MS_RDONLY | (_SYS_FLAGS if setup.kernel.fs_magic(fd) in c.KERNEL_FS else 0)
        bind_at(setup, fd, fd, flags, recursive=True, name=path)
        os.close(fd)


def _existing(setup: Setup, path: str) -> int:
    try:
        return paths.open_in_root(setup.root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in {2, 13, 20, 40}:  # not there, or not something that a path of the kernel can be
            return -1
        raise


def readonly_root(setup: Setup) -> None:
    """Make the root itself read-only once every mount point is there; mounts below keep their own flags."""
    flags = c.MS_RDONLY | (c.MS_NODEV if setup.nodev_root else 0)
    kept = os.fstatvfs(setup.root_fd).f_flag
    locked = sum(flag for st_flag, flag in c.ST_LOCKED_FLAGS.items() if kept & st_flag)
    setup.kernel.mount("", fd_path(setup.root_fd), "", c.MS_REMOUNT | c.MS_BIND | flags | locked)


def pivot(setup: Setup) -> None:
    """Make the new root ``/`` and let go of the old one."""
    os.fchdir(setup.root_fd)
    setup.kernel.pivot_root(".", ".")
    # The old root is now mounted over the new one at "/": detaching "." takes it off.
    setup.kernel.umount(".", c.MNT_DETACH)
    os.chdir("/")
    os.close(setup.root_fd)
    setup.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
