"""Compression of layers, and the door to zstandard and isal.

Compressed bytes depend on nothing but the input, the compressor's version and the level: one stream, input
cut into equal chunks, no name or time in gzip headers, and zstd always in its many-threaded form, whose bytes
do not depend on how many threads there are (rows CMPR-01, CMPR-04). ``engine`` names what made them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, cast

from builder.errors import InvalidValue, PybuildError
from builder.oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD

Name = Literal["gzip", "zstd", "estargz", "uncompressed"]
CHUNK = 1024 * 1024
_ISAL_LEVEL = 2
_ZSTD_LEVEL = 3
_GZIP_FORMAT = 31  # zlib's window bits for a gzip header and trailer
_MAX_WINDOW = 1 << 27
_ZSTD_SLICE = 2048
_XZ_MEMORY = 256 * 1024 * 1024
_MEDIA_TYPES = {
    "gzip": OCI_LAYER_GZIP,
    "zstd": OCI_LAYER_ZSTD,
    "estargz": OCI_LAYER_GZIP,
    "uncompressed": OCI_LAYER,
}

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)


class CorruptData(PybuildError):
    """Compressed data that does not decompress, or to more than is sensible."""

    code = "corrupt-data"


class Compressor(Protocol):
    """Takes chunks, gives compressed bytes; ``flush`` once, at the end."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Readable(Protocol):
    """What a decompressor reads from."""

    def read(self, size: int, /) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def media_type(name: str) -> str:
    """The OCI media type of a layer compressed like this."""
    return _MEDIA_TYPES[check_name(name)]


def check_name(name: str) -> Name:
    """``name`` when we can compress so; InvalidValue otherwise."""
    if name not in _MEDIA_TYPES:
        raise InvalidValue(
            f"unsupported layer compression {name!r}", hint="gzip, zstd, estargz or uncompressed"
        )
    return cast("Name", name)


def compressor(name: str, level: int | None = None) -> Compressor:
    """A new compressor. Feed it chunks of ``CHUNK`` bytes, the last one shorter, for repeatable bytes.

    Without ``level`` gzip is made by isal (zlib level 6 where isal is missing), zstd at level 3. With one,
    gzip is made by zlib, whose levels 0 to 9 people know.
    """
    check_name(name)
    if name == "uncompressed":
        return _Plain()
    if name == "zstd":
        return _zstd_compressor(level)
    if level is not None and not 0 <= level <= 9:
        raise InvalidValue(f"gzip compression level {level} is not between 0 and 9")
    if name == "estargz":
        from builder.cache.estargz import EStargz

        return EStargz(partial(_gzip_compressor, level))
    return _gzip_compressor(level)


def _gzip_compressor(level: int | None) -> Compressor:
    isal = _isal() if level is None else None
    if isal is not None:
        return cast("Compressor", isal.compressobj(_ISAL_LEVEL, isal.DEFLATED, _GZIP_FORMAT))
    return zlib.compressobj(6 if level is None else level, zlib.DEFLATED, _GZIP_FORMAT)


def appended_by(packer: Compressor) -> bytes:
    """What a compressor added to the data by itself, in the clear; known after ``flush``."""
    return cast("bytes", getattr(packer, "appended", b""))


def annotations_of(packer: Compressor) -> tuple[tuple[str, str], ...]:
    """What a layer's descriptor says about the compressor's work; known after ``flush``."""
    return cast("tuple[tuple[str, str], ...]", getattr(packer, "annotations", ()))


def engine(name: str, level: int | None = None) -> str:
    """What ``compressor`` would use: library, version and level; equal names mean equal bytes."""
    check_name(name)
    if name == "uncompressed":
        return name
    if name == "zstd":
        import zstandard

        version = ".".join(map(str, zstandard.ZSTD_VERSION))
        return f"zstd {version} level {_ZSTD_LEVEL if level is None else level}"
    if level is None and _isal() is not None:
        from importlib.metadata import version as version_of

        return f"isal {version_of('isal')} level {_ISAL_LEVEL}"
    return f"zlib {zlib.ZLIB_RUNTIME_VERSION} level {6 if level is None else level}"


def _isal() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    return isal_zlib


def _zstd_compressor(level: int | None) -> Compressor:
    import os

    import zstandard

    level = _ZSTD_LEVEL if level is None else level
    if not 0 <= level <= 22:
        raise InvalidValue(f"zstd compression level {level} is not between 0 and 22")
    threads = min(len(os.sched_getaffinity(0)), 8)
    return zstandard.ZstdCompressor(level=level, threads=threads, write_checksum=True).compressobj()


@dataclass(frozen=True, slots=True, kw_only=True)
class InflateLimits:
    """How far compressed data may grow: ``ratio`` counts beyond ``free_bytes``, ``max_bytes`` always."""

    ratio: int = 1100
    free_bytes: int = 1 << 32
    max_bytes: int = 1 << 40


def sniff(head: bytes) -> str:
    """What the first bytes of a file look like: gzip, zstd, bzip2, xz or plain."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return "zstd"  # a skippable frame
    return "plain"


_DEFAULT_LIMITS = InflateLimits()


class Decompressor:
    """Reads what any of the known compressions hides; anything else is given as it is.

    Memory is bounded; concatenated streams are one; ``CorruptData`` on damage, truncation and bombs.
    ``compression`` says what was found.
    """

    def __init__(self, source: Readable, *, limits: InflateLimits = _DEFAULT_LIMITS) -> None:
        self._source = source
        self._limits = limits
        self._taken = 0
        self._given = 0
        self._input = self._fill(6)
        self.compression = sniff(self._input)
        self._engine: Any = None
        self._started = False
        self._rest = b""
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; all with -1."""
        if 0 <= size <= len(self._rest) - self._at:
            self._at += size
            return self._rest[self._at - size : self._at]
        parts: list[bytes] = []
        left = size if size >= 0 else 1 << 62
        while left > 0:
            if self._at == len(self._rest):
                self._rest, self._at = self._some(max(min(left, CHUNK), 64 * 1024)), 0
                if not self._rest:
                    break
            piece = (
                self._rest[self._at : self._at + left] if self._at or left < len(self._rest) else self._rest
            )
            self._at += len(piece)
            left -= len(piece)
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fill(self, least: int) -> bytes:
        data = b""
        while len(data) < least and (chunk := self._source.read(least - len(data))):
            data += chunk
        self._taken += len(data)
        return data

    def _more(self) -> bytes:
        data, self._input = self._input, b""
        if not data:
            data = self._source.read(256 * 1024)
            self._taken += len(data)
        return data

    def _some(self, size: int) -> bytes:
        """A piece of output, b"" at the end."""
        piece = self._more() if self.compression == "plain" else self._inflate(size)
        self._given += len(piece)
        limits = self._limits
        if self._given > limits.max_bytes:
            raise CorruptData(f"data grows beyond {limits.max_bytes} bytes")
        if self._given > limits.free_bytes and self._given > self._taken * limits.ratio:
            raise CorruptData(f"data grows more than {limits.ratio}-fold when decompressed")
        return piece

    def _inflate(self, size: int) -> bytes:
        while True:
            if self._engine is None and not self._next_stream():
                return b""
            try:
                piece = self._step(size)
            except Exception as error:
                raise self._translate(error) from error
            if self._engine.eof:
                self._input = cast("bytes", self._engine.unused_data) or self._input
                self._engine = None
            if piece:
                return piece

    def _next_stream(self) -> bool:
        """Begin the next of concatenated streams; False at the end. Zero padding may follow the last one."""
        data = self._more()
        if self._started:
            while data and not data.strip(b"\0"):
                data = self._more()
        if not data:
            return False
        if self._started and len(data) < 6:
            data += self._fill(6 - len(data))
        if self._started and sniff(data) != self.compression:
            raise CorruptData(f"unexpected data after the end of a {self.compression} stream")
        self._input, self._started = data, True
        self._engine = _engines(self.compression)
        return True

    def _step(self, size: int) -> bytes:
        engine = self._engine
        data = b"" if not engine.needs_input else self._more()
        if engine.needs_input and not data:
            raise CorruptData(f"the {self.compression} data is truncated")
        return cast("bytes", engine.decompress(data, size))

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, (OSError, PybuildError, MemoryError)) and not _is_codec_error(error):
            return error
        return CorruptData(f"cannot decompress {self.compression} data: {error}")


def _is_codec_error(error: Exception) -> bool:
    """bz2 reports bad data as a plain OSError without a number."""
    return isinstance(error, OSError) and error.errno is None


class _Zlib:
    """zlib's decompress object in the shape of bz2's and lzma's."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._tail = b""

    def decompress(self, data: bytes, size: int) -> bytes:
        piece = cast("bytes", self._inner.decompress(self._tail + data if self._tail else data, size))
        self._tail = self._inner.unconsumed_tail
        self._hungry = len(piece) < size
        return piece

    _hungry = True

    @property
    def needs_input(self) -> bool:
        return self._hungry and not self._tail

    @property
    def eof(self) -> bool:
        return cast("bool", self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return cast("bytes", self._inner.unused_data)


class _Zstd:
    """zstandard's decompressor in the same shape, one frame at a time.

    One call of it may give a block of 128 KiB for every few bytes of input, so it is fed small slices.
    """

    def __init__(self) -> None:
        import zstandard

        self._inner = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self._pending = b""
        self._position = 0

    def decompress(self, data: bytes, size: int) -> bytes:
        if data:
            self._pending, self._position = data, 0
        pieces: list[bytes] = []
        inner, pending, position = self._inner, self._pending, self._position
        while size > 0 and position < len(pending) and not inner.eof:
            piece = inner.decompress(pending[position : position + _ZSTD_SLICE])
            position += _ZSTD_SLICE
            size -= len(piece)
            pieces.append(piece)
        self._position = min(position, len(pending))
        return b"".join(pieces)

    @property
    def needs_input(self) -> bool:
        return self._position >= len(self._pending)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data + self._pending[self._position :]


def _engines(compression: str) -> Any:
    """A fresh decompressor: ``decompress(data, size)``, ``needs_input``, ``eof``, ``unused_data``."""
    if compression == "gzip":
        isal = _isal()
        return _Zlib((isal or zlib).decompressobj(_GZIP_FORMAT))
    if compression == "zstd":
        return _Zstd()
    if compression == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
