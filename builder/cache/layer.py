"""Changes → layer tar, byte for byte repeatable (rows LAY-01, LAY-03…LAY-08).

An entry is a ustar header, with a PAX header before it when a value does not fit: a path or link text beyond
100 bytes or ASCII, a large size or id, a time before 1970, an extended attribute. Numeric owners only, whole
seconds, no access times, names without ``./``, directories end in "/". The same list gives the same bytes
everywhere. The way back is ``builder.cache.extract``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

from builder.cache.differ import Change, kept_xattrs
from builder.cache.tree import SourceTree, TreeError, read_xattrs

Write = Callable[[bytes], object]
BLOCK = 512
END = bytes(2 * BLOCK)
BECAME_SHORTER = "became-shorter"
"""The code of a TreeError: a file was cut while it was packed."""
_CHUNK = 1024 * 1024
_NAME = 100
_PREFIX = 155
_WHITEOUT = ".wh."
_NOT_ASCII = bytes(range(0x80, 0x100))
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777

_REGULAR, _LINK, _SYMLINK, _CHAR, _BLOCK_DEVICE, _DIR, _FIFO, _PAX = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
    b"x",
)
_TYPES = {
    stat.S_IFREG: _REGULAR,
    stat.S_IFLNK: _SYMLINK,
    stat.S_IFCHR: _CHAR,
    stat.S_IFBLK: _BLOCK_DEVICE,
    stat.S_IFDIR: _DIR,
    stat.S_IFIFO: _FIFO,
}


def encode(text: str) -> bytes:
    """The bytes of a name inside a tree."""
    return text.encode("utf-8", "surrogateescape")


def ustar(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    major: int = 0,
    minor: int = 0,
    prefix: bytes = b"",
) -> bytes:
    """One header block; values that do not fit its fields must be 0 here and stand in a PAX header."""
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(_NAME, b"\0"), mode, uid, gid, size, mtime)
    tail = b"%b%bustar\x0000%b%07o\0%07o\0%b" % (
        kind,
        link.ljust(_NAME, b"\0"),
        bytes(64),
        major,
        minor,
        prefix.ljust(_PREFIX + 12, b"\0"),
    )
    checksum = sum(head) + sum(tail) + 256  # the field itself counts as eight spaces
    return b"%b%06o\0 %b" % (head, checksum, tail)


def pax_records(records: dict[str, bytes]) -> bytes:
    """Records sorted by key, each led by its own length."""
    out = []
    for key in sorted(records):
        body = b" %b=%b\n" % (encode(key), records[key])
        size = len(body) + len(str(len(body)))
        if len(str(size)) + len(body) != size:
            size = len(body) + len(str(size))
        out.append(b"%d%b" % (size, body))
    return b"".join(out)


def pad(size: int) -> bytes:
    """What fills the last block of ``size`` bytes of data."""
    return bytes(-size % BLOCK)


def _ascii(name: bytes) -> bytes:
    """What of a name goes into a header field: ASCII, cut to size without leaving a slash at its end."""
    plain = name if name.isascii() else name.translate(None, _NOT_ASCII)
    return plain[:_NAME].rstrip(b"/") if len(plain) > _NAME else plain


def _pax_header(name: bytes, records: dict[str, bytes]) -> bytes:
    data = pax_records(records)
    parent, slash, base = name.rstrip(b"/").rpartition(b"/")
    pax_name = _ascii(parent + slash + b"PaxHeaders.0/" + base)
    return ustar(pax_name.rstrip(b"/"), _PAX, size=len(data)) + data + pad(len(data))


def entry_header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: int = 0,
    xattrs: dict[str, bytes] | None = None,
) -> bytes:
    """The header blocks of an entry, a PAX header first when one is needed."""
    records: dict[str, bytes] = {}
    if xattrs:
        records.update({f"SCHILY.xattr.{key}": value for key, value in xattrs.items()})
    if len(name) > _NAME or not name.isascii():
        records["path"], name_field = name, _ascii(name)
    else:
        name_field = name
    if len(link) > _NAME or not link.isascii():
        records["linkpath"], link = link, _ascii(link)
    if uid > _MAX_OCTAL_7:
        records["uid"], uid = b"%d" % uid, 0
    if gid > _MAX_OCTAL_7:
        records["gid"], gid = b"%d" % gid, 0
    if size > _MAX_OCTAL_11:
        records["size"], size = b"%d" % size, 0
    if not 0 <= mtime <= _MAX_OCTAL_11:
        records["mtime"], mtime = b"%d" % mtime, 0
    major, minor = (os.major(device), os.minor(device)) if device else (0, 0)
    block = ustar(
        name_field,
        kind,
        mode=mode,
        uid=uid,
        gid=gid,
        size=size,
        mtime=mtime,
        link=link,
        major=major,
        minor=minor,
    )
    return _pax_header(name, records) + block if records else block


def whiteout_header(path: str) -> bytes:
    """The entry that deletes ``path`` (LAY-06)."""
    parent, slash, base = path.rpartition("/")
    name = encode(f"{parent}{slash}{_WHITEOUT}{base}")
    if len(name) > _NAME and name.isascii():
        # the reference writes these as plain ustar, which can split a long name
        cut = name[: _PREFIX + 1].rfind(b"/")
        if cut > 0 and 0 < len(name) - cut - 1 <= _NAME:
            return ustar(name[cut + 1 :], _REGULAR, prefix=name[:cut])
    return entry_header(name, _REGULAR, mode=0, uid=0, gid=0)


def pack(
    changes: Iterable[Change],
    source: SourceTree,
    write: Write,
    *,
    clamp_s: int | None = None,
    user_xattrs: bool = True,
    plain: bool = False,
) -> None:
    """Write the layer tar of ``changes``, whose content is in ``source``.

    ``clamp_s`` is the latest time an entry may have; ``user_xattrs=False`` writes file capabilities only, as
    the reference does. In a layer a name that means a deletion cannot stand for a file: TreeError; with
    ``plain`` the tar is no layer, and such a name is like any other.
    """
    packer = _Packer(source, write, clamp_s, user_xattrs, plain)
    for change in changes:
        packer.add(change)
    write(END)


class _Packer:
    def __init__(
        self, source: SourceTree, write: Write, clamp_s: int | None, user_xattrs: bool, plain: bool
    ) -> None:
        self._source = source
        self._write = write
        self._clamp_s = clamp_s
        self._user_xattrs = user_xattrs
        self._plain = plain
        self._owner = source.owner
        self._dirs: set[str] = {""}
        self._parent = ""
        self._links: dict[tuple[int, int], bytes] = {}

    def add(self, change: Change) -> None:
        path, st = change.path, change.stat
        if not path:
            assert st is not None, "the root is never deleted"
            self._write(self._header(b"./", _DIR, st, xattrs=self._source.xattrs("")))
            return
        parent = path.rpartition("/")[0]
        if parent != self._parent:
            self._parents(parent)
            self._parent = parent
        if st is None:
            self._write(whiteout_header(path))
        else:
            self._entry(path, st)

    def _parents(self, parent: str) -> None:
        """Directories above an entry that were not written yet (LAY-01)."""
        if parent in self._dirs:
            return
        self._parents(parent.rpartition("/")[0])
        st = self._source.lstat(parent)
        if st is not None:
            self._entry(parent, st)
        self._dirs.add(parent)

    def _entry(self, path: str, st: os.stat_result) -> None:
        mode = st.st_mode
        kind = _TYPES.get(stat.S_IFMT(mode))
        if kind is None:  # sockets are skipped
            return
        if not self._plain and path.rpartition("/")[2].startswith(_WHITEOUT):
            raise TreeError(
                f'"/{path}": a layer cannot hold this name, which means a deletion there',
                hint=f"names that begin with {_WHITEOUT} are taken: remove the file in the step that made it",
                code="whiteout-name",
            )
        name = encode(path)
        if kind == _DIR:
            if path not in self._dirs:
                self._dirs.add(path)
                self._write(self._header(name + b"/", kind, st, xattrs=self._source.xattrs(path)))
            return
        first = self._links.setdefault((st.st_dev, st.st_ino), name) if st.st_nlink > 1 else name
        if first is not name:
            self._write(self._header(name, _LINK, st, link=first))
        elif kind == _REGULAR:
            self._file(path, name, st)
        elif kind == _SYMLINK:
            link = encode(self._source.readlink(path))
            self._write(self._header(name, kind, st, link=link, xattrs=self._source.xattrs(path)))
        else:
            device = 0 if kind == _FIFO else st.st_rdev
            self._write(self._header(name, kind, st, device=device, xattrs=self._source.xattrs(path)))

    def _file(self, path: str, name: bytes, st: os.stat_result) -> None:
        fd = self._source.open(path)
        try:
            size = os.fstat(fd).st_size
            header = self._header(name, _REGULAR, st, size=size, xattrs=read_xattrs(fd))
            if size <= _CHUNK:
                self._write(header + _read_exactly(fd, size, path) + pad(size))
                return
            self._write(header)
            left = size
            while left > 0:
                data = _read_exactly(fd, min(left, _CHUNK), path)
                self._write(data)
                left -= len(data)
            self._write(pad(size))
        finally:
            os.close(fd)

    def _header(
        self,
        name: bytes,
        kind: bytes,
        st: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: int = 0,
        xattrs: dict[str, bytes] | None = None,
    ) -> bytes:
        uid, gid = self._owner or (st.st_uid, st.st_gid)
        mtime = st.st_mtime_ns // 1_000_000_000
        if self._clamp_s is not None and mtime > self._clamp_s:
            mtime = self._clamp_s
        if xattrs:
            xattrs = kept_xattrs(xattrs)
            if not self._user_xattrs:
                xattrs = {key: value for key, value in xattrs.items() if key == "security.capability"}
        return entry_header(
            name,
            kind,
            mode=stat.S_IMODE(st.st_mode),
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime,
            link=link,
            device=device,
            xattrs=xattrs,
        )


def _read_exactly(fd: int, size: int, path: str) -> bytes:
    data = os.read(fd, size) if size else b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise TreeError(f'"/{path}": became shorter while it was read', code=BECAME_SHORTER)
        data += more
    return data
