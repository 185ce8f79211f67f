"""The mounts that were asked for: binds, layered trees, tmpfs and small files in memory.

Sources named with a sub-path are opened beneath their source and never leave it; targets are opened beneath
the root.
"""

from __future__ import annotations

import os
import stat

from runtime import paths
from runtime.rootfs import mount_overlay, system_dir
from runtime.setup import Setup, bind_at, fd_path, mount_at, reopen_plain
from runtime.syscalls import constants as c

_PROPAGATION = {"private": c.MS_PRIVATE, "slave": c.MS_SLAVE, "shared": c.MS_SHARED}


def staging(setup: Setup) -> None:
    """A tmpfs for small files and throw-away layers; the container's /dev is mounted over it and hides it."""
    target = system_dir(setup, "dev")
    mount_at(setup, target, "tmpfs", "tmpfs", c.MS_NOSUID | c.MS_NODEV, "mode=700", name="(staging)")
    os.close(target)
    setup.files_fd = reopen_plain(setup, "dev", c.TMPFS_MAGIC)


def bind(
    setup: Setup, target: str, source: str, subpath: str, flags: int, throwaway: bool, propagation: str
) -> None:
    """Show a host file or directory."""
    fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        _attach(setup, fd, target, subpath, flags, throwaway, propagation)
    finally:
        os.close(fd)


def overlay(
    setup: Setup,
    target: str,
    lowers: tuple[str, ...],
    upper: str,
    work: str,
    subpath: str,
    throwaway: bool,
    userxattr: bool,
) -> None:
    """Show a tree made of layers, or a part of it."""
    name = setup.fresh("tree")
    os.mkdir(name, 0o755, dir_fd=setup.files_fd)
    place = f"{fd_path(setup.files_fd)}/{name}"
    readonly = not upper and not throwaway
    if throwaway and not upper:
        upper, work = _throwaway_dirs(setup, name, lowers[0])
    flags = c.MS_RDONLY if readonly else 0
    mount_overlay(setup, place, lowers, upper, work, userxattr, True, flags)
    fd = paths.open_plain(setup.files_fd, name, os.O_PATH | os.O_DIRECTORY)
    try:
        _attach(setup, fd, target, subpath, flags, False, "rprivate")
    finally:
        os.close(fd)


def _throwaway_dirs(setup: Setup, name: str, like: str) -> tuple[str, str]:
    """Upper and work directories in memory; the upper one looks like the directory that it stands for."""
    made = []
    for kind in ("upper", "work"):
        os.mkdir(f"{name}.{kind}", 0o755, dir_fd=setup.files_fd)
        made.append(f"{fd_path(setup.files_fd)}/{name}.{kind}")
    info = os.stat(like)
    os.chown(made[0], info.st_uid, info.st_gid)
    os.chmod(made[0], stat.S_IMODE(info.st_mode))
    os.utime(made[0], ns=(info.st_atime_ns, info.st_mtime_ns))
    return made[0], made[1]


def _attach(
    setup: Setup, fd: int, target: str, subpath: str, flags: int, throwaway: bool, propagation: str
) -> None:
    if subpath.strip("/"):
        # The source is a root of its own: a link in it means what it means inside, as for a container's
        # paths.
        source = paths.open_in_root(fd, subpath, os.O_PATH)
    else:
        source = os.dup(fd)
    try:
        directory = stat.S_ISDIR(os.fstat(source).st_mode)
        if throwaway and directory:
            _attach_throwaway(setup, source, target, flags)
            return
        point = setup.target(target, directory=directory)
        if throwaway:
            copy = _copy_in_memory(setup, source)
            bind_at(setup, copy, point, flags, recursive=False, name=target)
            os.close(copy)
        else:
            kind = _PROPAGATION[propagation.removeprefix("r")]
            bind_at(setup, source, point, flags, recursive=True, name=target, propagation=kind)
        os.close(point)
    finally:
        os.close(source)


def _attach_throwaway(setup: Setup, source: int, target: str, flags: int) -> None:
    """A writable view of a directory whose changes are dropped: an overlay with its upper layer in memory."""
    name = setup.fresh("view")
    os.mkdir(name, 0o755, dir_fd=setup.files_fd)
    upper, work = _throwaway_dirs(setup, name, fd_path(source))
    place = f"{fd_path(setup.files_fd)}/{name}"
    mount_overlay(setup, place, (fd_path(source),), upper, work, setup.userns, True, flags)
    fd = paths.open_plain(setup.files_fd, name, os.O_PATH | os.O_DIRECTORY)
    point = setup.target(target, directory=True)
    bind_at(setup, fd, point, flags, recursive=False, name=target)
    os.close(fd)
    os.close(point)


def _copy_in_memory(setup: Setup, source: int) -> int:
    """A private copy of one regular file, on the staging tmpfs."""
    info = os.fstat(source)
    name = setup.fresh("file")
    out = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=setup.files_fd)
    data = os.open(fd_path(source), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    while os.sendfile(out, data, None, 1 << 20):
        pass
    os.close(data)
    os.fchown(out, info.st_uid, info.st_gid)
    os.fchmod(out, stat.S_IMODE(info.st_mode))
    return out


def tmpfs(setup: Setup, target: str, size_bytes: int, mode: int, flags: int) -> None:
    """An empty directory in memory."""
    point = setup.target(target, directory=True)
    size = f",size={size_bytes}" if size_bytes else ""
    mount_at(setup, point, "tmpfs", "tmpfs", flags, f"mode={mode:o}{size}", name=target)
    os.close(point)


def file(setup: Setup, target: str, data: bytes, mode: int, uid: int, gid: int, flags: int) -> None:
    """A small file in memory."""
    name = setup.fresh("file")
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=setup.files_fd)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        if not setup.single:  # the one id there is may read it
            os.fchown(fd, uid, gid)
    finally:
        os.close(fd)
    source = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=setup.files_fd)
    point = setup.target(target, directory=False)
    bind_at(setup, source, point, flags, recursive=False, name=target)
    os.close(source)
    os.close(point)
