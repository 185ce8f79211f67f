"""What is remembered about a directory between builds, so that unchanged files are not read again (CTX-13).

Two kinds of small documents in the state directory:

- ``ctxindex``, one per context directory: per file its stat and the digest computed from its content;
- ``ctxblock``, one per context directory, ignore rules and selection: the hash of the *stat block* of
  everything selected, and the value (a selection digest, say) computed from it. While the block's hash is
  the same the value holds, and nothing per file is loaded or compared.

A stat proves that content is unchanged only if a later write would have changed it. A file that was written
less than ``RACY_NS`` before it was looked at could be written again within the same clock tick, so its record
is not kept (git calls such entries racily clean). ctime is part of every record: it moves on each change of
content, mode, owner or extended attribute, and programs cannot set it.

Layout of a ``ctxindex`` document: magic, number of records (8 bytes), length of the names (8 bytes), names
joined by NUL, six signed 64-bit numbers per record, 32 digest bytes per record; all numbers little-endian.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterable, Mapping
from typing import Protocol

MAGIC = b"pybuild-ctxindex-1\n"
DIGEST_SIZE = 32
FIELDS = 6
RACY_NS = 20_000_000


class Documents(Protocol):
    """The memo table of the state directory (``Store.doc`` and ``Store.put_doc``)."""

    def doc(self, kind: str, key: str) -> bytes | None:
        """The document of that kind and key."""

    def put_doc(self, kind: str, key: str, data: bytes) -> None:
        """Keep a document; an older one of the same key is replaced."""


Stamp = tuple[int, int, int, int, int, int]


def stamp(st: os.stat_result) -> Stamp:
    """What must be equal for a file to count as unchanged."""
    return st.st_dev, st.st_ino, st.st_mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns


def is_racy(st: os.stat_result, looked_ns: int) -> bool:
    """Could a write after ``looked_ns`` have left this stat as it is?"""
    oldest = looked_ns - RACY_NS
    return st.st_ctime_ns >= oldest or oldest <= st.st_mtime_ns <= looked_ns + RACY_NS


def pack_numbers(numbers: list[int]) -> bytes:
    """Numbers as bytes; those beyond 64 bits (some file systems' inodes) in a longer, still unique form."""
    try:
        packed = array("q", numbers)
    except OverflowError:
        return repr(numbers).encode()
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


class FileIndex:
    """Digests by path, each valid for one stat. Not thread-safe; its owner locks."""

    def __init__(self, data: bytes | None = None) -> None:
        self._positions: dict[str, int] = {}
        self._stamps = array("q")
        self._digests = b""
        self._new: dict[str, tuple[Stamp, bytes]] = {}
        self._dropped = False
        if data:
            self._load(data)

    def _load(self, data: bytes) -> None:
        head = len(MAGIC) + 16
        if not data.startswith(MAGIC) or len(data) < head:
            return
        count = int.from_bytes(data[head - 16 : head - 8], "little")
        length = int.from_bytes(data[head - 8 : head], "little")
        stamps_at = head + length
        digests_at = stamps_at + count * FIELDS * 8
        if len(data) != digests_at + count * DIGEST_SIZE:
            return
        names = data[head:stamps_at].decode("utf-8", "surrogateescape").split("\0") if count else []
        if len(names) != count:
            return
        self._stamps.frombytes(data[stamps_at:digests_at])
        if sys.byteorder == "big":
            self._stamps.byteswap()
        self._digests = data[digests_at:]
        self._positions = dict(zip(names, range(count), strict=True))

    def get(self, path: str, st: os.stat_result) -> bytes | None:
        """The digest of ``path`` if its record has this very stat."""
        fresh = self._new.get(path)
        if fresh is not None:
            return fresh[1] if fresh[0] == stamp(st) else None
        position = self._positions.get(path)
        if position is None:
            return None
        at = position * FIELDS
        if tuple(self._stamps[at : at + FIELDS]) != stamp(st):
            return None
        return self._digests[position * DIGEST_SIZE : (position + 1) * DIGEST_SIZE]

    def put(self, path: str, st: os.stat_result, digest: bytes) -> None:
        """Remember a digest for this stat."""
        if len(digest) == DIGEST_SIZE:
            self._new[path] = (stamp(st), digest)

    def drop(self, gone: Iterable[str]) -> None:
        """Forget paths."""
        for path in gone:
            self._dropped = True
            self._positions.pop(path, None)
            self._new.pop(path, None)

    @property
    def dirty(self) -> bool:
        """Is there anything to write?"""
        return bool(self._new) or self._dropped

    def known(self) -> tuple[str, ...]:
        """Every path with a record."""
        return tuple(self._positions.keys() | self._new.keys())

    def dump(self) -> bytes:
        """The document; raises nothing: a record that does not fit is left out."""
        records: dict[str, tuple[Stamp, bytes]] = {}
        for path, position in self._positions.items():
            at = position * FIELDS
            digest = self._digests[position * DIGEST_SIZE : (position + 1) * DIGEST_SIZE]
            a, b, c, d, e, f = self._stamps[at : at + FIELDS]
            records[path] = ((a, b, c, d, e, f), digest)
        records.update(self._new)
        return dump_records(records)


def dump_records(records: Mapping[str, tuple[Stamp, bytes]]) -> bytes:
    """Records as a ``ctxindex`` document."""
    limit = 1 << 63
    kept = {
        path: record
        for path, record in records.items()
        if "\0" not in path and all(-limit <= number < limit for number in record[0])
    }
    names = "\0".join(kept).encode("utf-8", "surrogateescape")
    numbers: list[int] = []
    for one, _ in kept.values():
        numbers.extend(one)
    digests = b"".join(digest for _, digest in kept.values())
    head = MAGIC + len(kept).to_bytes(8, "little") + len(names).to_bytes(8, "little")
    return head + names + pack_numbers(numbers) + digests
