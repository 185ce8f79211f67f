"""Changes of owner in a namespace with a single id: no file can have another owner, so they are written down.

A build step's filter (``seccomp``) hands every chown to the launcher, which resolves the path as the caller
would, sets ``user.pybuild.owner`` on files and directories, and answers. What reads these records is
``builder.cache.ownership``. Inside, ``stat`` goes on showing the one owner there is. Links and nodes carry
no such attribute: a change of their owner is answered and forgotten.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import struct

from runtime import paths
from runtime.syscalls.linux import KERNEL

XATTR = "user.pybuild.owner"
_RECEIVE, _SEND, _VALID = 0xC0502100, 0xC0182101, 0x40082102
_AT_FDCWD = 0xFFFFFF9C
_AT_NOFOLLOW, _AT_EMPTY_PATH = 0x100, 0x1000
_UNCHANGED = 0xFFFFFFFF
_LONGEST = 4096

_by_number: dict[tuple[int, int], str] = {}


def answer(listener: int) -> bool:
    """Take one change of owner from a filter's descriptor and answer it; False when nobody is left to ask."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if not any(events & select.POLLIN for _, events in poll.poll(0)):
        return False  # receiving would wait for ever
    try:
        request = KERNEL.ioctl_bytes(listener, _RECEIVE, bytes(80))
    except OSError as error:
        return error.errno in {errno.EINTR, errno.ENOENT}
    cookie, pid, _, number, arch = struct.unpack_from("=QIIiI", request)
    try:
        _record(listener, cookie, pid, _call_of(arch, number), struct.unpack_from("=6Q", request, 32))
        failure = 0
    except OSError as error:
        failure = error.errno or errno.EIO
    try:
        KERNEL.ioctl_bytes(listener, _SEND, struct.pack("=QqiI", cookie, 0, -failure, 0))
    except OSError:
        pass  # the caller was killed meanwhile
    return True


def _call_of(arch: int, number: int) -> str:
    if not _by_number:
        from runtime import seccomp

        _by_number.update(seccomp.chown_calls())
    return _by_number[arch, number]


def _record(listener: int, cookie: int, pid: int, call: str, arguments: tuple[int, ...]) -> None:
    at = call == "fchownat"
    uid, gid = (value & 0xFFFFFFFF for value in (arguments[2:4] if at else arguments[1:3]))
    if call == "fchown":
        target = os.open(f"/proc/{pid}/fd/{arguments[0] & 0xFFFFFFFF}", os.O_PATH | os.O_CLOEXEC)
    else:
        directory = arguments[0] & 0xFFFFFFFF if at else _AT_FDCWD
        flags = arguments[4] if at else _AT_NOFOLLOW if call == "lchown" else 0
        target = _open(pid, directory, _text(pid, arguments[1 if at else 0]), flags)
    try:
        KERNEL.ioctl_bytes(listener, _VALID, struct.pack("=Q", cookie))  # still the same process
        _set_owner(target, uid, gid)
    finally:
        os.close(target)


def _text(pid: int, address: int) -> str:
    """A string of the caller's memory, read page by page as the next one may not be there."""
    found = b""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while b"\0" not in found:
            if len(found) > _LONGEST:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            place = address + len(found)
            more = os.pread(memory, 4096 - place % 4096, place)
            if not more:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
            found += more
    finally:
        os.close(memory)
    return os.fsdecode(found.partition(b"\0")[0])


def _open(pid: int, directory: int, path: str, flags: int) -> int:
    """What the caller means by a path."""
    where = f"/proc/{pid}/cwd" if directory == _AT_FDCWD else f"/proc/{pid}/fd/{directory}"
    if not path:
        if not flags & _AT_EMPTY_PATH:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return os.open(where, os.O_PATH | os.O_CLOEXEC)
    if not path.startswith("/"):
        path = os.path.join(os.readlink(where), path)
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return paths.open_in_root(root, path, os.O_PATH | (os.O_NOFOLLOW if flags & _AT_NOFOLLOW else 0))
    finally:
        os.close(root)


def _set_owner(target: int, uid: int, gid: int) -> None:
    st = os.fstat(target)
    if not (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode)):
        return
    place = f"/proc/self/fd/{target}"
    try:
        old = [int(part) for part in os.getxattr(place, XATTR).split(b":")]
    except (OSError, ValueError):
        old = [0, 0]
    new = (old[0] if uid == _UNCHANGED else uid, old[1] if gid == _UNCHANGED else gid)
    if new != (0, 0) or old != [
        0,
        0,
    ]:  # given back to root on purpose: said, so that nobody thinks it was lost
        try:
            os.setxattr(place, XATTR, b"%d:%d" % new)
        except OSError as error:
            if error.errno != errno.ENOTSUP:  # a file system in memory that is in no layer anyway
                raise
    lost = stat.S_ISUID | (stat.S_ISGID if st.st_mode & 0o010 else 0)
    if stat.S_ISREG(st.st_mode) and st.st_mode & lost:  # as the kernel does
        os.chmod(place, stat.S_IMODE(st.st_mode) & ~lost)
