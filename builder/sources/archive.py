"""Archives as contexts: found by their content, unpacked without trust (BLD-15, CTX-04, CVE-2020-10696)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from builder.errors import PybuildError, SourceUnavailable
from builder.sources.steps import Step
from builder.sources.transfer import Transfer

_BLOCK = 512
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


class Peeked:
    """A stream whose first bytes were looked at and can still be read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._head = b""
        self.on_read: Callable[[int], None] | None = None
        """Told of all bytes that ``read`` gives."""

    def peek(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; reading gives them again."""
        while len(self._head) < size and (more := self._stream.read(size - len(self._head))):
            self._head += more
        return self._head[:size]

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; all that is left with -1."""
        parts = [self._head if size < 0 else self._head[:size]]
        self._head = self._head[len(parts[0]) :]
        left = size - len(parts[0])
        while (size < 0 or left > 0) and (more := self._stream.read(left if size >= 0 else 1 << 20)):
            parts.append(more)
            left -= len(more)
        data = b"".join(parts)
        if self.on_read is not None:
            self.on_read(len(data))
        return data


def is_archive(head: bytes) -> bool:
    """Do these first bytes belong to a tar archive, plain or compressed?

    Compressed data counts without a look inside: a Dockerfile never begins like that.
    """
    return head.startswith(_COMPRESSED) or is_tar_header(head[:_BLOCK])


def is_tar_header(block: bytes) -> bool:
    """Is this a tar header, by its checksum? Two empty blocks are an archive too, of nothing."""
    if len(block) < _BLOCK:
        return False
    if not any(block):
        return True
    text = block[148:156].strip(b" \0")
    if not text or not all(48 <= char <= 55 for char in text):
        return False
    return int(text, 8) == sum(block[:148]) + sum(block[156:]) + 8 * 32


def unpack(stream: Peeked, root: Path, step: Step) -> None:
    """Unpack an archive into the directory ``root``; raises SourceUnavailable.

    Nothing is written outside of ``root``: names that climb out, links in the way and the like are refused or
    stay inside. Owners are not kept (a context's files belong to 0:0), devices that may not be made are
    left out.
    """
    from builder.cache.extract import apply
    from builder.cache.treewriter import Writer

    root.mkdir(exist_ok=True)
    transfer = Transfer("context", step)
    stream.on_read = transfer.add
    writer = Writer(root)
    try:
        apply(stream, writer, whiteouts=False, owner=(os.geteuid(), os.getegid()), skip_devices=True)
    except PybuildError as error:
        raise SourceUnavailable(
            f"cannot unpack the build context: {error.message}",
            context=error.context,
            hint=error.hint,
            code="bad-archive",
        ) from error
    finally:
        writer.close()
    transfer.done()


def newest_member_s(path: Path) -> int | None:
    """When the youngest regular file of an archive was changed, in Unix seconds.

    None when the file is no archive, cannot be read as one, or holds no regular file (EPO-02).
    """
    from builder.cache.compression import Decompressor
    from builder.cache.tarread import TarReader

    newest: int | None = None
    try:
        with path.open("rb") as file:
            if not is_archive(file.read(_BLOCK)):
                return None
            file.seek(0)
            for entry in TarReader(Decompressor(file)):
                if entry.kind == "file":
                    newest = max(newest or 0, entry.mtime_ns // 1_000_000_000)
    except (OSError, PybuildError):
        return None
    return newest
