"""Reading tar streams of every common dialect: v7, ustar, PAX, GNU long names, GNU sparse files.

Nothing is believed: checksums, numbers, records and sparse maps are checked, sizes are bounded, and whatever
does not fit is ``BadArchive``. What an entry may do to a tree is decided in ``builder.cache.extract``. Where
dialects contradict each other, the order of precedence is that of the reference: PAX before ustar, GNU long
names before both, global PAX headers not applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from builder.cache.compression import Readable
from builder.cache.tarfields import (
    MAX_SIZE,
    BadArchive,
    Sparse,
    check_header,
    checked_map,
    decimal_of,
    read_digits,
    read_number,
    read_records,
    time_of,
    to_text,
)

Kind = Literal["file", "dir", "symlink", "link", "char", "block", "fifo"]
BLOCK = 512
_READ = 256 * 1024
_MAX_HEADER = 1024 * 1024
_MAX_FRAGMENTS = 1_000_000
_MAX_TIME = 10**9 << 62  # nanoseconds; beyond that the kernel takes no seconds
_ZEROS = bytes(BLOCK)
_KINDS: dict[int, Kind] = {
    ord("0"): "file",
    0: "file",
    ord("7"): "file",
    ord("S"): "file",
    ord("1"): "link",
    ord("2"): "symlink",
    ord("3"): "char",
    ord("4"): "block",
    ord("5"): "dir",
    ord("6"): "fifo",
}
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK, _GNU_SPARSE = (ord(flag) for flag in "xgLKS")


@dataclass(slots=True)
class Entry:
    """One member, as the archive describes it. ``size`` is that of the file, holes included."""

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: Sparse | None = None


@dataclass(slots=True)
class _Extra:
    """What headers before an entry said about it."""

    records: dict[str, bytes] = field(default_factory=dict)
    sparse_pairs: list[int] = field(default_factory=list)
    name: bytes = b""
    link: bytes = b""


class TarReader:
    """The entries of an uncompressed tar stream, in order; ``data`` gives the content of the current one.

    With ``hashing`` the digest of the whole stream, padding included, is there after the last entry.
    """

    def __init__(self, source: Readable, *, hashing: bool = False) -> None:
        self._source = source
        self._buffer = b""
        self._at = 0
        self._hash = hashlib.sha256() if hashing else None
        self.bytes_read = 0
        self._left = 0  # data of the current entry still in the stream
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
        self._drain()

    def hexdigest(self) -> str:
        """The sha256 of the stream; complete once iteration has ended."""
        assert self._hash is not None, "made without hashing"
        return self._hash.hexdigest()

    # --- the stream

    def _fill(self) -> bool:
        data = self._source.read(_READ)
        if not data:
            return False
        if self._hash is not None:
            self._hash.update(data)
        self.bytes_read += len(data)
        rest = self._buffer[self._at :]
        self._buffer, self._at = (rest + data if rest else data), 0
        return True

    def _take(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        while len(self._buffer) - self._at < size:
            if not self._fill():
                raise BadArchive("the archive is truncated")
        data = self._buffer[self._at : self._at + size]
        self._at += size
        return data

    def _skip(self, size: int) -> None:
        while size > 0:
            have = min(size, len(self._buffer) - self._at)
            self._at += have
            size -= have
            if size and not self._fill():
                raise BadArchive("the archive is truncated")

    def _drain(self) -> None:
        """Read on to the end: what follows the end marker belongs to the digest."""
        self._at = len(self._buffer)
        while self._fill():
            self._at = len(self._buffer)

    def _block(self) -> bytes:
        """The next header block, b"" at the end of the archive."""
        if self._at == len(self._buffer) and not self._fill():
            return b""  # no end marker: other readers accept it too
        block = self._take(BLOCK)
        if block != _ZEROS:
            return block
        if (self._at < len(self._buffer) or self._fill()) and self._take(BLOCK) != _ZEROS:
            raise BadArchive("an empty header stands where the archive goes on")
        return b""

    # --- data

    def data(self) -> Iterator[bytes]:
        """The current entry's stored bytes, in pieces of any size (without its holes)."""
        while self._left > 0:
            if self._at == len(self._buffer) and not self._fill():
                raise BadArchive("the archive is truncated")
            piece = self._buffer[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    def small_data(self) -> bytes:
        """All of the current entry's stored bytes at once."""
        data = self._take(self._left)
        self._left = 0
        return data

    def with_holes(self, sparse: Sparse, size: int) -> Iterator[bytes | int]:
        """The current sparse entry's content: bytes, and numbers that say how long a hole is."""
        position = 0
        pieces = self.data()
        piece = b""
        for offset, length in sparse:
            if offset > position:
                yield offset - position
            position = offset + length
            while length > 0:
                piece = piece or next(pieces)
                yield piece[:length]
                used = min(length, len(piece))
                piece, length = piece[used:], length - used
        if size > position:
            yield size - position

    # --- headers

    def _next(self) -> Entry | None:
        self._skip(self._left + self._padding)
        self._left = self._padding = 0
        extra = _Extra()
        pending = False
        while block := self._block():
            check_header(block)
            flag = block[156]
            if flag in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
                body = self._header_body(block)
                pending = pending or flag != _PAX_GLOBAL
                if flag == _PAX:
                    extra.records, extra.sparse_pairs = read_records(body)
                elif flag == _GNU_NAME:
                    extra.name = body.split(b"\0", 1)[0]
                elif flag == _GNU_LINK:
                    extra.link = body.split(b"\0", 1)[0]
                continue
            return self._entry(block, flag, extra)
        if pending:
            raise BadArchive("the archive ends after an extended header")
        return None

    def _header_body(self, block: bytes) -> bytes:
        size = read_number(block[124:136])
        if not 0 <= size <= _MAX_HEADER:
            raise BadArchive(f"an extended header of {size} bytes is too large")
        body = self._take(size)
        self._skip(-size % BLOCK)
        return body

    def _entry(self, block: bytes, flag: int, extra: _Extra) -> Entry:
        kind = _KINDS.get(flag)
        if kind is None:
            raise BadArchive(f"unsupported type of archive entry {chr(flag)!r}")
        records = extra.records
        name, link = _names(block, extra)
        if flag == 0 and name.endswith(b"/"):
            kind = "dir"  # how archives said it before there was a type for it
        size = decimal_of(records, "size", read_number(block[124:136]))
        if not 0 <= size <= MAX_SIZE:
            raise BadArchive(f"{to_text(name)!r}: impossible size {size}")
        stored = size if kind == "file" else 0
        entry = Entry(
            name=to_text(name),
            kind=kind,
            mode=read_number(block[100:108]) & 0o7777,
            uid=decimal_of(records, "uid", read_number(block[108:116])),
            gid=decimal_of(records, "gid", read_number(block[116:124])),
            size=stored,
            mtime_ns=time_of(records, read_number(block[136:148])),
            link=to_text(link),
        )
        if not -_MAX_TIME <= entry.mtime_ns <= _MAX_TIME:
            raise BadArchive(f"{entry.name!r}: impossible time")
        if kind in ("char", "block"):
            entry.major, entry.minor = read_number(block[329:337]), read_number(block[337:345])
        for key, value in records.items():
            if key.startswith("SCHILY.xattr."):
                entry.xattrs[key[13:]] = value
        self._left, self._padding = stored, -stored % BLOCK
        if kind == "file":
            self._sparse(entry, block, flag, extra)
        return entry

    # --- sparse files

    def _sparse(self, entry: Entry, block: bytes, flag: int, extra: _Extra) -> None:
        records = extra.records
        pairs: list[int] | None = None
        real = entry.size
        if flag == _GNU_SPARSE:
            pairs, real = self._old_gnu_map(block)
        elif "GNU.sparse.major" in records:
            if (records["GNU.sparse.major"], records.get("GNU.sparse.minor")) != (b"1", b"0"):
                raise BadArchive(f"{entry.name!r}: unknown kind of sparse file")
            real = decimal_of(records, "GNU.sparse.realsize", -1)
            pairs = self._map_in_data()
        elif "GNU.sparse.map" in records:
            real = decimal_of(records, "GNU.sparse.size", -1)
            pairs = [read_digits(text) for text in records["GNU.sparse.map"].split(b",") if text]
        elif extra.sparse_pairs:
            real = decimal_of(records, "GNU.sparse.size", -1)
            pairs = extra.sparse_pairs
        if pairs is None:
            return
        if records.get("GNU.sparse.name"):
            entry.name = to_text(records["GNU.sparse.name"])
        entry.size, entry.sparse = real, checked_map(pairs, self._left, real, entry.name)

    def _old_gnu_map(self, block: bytes) -> tuple[list[int], int]:
        pairs: list[int] = []
        real = read_number(block[483:495])
        field_block, start, count, extended = block, 386, 4, block[482]
        while True:
            for at in range(start, start + count * 24, 24):
                if field_block[at] == 0:
                    break
                pairs += [read_number(field_block[at : at + 12]), read_number(field_block[at + 12 : at + 24])]
            if not extended:
                return pairs, real
            if len(pairs) > 2 * _MAX_FRAGMENTS:
                raise BadArchive("a sparse file has too many pieces")
            field_block = self._take(BLOCK)
            start, count, extended = 0, 21, field_block[504]

    def _map_in_data(self) -> list[int]:
        """The map of PAX sparse format 1.0: lines of digits in front of the data, padded to whole blocks."""
        text = b""
        wanted = 1
        while text.count(b"\n") < wanted:
            if self._left < BLOCK or len(text) > 24 * _MAX_FRAGMENTS:
                raise BadArchive("the map of a sparse file is damaged")
            text += self._take(BLOCK)
            self._left -= BLOCK
            if wanted == 1 and b"\n" in text:
                wanted = 1 + 2 * read_digits(text.split(b"\n", 1)[0])
                if wanted > 2 * _MAX_FRAGMENTS:
                    raise BadArchive("a sparse file has too many pieces")
        return [read_digits(line) for line in text.split(b"\n")[1:wanted]]


def _names(block: bytes, extra: _Extra) -> tuple[bytes, bytes]:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":
        end = 476 if block[508:512] == b"tar\0" else 500
        prefix = block[345:end].split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    link = block[157:257].split(b"\0", 1)[0]
    name = extra.name or extra.records.get("path") or name
    return name, extra.link or extra.records.get("linkpath") or link
