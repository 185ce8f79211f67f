"""Protobuf written by hand, field by field, so that tests do not trust the encoder that they test."""

from __future__ import annotations

import hashlib


def varint(value: int) -> bytes:
    """Base 128, least significant group first; a negative number as its 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def num(field: int, value: int) -> bytes:
    """A number or a boolean."""
    return varint(field << 3) + varint(value)


def msg(field: int, *parts: bytes) -> bytes:
    """A message, or bytes."""
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def text(field: int, value: str) -> bytes:
    """A text."""
    return msg(field, value.encode())


def digest(op: bytes) -> str:
    """How an op is named."""
    return "sha256:" + hashlib.sha256(op).hexdigest()


def edge(op: bytes, index: int = 0) -> bytes:
    """An input of an op: another op's result."""
    return msg(1, text(1, digest(op)), num(2, index) if index else b"")


def definition(*ops: bytes, head: int = 0, rest: bytes = b"") -> bytes:
    """A definition whose result is output ``head`` of the last of ``ops``."""
    return b"".join(msg(1, op) for op in (*ops, edge(ops[-1], head))) + rest


def metadata(op: bytes, *parts: bytes) -> bytes:
    """What a definition says of an op."""
    return msg(2, text(1, digest(op)), msg(2, *parts))


AMD64 = msg(10, text(1, "amd64"), text(2, "linux"))
NONE = num(1, -1)


def source(identifier: str, attrs: dict[str, str] | None = None, platform: bytes = b"") -> bytes:
    """A source op."""
    pairs = (msg(2, text(1, key), text(2, value)) for key, value in sorted((attrs or {}).items()))
    return msg(3, text(1, identifier), *pairs) + platform


def mount(dest: str, *, given: int = -1, output: int = -1, rest: bytes = b"", selector: str = "") -> bytes:
    """A mount of an exec op."""
    parts = [num(1, given) if given else b"", text(2, selector) if selector else b"", text(3, dest)]
    return msg(2, *parts, num(4, output) if output else b"", rest)


def meta(*args: str, rest: bytes = b"", cwd: str = "/") -> bytes:
    """The command of an exec op; ``rest`` are fields after ``cwd``."""
    return msg(1, *(text(1, arg) for arg in args), text(3, cwd), rest)


def action(body: bytes, *, given: int = -1, second: int = -1, output: int = 0) -> bytes:
    """A file action."""
    numbers = (num(field, value) if value else b"" for field, value in ((1, given), (2, second), (3, output)))
    return msg(2, *numbers, body)


def mkfile(path: str, data: str, **more: int) -> bytes:
    """A file action that makes a file, mode 0644."""
    return action(msg(5, text(1, path), num(2, 0o644), msg(3, data.encode()), num(5, -1)), **more)


def file_op(*actions: bytes, inputs: bytes = b"") -> bytes:
    """A file op."""
    return inputs + msg(4, *actions)
