"""What a monitor and its clients say to each other, over a unix stream socket.

Every frame is one type byte, a 32-bit big-endian length, and that many bytes. A client opens a connection,
sends one request and, for ``ATTACH`` and ``EXEC``, goes on with a stream in both directions::

    client                                    monitor
    PLAN    marshalled plan        ──────►    (before START and EXEC: what the new process does)
    START   {directory, options}   ──────►    (first connection only: the socket pair made by the starter)
                                   ◄──────    NETWORK {pid, fd}   only when the starter has to make links
    NETWORK {state}                ──────►
    ATTACH  {stdin,stdout,stderr}  ──────►
    EXEC    {tty, stdin, ...}      ──────►
    SIGNAL n  STOP {}  PAUSE  UNPAUSE  WAIT
                                   ◄──────    OK {..} or FAIL {message, code, exit_status}
    STDIN bytes ... STDIN_END      ──────►
    RESIZE rows columns            ──────►
                                   ◄──────    STDOUT bytes, STDERR bytes
                                   ◄──────    EXIT {code}
    REMOVED                        ──────►    the starter has removed an auto-remove container itself

``SIGNAL`` and ``RESIZE`` may also be sent on an attached connection; they then mean that process and get no
answer. Payloads in braces are dictionaries of plain values in
``marshal`` form, version 2, which every interpreter reads. Unknown frames are answered by ``FAIL``.
"""

from __future__ import annotations

import marshal
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

START = b"g"
PLAN = b"l"
NETWORK = b"n"
ATTACH = b"a"
EXEC = b"x"
SIGNAL = b"s"
RESIZE = b"r"
STOP = b"q"
PAUSE = b"p"
UNPAUSE = b"u"
WAIT = b"w"
STDIN = b"i"
STDIN_END = b"e"
REMOVED = b"d"

OK = b"K"
FAIL = b"F"
STDOUT = b"O"
STDERR = b"E"
EXIT = b"X"

HEADER_SIZE = 5
MAX_FRAME = 4 << 20
CHUNK = 64 << 10

_MARSHAL = 2
_header = struct.Struct(">cI").pack
_read_header = struct.Struct(">cI").unpack_from
SIZE = struct.Struct(">HH")
NUMBER = struct.Struct(">I")


class BrokenFrame(Exception):
    """The peer sent something that is no frame; the connection is of no further use."""


def pack(value: Any) -> bytes:
    """The payload of a frame from plain values."""
    return marshal.dumps(value, _MARSHAL)


def unpack(payload: bytes) -> Any:
    """Plain values from a payload; ValueError, EOFError or TypeError when it holds none.

    Only ever from a socket that none but our own user can reach.
    """
    return marshal.loads(payload)  # noqa: S302


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return _header(kind, len(payload)) + payload


class FrameReader:
    """Turns what a socket delivers into frames; holds at most one unfinished frame."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The frames that are complete with ``data``; raises BrokenFrame on an oversized one."""
        buffer = self._buffer
        buffer += data
        frames: list[tuple[bytes, bytes]] = []
        at = 0
        while len(buffer) - at >= HEADER_SIZE:
            kind, length = _read_header(buffer, at)
            if length > MAX_FRAME:
                raise BrokenFrame(f"frame of {length} bytes")
            end = at + HEADER_SIZE + length
            if end > len(buffer):
                break
            frames.append((kind, bytes(buffer[at + HEADER_SIZE : end])))
            at = end
        del buffer[:at]
        return frames
