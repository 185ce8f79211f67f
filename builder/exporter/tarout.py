"""Archives with fixed order and times: a writer for plain files and directories (EXO-03)."""

from __future__ import annotations

import os
from typing import BinaryIO, Protocol

from builder.cache.layer import END, encode, entry_header, pad
from builder.cancelling import check

_COPY_CHUNK = 1 << 20
_SPLICE_CHUNK = 64 << 20


class Out(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object: ...


class TarOut:
    """Writes a tar of directories and regular files owned by root, dated 1970-01-01."""

    def __init__(self, out: Out) -> None:
        self._out = out

    def directory(self, name: str, mode: int = 0o755) -> None:
        """An entry for a directory."""
        self._header(name.rstrip("/") + "/", b"5", mode, 0)

    def data(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """A file from memory."""
        self._header(name, b"0", mode, len(data))
        self._write(data)
        self._pad(len(data))

    def file(self, name: str, source: BinaryIO, size: int, mode: int = 0o644) -> None:
        """A file of exactly ``size`` bytes from ``source``; OSError when it is shorter."""
        self._header(name, b"0", mode, size)
        left = size - self._spliced(source, size)
        while left:
            check()
            chunk = source.read(min(_COPY_CHUNK, left))
            if not chunk:
                raise OSError(f"{name} is {left} bytes shorter than announced")
            self._write(chunk)
            left -= len(chunk)
        self._pad(size)

    def close(self) -> None:
        """The end of the archive."""
        self._write(END)

    def _header(self, name: str, kind: bytes, mode: int, size: int) -> None:
        self._write(entry_header(encode(name), kind, mode=mode, uid=0, gid=0, size=size))

    def _write(self, data: bytes) -> None:
        self._out.write(data)

    def _pad(self, size: int) -> None:
        self._write(pad(size))

    def _spliced(self, source: BinaryIO, size: int) -> int:
        """Let the kernel copy (or share blocks) when both ends are real files; how much it did."""
        try:
            target, origin = self._out.fileno(), source.fileno()  # type: ignore[attr-defined]
            self._out.flush()  # type: ignore[attr-defined]
        except (AttributeError, OSError, ValueError):
            return 0
        done = 0
        try:
            while done < size:
                check()
                count = os.copy_file_range(origin, target, min(size - done, _SPLICE_CHUNK))
                if count == 0:
                    break
                done += count
        except OSError:
            pass  # different file systems, a pipe, an old kernel: go on by reading
        return done
