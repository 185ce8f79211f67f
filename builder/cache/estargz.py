"""eStargz: a gzip layer whose files can be read one by one (CMPR-01).

Every file's content begins a gzip member of its own, or several (one per 4 MiB). Behind the tar's end come
a table of contents as one more tar entry, ``stargz.index.json``, and a footer of 51 bytes that says where
that begins. Any gzip and tar reader sees the tar that went in, whose bytes stay as they are, and stops at its
end.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from builder.cache.tarfields import BadArchive, decimal_of, read_number, read_records, time_of
from builder.errors import PybuildError

TOC_NAME = "stargz.index.json"
TOC_ANNOTATION = "containerd.io/snapshot/stargz/toc.digest"
SIZE_ANNOTATION = "io.containers.estargz.uncompressed-size"
CHUNK_BYTES = 4 * 1024 * 1024
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_KINDS = {
    ord("0"): "reg",
    0: "reg",
    ord("1"): "hardlink",
    ord("2"): "symlink",
    ord("3"): "char",
    ord("4"): "block",
    ord("5"): "dir",
    ord("6"): "fifo",
}
_EXTENDED = frozenset(b"xgLK")
_MAX_HEADER = 1024 * 1024


class Unsupported(PybuildError):
    """A tar that has no table of contents in this form (sparse files)."""

    code = "estargz-unsupported"


class EStargz:
    """A compressor (``compression.Compressor``) over the bytes of one tar.

    After ``flush``, ``appended`` is what was added to the tar; ``annotations`` go to the layer's descriptor.
    """

    def __init__(self, member: Callable[[], Any]) -> None:
        self.appended = b""
        self.annotations: tuple[tuple[str, str], ...] = ()
        self._member = member
        self._gzip: Any = None
        self._out: list[bytes] = []
        self._written = 0
        self._taken = 0
        self._pending = bytearray()
        self._step: Callable[[], bool] = self._header
        self._extra: dict[str, bytes] = {}
        self._long: dict[int, bytes] = {}
        self._entries: list[dict[str, Any]] = []
        self._file: dict[str, Any] = {}
        self._size = self._left = self._in_chunk = self._padding = 0
        self._hash = hashlib.sha256()
        self._chunk_hash = hashlib.sha256()

    def compress(self, data: bytes, /) -> bytes:
        """Take bytes of the tar."""
        self._taken += len(data)
        self._pending += data
        while self._pending and self._step():
            pass
        return self._given()

    def flush(self) -> bytes:
        """The rest, the table and the footer."""
        if self._step not in (self._rest, self._header) or self._pending:
            raise BadArchive("the archive is truncated")
        toc = json.dumps({"version": 1, "entries": self._entries}, separators=(",", ":")).encode("ascii")
        self.appended = _toc_entry(toc)
        self._next_member()
        offset = self._written
        self._put(self.appended)
        self._next_member()
        self._out.append(footer(offset))
        self.annotations = (
            (TOC_ANNOTATION, f"sha256:{hashlib.sha256(toc).hexdigest()}"),
            (SIZE_ANNOTATION, str(self._taken + len(self.appended))),
        )
        return self._given()

    # --- gzip members

    def _given(self) -> bytes:
        data = b"".join(self._out)
        self._out = []
        return data

    def _put(self, data: bytes) -> None:
        if self._gzip is None:
            self._gzip = self._member()
        self._emit(self._gzip.compress(data))

    def _emit(self, data: bytes) -> None:
        if data:
            self._out.append(data)
            self._written += len(data)

    def _next_member(self) -> None:
        if self._gzip is not None:
            self._emit(self._gzip.flush())
            self._gzip = None

    def _take(self, size: int) -> bytes:
        data = bytes(self._pending[:size])
        del self._pending[:size]
        self._put(data)
        return data

    # --- the tar, step by step; a step gives False when it needs more

    def _header(self) -> bool:
        if len(self._pending) < _BLOCK:
            return False
        block = bytes(self._pending[:_BLOCK])
        if not block.strip(b"\0"):
            self._step = self._rest
            return True
        flag, size = block[156], read_number(block[124:136])
        if flag in _EXTENDED:
            return self._extended(flag, size)
        if flag not in _KINDS or any(key.startswith("GNU.sparse.") for key in self._extra):
            raise Unsupported(
                f"a layer holds an entry of type {chr(flag)!r}, which eStargz does not describe"
            )
        self._take(_BLOCK)
        self._entry(block, _KINDS[flag], decimal_of(self._extra, "size", size))
        self._extra, self._long = {}, {}
        return True

    def _extended(self, flag: int, size: int) -> bool:
        if not 0 <= size <= _MAX_HEADER:
            raise BadArchive(f"an extended header of {size} bytes is too large")
        whole = _BLOCK + size + -size % _BLOCK
        if len(self._pending) < whole:
            return False
        body = self._take(whole)[_BLOCK : _BLOCK + size]
        if flag == ord("x"):
            self._extra, pairs = read_records(body)
            if pairs:
                raise Unsupported("a layer holds a sparse file, which eStargz does not describe")
        elif flag != ord("g"):
            self._long[flag] = body.split(b"\0", 1)[0]
        return True

    def _entry(self, block: bytes, kind: str, size: int) -> None:
        name, link = _names(block, self._extra, self._long)
        if kind == "reg" and block[156] == 0 and name.endswith(b"/"):
            kind = "dir"
        entry: dict[str, Any] = {"name": to_text(name), "type": kind}
        if kind == "reg" and size:
            entry["size"] = size
        seconds = time_of(self._extra, read_number(block[136:148])) // 1_000_000_000
        entry["modtime"] = _rfc3339(seconds)
        if kind in ("hardlink", "symlink"):
            entry["linkName"] = to_text(link)
        _set(entry, "mode", read_number(block[100:108]) & 0o7777)
        _set(entry, "uid", decimal_of(self._extra, "uid", read_number(block[108:116])))
        _set(entry, "gid", decimal_of(self._extra, "gid", read_number(block[116:124])))
        _set(entry, "userName", _text(block, self._extra, "uname", 265))
        _set(entry, "groupName", _text(block, self._extra, "gname", 297))
        if kind in ("char", "block"):
            _set(entry, "devMajor", read_number(block[329:337]))
            _set(entry, "devMinor", read_number(block[337:345]))
        xattrs = {k[13:]: v for k, v in self._extra.items() if k.startswith("SCHILY.xattr.")}
        if xattrs:
            entry["xattrs"] = {key: base64.b64encode(value).decode("ascii") for key, value in xattrs.items()}
        self._entries.append(entry)
        if kind == "reg":
            self._begin(entry, size)

    def _begin(self, entry: dict[str, Any], size: int) -> None:
        """A file's content follows."""
        self._file, self._size, self._left, self._padding = entry, size, size, -size % _BLOCK
        self._hash = hashlib.sha256()
        if not size:
            entry["digest"] = f"sha256:{self._hash.hexdigest()}"
            return
        self._step = self._content
        self._chunk(entry)

    def _chunk(self, entry: dict[str, Any]) -> None:
        """The next chunk begins a gzip member."""
        self._next_member()
        self._in_chunk = min(self._left, CHUNK_BYTES)
        self._chunk_hash = hashlib.sha256()
        entry["offset"] = self._written
        _set(entry, "chunkOffset", self._size - self._left)
        if self._in_chunk < self._left:
            entry["chunkSize"] = self._in_chunk

    def _content(self) -> bool:
        data = self._take(min(self._in_chunk, len(self._pending)))
        self._in_chunk -= len(data)
        self._left -= len(data)
        self._hash.update(data)
        self._chunk_hash.update(data)
        if self._in_chunk:
            return False
        self._entries[-1]["chunkDigest"] = f"sha256:{self._chunk_hash.hexdigest()}"
        if self._left:
            self._entries.append({"name": self._file["name"], "type": "chunk"})
            self._chunk(self._entries[-1])
            return True
        self._file["digest"] = f"sha256:{self._hash.hexdigest()}"
        self._step = self._pad
        return True

    def _pad(self) -> bool:
        if len(self._pending) < self._padding:
            return False
        if self._padding:
            self._take(self._padding)
        self._step = self._header
        return True

    def _rest(self) -> bool:
        self._take(len(self._pending))
        return False


def footer(offset: int) -> bytes:
    """An empty gzip member whose extra field says where the member with the table begins."""
    extra = b"SG" + (22).to_bytes(2, "little") + b"%016xSTARGZ" % offset
    head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + len(extra).to_bytes(2, "little") + extra
    return head + b"\x01\0\0\xff\xff" + bytes(8)


def _toc_entry(toc: bytes) -> bytes:
    from builder.cache.layer import entry_header

    header = entry_header(TOC_NAME.encode(), b"0", mode=0, uid=0, gid=0, size=len(toc))
    return header + toc + bytes(-len(toc) % _BLOCK) + _END


def _names(block: bytes, extra: dict[str, bytes], long: dict[int, bytes]) -> tuple[bytes, bytes]:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    if prefix:
        name = prefix + b"/" + name
    link = block[157:257].split(b"\0", 1)[0]
    return (
        long.get(ord("L")) or extra.get("path") or name,
        long.get(ord("K")) or extra.get("linkpath") or link,
    )


def _text(block: bytes, extra: dict[str, bytes], key: str, at: int) -> str:
    return to_text(extra.get(key) or block[at : at + 32].split(b"\0", 1)[0])


def to_text(data: bytes) -> str:
    """JSON is UTF-8: what is not stands as a replacement character, as readers of the table would take it."""
    return data.decode("utf-8", "replace")


def _set(entry: dict[str, Any], key: str, value: object) -> None:
    """Nothing is written for what is zero or empty."""
    if value:
        entry[key] = value


def _rfc3339(seconds: int) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
