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
from dataclasses import dataclass
from pathlib import Path

from builder.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.db import Database

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


def check(db: Database, found: str | None, root: str) -> None:
    """Whether owners in this state directory are where this process looks for them; a new one is marked.

    ``found`` is the mark. StoreError when it was made in another way: its trees would be read wrongly.
    """
    rung = detect()
    kept = "recorded" if rung == "single" else "real"
    if found is None and kept == "recorded" and db.one("SELECT 1 FROM snapshots LIMIT 1") is None:
        db.run("INSERT OR REPLACE INTO meta(key, value) VALUES('owners', ?)", (kept,))
        found = kept
    if (found or "real") != kept:
        then, now = ("one id", "more") if kept == "real" else ("root or a range of ids", "one id")
        raise StoreError(
            f"{root} was made by a user with {then}, and this call has {now}",
            hint="choose another state directory with --root, or remove this one",
            code="store-owners",
        )


def _mapped(path: str) -> int:
    with open(path, "rb") as file:
        return sum(int(line.split()[2]) for line in file)


@dataclass(frozen=True, slots=True)
class Record:
    """What an entry should be; it counts for the file with this time."""

    mtime_ns: int
    uid: int
    gid: int
    device: str = "-"


class Records:
    """The records beside one layer's tree; empty for trees that have none."""

    def __init__(self, tree: Path) -> None:
        place = tree.parent
        ours = tree.name == "fs" and place.parent.name == "snapshots"  # never beside anybody else's directory
        self._path = place / FILE if ours else None
        self._known = _load(self._path) if self._path is not None else {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def get(self, st: os.stat_result) -> Record | None:
        """The record of a file, if it is still that file."""
        found = self._known.get(st.st_ino)
        if found is None or (found.mtime_ns != st.st_mtime_ns and not stat.S_ISDIR(st.st_mode)):
            return None
        return found

    def forget(self, st: os.stat_result) -> None:
        """Whatever was written of an inode is about a file that is gone, or is known better elsewhere."""
        if st.st_ino in self._known:
            self.put(st, st.st_uid, st.st_gid)
            self._known.pop(st.st_ino)

    def items(self) -> dict[int, Record]:
        """All records by inode."""
        return self._known

    def put(self, st: os.stat_result, uid: int, gid: int, device: str = "-") -> None:
        """Write down what the entry with this stat should be; says nothing that is so already."""
        if device == "-" and (uid, gid) == (st.st_uid, st.st_gid) and st.st_ino not in self._known:
            return
        self.add(st.st_ino, Record(st.st_mtime_ns, uid, gid, device))

    def add(self, inode: int, record: Record) -> None:
        """Write a record as it is."""
        if self._path is None:
            return
        self._known[inode] = record
        with open(self._path, "a", encoding="ascii") as file:
            file.write(f"{inode} {record.mtime_ns} {record.uid} {record.gid} {record.device}\n")


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
    """What the entry should be. ``target`` is an fd, or a path whose last part is not followed."""
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


def is_recorded(path: Path) -> bool:
    """Whether a file or directory has an owner on record, be it root."""
    try:
        os.getxattr(path, XATTR, follow_symlinks=False)
    except OSError:
        return False
    return True


def write(
    target: int | str, st: os.stat_result, uid: int, gid: int, records: Records, device: str = ""
) -> None:
    """Record the owner of an entry whose real stat is ``st``, and the node that it stands for."""
    if device:
        records.put(st, uid, gid, device)
        return
    follow = isinstance(target, int)
    if stat.S_IFMT(st.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
        try:
            if (uid, gid) != (st.st_uid, st.st_gid):
                os.setxattr(target, XATTR, b"%d:%d" % (uid, gid), follow_symlinks=follow)
                records.forget(st)
                return
            os.removexattr(target, XATTR, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (_NO_XATTR | {errno.ENODATA}):
                raise
    records.put(st, uid, gid)


def chown(fd: int, uid: int, gid: int) -> None:
    """Give an open file an owner, or record it."""
    if MODE.owners:
        write(fd, os.fstat(fd), uid, gid, Records(Path()))
    else:
        os.fchown(fd, uid, gid)


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
