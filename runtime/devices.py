"""A container's /dev: our own tmpfs, nodes made by number, and the terminal.

The image's /dev is covered and never read. Where nodes cannot be made (user namespaces), those of the host
are bound, opened by path and accepted only with the right device number.
"""

from __future__ import annotations

import os
import stat

from runtime import paths
from runtime.rootfs import system_dir
from runtime.setup import Setup, bind_at, mount_at, reopen_plain
from runtime.syscalls import constants as c
from runtime.syscalls.linux import failed

STANDARD = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)
_DENIED = {1, 13, 16, 19, 22}


def dev(setup: Setup, devices: tuple[tuple[str, str, int, int, int, int, int], ...]) -> None:
    """Mount and fill /dev; ``devices`` are (path, type, major, minor, mode, uid, gid) beyond the standard
    set."""
    target = system_dir(setup, "dev")
    flags = c.MS_NOSUID | c.MS_STRICTATIME
    mount_at(setup, target, "tmpfs", "tmpfs", flags, "mode=755,size=65536k", name="/dev")
    os.close(target)
    top = reopen_plain(setup, "dev", c.TMPFS_MAGIC)
    umask = os.umask(0)
    try:
        for name, major, minor in STANDARD:
            _node(setup, top, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        for path, kind, major, minor, mode, uid, gid in devices:
            _extra(setup, top, path, kind, os.makedev(major, minor), mode, uid, gid)
    finally:
        os.umask(umask)
    for name, link in _LINKS:
        os.symlink(link, name, dir_fd=top)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(name, 0o755, dir_fd=top)
    os.close(top)


def _node(setup: Setup, top: int, name: str, mode: int, device: int) -> None:
    if not setup.userns:
        os.mknod(name, mode, device, dir_fd=top)
        return
    # In a user namespace a node made here could not be opened; the host's can be.
    _bind_node(setup, top, name, f"/dev/{name}", stat.S_IFMT(mode), device)


def _bind_node(setup: Setup, top: int, name: str, host: str, kind: int, device: int) -> None:
    try:
        source = os.open(host, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    info = os.fstat(source)
    if stat.S_IFMT(info.st_mode) != kind or info.st_rdev != device:
        os.close(source)
        raise failed("open (not the device it should be)", host, 6)
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=top))
    target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    bind_at(setup, source, target, 0, recursive=False, name=host)
    os.close(source)
    os.close(target)


def _extra(setup: Setup, top: int, path: str, kind: str, device: int, mode: int, uid: int, gid: int) -> None:
    """A node that was asked for; below /dev only, its parents made on our tmpfs."""
    relative = path.removeprefix("/dev/")
    if relative == path or ".." in relative.split("/"):
        raise failed("mknod (devices live below /dev)", path, 22)
    parent, name = os.path.split(relative)
    holder = paths.ensure(top, parent, True) if parent else os.dup(top)
    file_type = stat.S_IFCHR if kind == "c" else stat.S_IFBLK
    try:
        if setup.userns:
            _bind_node(setup, holder, name, path, file_type, device)
            return
        os.mknod(name, file_type | mode, device, dir_fd=holder)
        if uid or gid:
            os.chown(name, uid, gid, dir_fd=holder, follow_symlinks=False)
    except FileExistsError:
        pass  # one of the standard set
    finally:
        os.close(holder)


def devpts(setup: Setup) -> None:
    """/dev/pts: the container's own terminals."""
    target = reopen_plain(setup, "dev/pts")
    flags = c.MS_NOSUID | c.MS_NOEXEC
    data = "newinstance,ptmxmode=0666,mode=0620"
    try:
        mount_at(setup, target, "devpts", "devpts", flags, data + ",gid=5", name="/dev/pts")
    except OSError as error:
        if error.errno != 22:
            raise
        mount_at(setup, target, "devpts", "devpts", flags, data, name="/dev/pts")  # gid 5 has no mapping
    os.close(target)


def shm(setup: Setup, size_bytes: int) -> None:
    """/dev/shm."""
    target = reopen_plain(setup, "dev/shm")
    size = f",size={size_bytes}" if size_bytes else ""
    mount_at(
        setup,
        target,
        "shm",
        "tmpfs",
        c.MS_NOSUID | c.MS_NOEXEC | c.MS_NODEV,
        f"mode=1777{size}",
        name="/dev/shm",
    )
    os.close(target)


def mqueue(setup: Setup) -> None:
    """/dev/mqueue, where the IPC namespace is ours."""
    target = reopen_plain(setup, "dev/mqueue")
    try:
        mount_at(
            setup, target, "mqueue", "mqueue", c.MS_NOSUID | c.MS_NOEXEC | c.MS_NODEV, name="/dev/mqueue"
        )
    except OSError as error:
        if error.errno not in _DENIED:
            raise
    os.close(target)


def open_terminal(setup: Setup, pts: int) -> None:
    """Make a terminal pair in the devpts that ``pts`` is open on."""
    if setup.kernel.fs_magic(pts) != c.DEVPTS_MAGIC:
        raise failed("open", "/dev/pts/ptmx", 1)
    master = paths.open_plain(pts, "ptmx", os.O_RDWR | os.O_NOCTTY)
    if os.fstat(master).st_rdev != os.makedev(5, 2):
        raise failed("open", "/dev/pts/ptmx", 1)
    setup.kernel.ioctl_bytes(master, c.TIOCSPTLCK, bytes(4))
    setup.slave_fd = setup.kernel.ioctl(master, c.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    setup.terminal_fd = master


def console(setup: Setup) -> None:
    """A terminal in the container's own devpts; its slave is also /dev/console."""
    pts = reopen_plain(setup, "dev/pts", c.DEVPTS_MAGIC)
    open_terminal(setup, pts)
    os.close(pts)
    top = reopen_plain(setup, "dev", c.TMPFS_MAGIC)
    os.close(os.open("console", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=top))
    target = os.open("console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    bind_at(setup, setup.slave_fd, target, 0, recursive=False, name="/dev/console")
    os.close(target)
    os.close(top)


def terminal(setup: Setup) -> None:
    """A new session on the terminal that was made for it, if any."""
    assert setup.identity is not None
    os.setsid()
    if setup.slave_fd < 0:
        return
    os.fchown(setup.slave_fd, setup.identity.uid, -1)
    setup.kernel.ioctl(setup.slave_fd, c.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(setup.slave_fd, fd)


def exec_terminal(setup: Setup) -> None:
    """Make a terminal in the /dev/pts of a container that runs already."""
    pts = paths.open_plain(setup.root_fd, "dev/pts", os.O_PATH | os.O_DIRECTORY)
    open_terminal(setup, pts)
    os.close(pts)
