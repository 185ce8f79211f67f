"""Owners and device nodes that this process cannot set, kept in our own records and read back as if they
were set.

In a user namespace with a single id every file belongs to that id, and no user namespace may make device
nodes. What a tree should hold is written down in one of two places::

    user.pybuild.owner = "uid:gid"     on regular files and directories; overlayfs takes it along
    snapshots/<id>/owners              beside the tree, for links, nodes, and where there are no attributes:
                                       a line "inode mtime_ns uid gid device" each, the last one counts;
                                       device is "-" or "c:1:3", whose place an empty file takes

An entry of the second kind counts only while inode and time agree, so what a RUN step makes anew is its own.
Elsewhere (root, a namespace with a range of ids) no attribute is ever read or written.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

XATTR = "user.pybuild.owner"
FILE = "owners"
_WHOLE = 4_294_967_295
_NO_XATTR = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOSPC, errno.E2BIG}
_FLOATS = ("st_atime", "st_mtime", "st_ctime")
_NAMED = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blksize", "st_blocks", "st_rdev")


class Mode:
    """What this process cannot set: ``owners`` in a namespace with a single id, ``nodes`` in any."""

    __slots__ = ("nodes", "owners")

    def __init__(self) -> None:
        self.nodes = False
        self.owners = False


MODE = Mode()


def detect() -> str:
    """Look at this process's namespace and set ``MODE``: ``root``, ``range`` or ``single``."""
    try:
        sizes = [_mapped(f"/proc/self/{kind}_map") for kind in ("uid", "gid")]
    except OSError:
        return "root"
    MODE.nodes = min(sizes) < _WHOLE
    MODE.owners = min(sizes) == 1
    return "single" if MODE.owners else "range" if MODE.nodes else "root"


def _mapped(path: str) -> int:
    with open(path, "rb") as file:
        return sum(int(line.split()[2]) for line in file)


class Record(NamedTuple):
    """What an entry should be; it counts for the file with this time."""

    mtime_ns: int
    uid: int
    gid: int
    device: str = "-"


class Records:
    """The records beside one layer's tree; empty for trees that have none."""

    def __init__(self, tree: Path) -> None:
        self._path = tree.parent / FILE
        self._known = _load(self._path)

    def __bool__(self) -> bool:
        return bool(self._known)

    def get(self, st: os.stat_result) -> Record | None:
        """The record of a file, if it is still that file."""
        found = self._known.get(st.st_ino)
        return found if found is not None and found.mtime_ns == st.st_mtime_ns else None

    def put(self, st: os.stat_result, uid: int, gid: int, device: str = "-") -> None:
        """Write down what the entry with this stat should be; says nothing that is so already."""
        if device == "-" and (uid, gid) == (st.st_uid, st.st_gid) and st.st_ino not in self._known:
            return
        record = Record(st.st_mtime_ns, uid, gid, device)
        self._known[st.st_ino] = record
        with open(self._path, "a", encoding="ascii") as file:
            file.write(f"{st.st_ino} {record.mtime_ns} {uid} {gid} {device}\n")


def _load(path: Path) -> dict[int, Record]:
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return {}
    found: dict[int, Record] = {}
    for line in text.splitlines():
        ino, mtime_ns, uid, gid, device = line.split(" ")
        found[int(ino)] = Record(int(mtime_ns), int(uid), int(gid), device)
    return found


def read(target: int | str, st: os.stat_result, records: Records) -> os.stat_result:
    """The stat of what the entry should be. ``target`` is an fd, or a path whose last part is not followed."""
    record = records.get(st) if records else None
    if record is not None:
        return _with(st, record.uid, record.gid, record.device)
    if MODE.owners and stat.S_IFMT(st.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
        try:
            text = os.getxattr(target, XATTR, follow_symlinks=isinstance(target, int))
            uid, gid = (int(part) for part in text.split(b":"))
        except (OSError, ValueError):
            return st
        return _with(st, uid, gid, "-")
    return st


def write(target: int | str, st: os.stat_result, uid: int, gid: int, records: Records) -> None:
    """Record the owner of an entry whose real stat is ``st``."""
    follow = isinstance(target, int)
    if stat.S_IFMT(st.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
        try:
            if (uid, gid) != (st.st_uid, st.st_gid):
                os.setxattr(target, XATTR, b"%d:%d" % (uid, gid), follow_symlinks=follow)
                return
            os.removexattr(target, XATTR, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (_NO_XATTR | {errno.ENODATA}):
                raise
    records.put(st, uid, gid)


def device_text(mode: int, device: int) -> str:
    """A node's type and number as they are recorded."""
    return f"{'b' if stat.S_ISBLK(mode) else 'c'}:{os.major(device)}:{os.minor(device)}"


def _with(st: os.stat_result, uid: int, gid: int, device: str) -> os.stat_result:
    mode, rdev = st.st_mode, st.st_rdev
    if device != "-":
        kind, major, minor = device.split(":")
        mode = stat.S_IMODE(mode) | (stat.S_IFBLK if kind == "b" else stat.S_IFCHR)
        rdev = os.makedev(int(major), int(minor))
    plain = [mode, st.st_ino, st.st_dev, st.st_nlink, uid, gid, st.st_size, *(int(st[i]) for i in (7, 8, 9))]
    named = {name: getattr(st, name) for name in (*_FLOATS, *_NAMED)}
    return os.stat_result(plain, {**named, "st_rdev": rdev})
