"""The wire form of protocol buffers, for the few messages that are written on the path of a build.

Fields of proto3: zero values and empty texts are left out. Reading keeps to the bounds of what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator

_SECOND = 1_000_000_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1


class WireError(ValueError):
    """Bytes that are no message."""


def varint(value: int) -> bytes:
    """A whole number; negative ones as 64-bit two's complement."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A varint field; empty for 0."""
    return varint(field << 3) + varint(value) if value else b""


def text(field: int, value: str) -> bytes:
    """A string field; what is no UTF-8 becomes U+FFFD; empty for an empty text."""
    return data(field, _utf8(value)) if value else b""


def data(field: int, value: bytes) -> bytes:
    """A field of bytes or of a nested message, also when it is empty."""
    return varint(field << 3 | _BYTES) + varint(len(value)) + value


def timestamp(field: int, ns: int | None) -> bytes:
    """A google.protobuf.Timestamp field of a Unix time; empty for None."""
    if ns is None:
        return b""
    seconds, nanos = divmod(ns, _SECOND)
    return data(field, number(1, seconds) + number(2, nanos))


def pairs(field: int, values: dict[str, str]) -> bytes:
    """A ``map<string, string>`` field, keys in order."""
    return b"".join(data(field, text(1, key) + text(2, values[key])) for key in sorted(values))


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and value of every field: int for varints and fixed ones, bytes for the rest.

    Raises WireError on what is cut off or malformed.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint_at(message, at)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint_at(message, at)
            yield field, value
            continue
        if kind == _BYTES:
            size, at = _varint_at(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise WireError(f"unknown wire type {kind}")
        if size > end - at:
            raise WireError("a field goes beyond its message")
        piece = message[at : at + size]
        at += size
        yield field, piece if kind == _BYTES else int.from_bytes(piece, "little")


def signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    return value - (1 << 64) if value >> 63 else value


def time_of(message: bytes) -> int:
    """The Unix time in nanoseconds that a Timestamp holds."""
    found = dict(fields(message))
    return signed(_int(found.get(1))) * _SECOND + _int(found.get(2))


def _int(value: int | bytes | None) -> int:
    if isinstance(value, bytes):
        raise WireError("a number is expected")
    return value or 0


def _varint_at(message: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise WireError("a number is cut off or too long")
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _MASK, at
        shift += 7


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()
