"""An image archive read once, from any stream: large members become blobs, small ones stay in memory.

Members are named by the archive and by nothing else: nothing is extracted, links are followed by name inside
the archive only (GHSA-rgh6-rfwx-v388), and a member below ``blobs/`` must have the digest that its name says.
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass

from builder.cache.compression import Decompressor, Readable
from builder.cache.store import Store
from builder.cache.tarread import Entry, TarReader
from builder.errors import BlobMissing, DigestMismatch, InvalidValue
from builder.oci.digest import Digest

SMALL_BYTES = 256 * 1024
MAX_SMALL_TOTAL = 256 * 1024 * 1024
MAX_MEMBERS = 100_000
_MAX_LINKS = 32


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of the archive; ``data`` is None when it went into the store."""

    digest: Digest
    size: int
    data: bytes | None = None


class StagedArchive:
    """The members of one archive."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store
        self._members: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        self._by_digest: dict[Digest, Member] = {}
        self._small = 0

    @classmethod
    def read(cls, store: Store, stream: Readable, name: str = "the archive") -> StagedArchive:
        """Read a tar, compressed or not, to its end. The caller holds what is published meanwhile.

        Raises BadArchive, CorruptData, DigestMismatch, InvalidValue, StoreFull.
        """
        staged = cls(store, name)
        tar = TarReader(Decompressor(stream))
        for entry in tar:
            staged._add(tar, entry)
        return staged

    def names(self) -> tuple[str, ...]:
        """All members that are files or links to files."""
        return (*self._members, *self._links)

    def member(self, name: str) -> Member | None:
        """A file by its path in the archive, links followed."""
        path = clean_name(name)
        for _ in range(_MAX_LINKS):
            found = self._members.get(path)
            if found is not None:
                return found
            target = self._links.get(path)
            if target is None:
                return None
            path = target
        return None

    def document(self, name: str, limit: int) -> bytes | None:
        """A small file's bytes; None when there is none. Raises InvalidValue when it is larger than
        ``limit``."""
        found = self.member(name)
        if found is None:
            return None
        if found.size > limit:
            raise InvalidValue(f"{self.name}: {name} of {found.size} bytes is too large")
        return self.bytes_of(found)

    def bytes_of(self, member: Member) -> bytes:
        """A member's bytes; only for documents."""
        return member.data if member.data is not None else self._store.blobs.read(member.digest, member.size)

    def by_digest(self, digest: Digest) -> Member | None:
        """A member by its content."""
        return self._by_digest.get(digest)

    def publish(self, digest: Digest) -> None:
        """Make sure that the blob is in the store. Raises BlobMissing when neither side has it."""
        if self._store.blobs.has(digest):
            return
        found = self._by_digest.get(digest)
        if found is None or found.data is None:
            raise BlobMissing(f"{self.name} is incomplete: blob {digest} is not in it")
        with self._store.blobs.writer(expected=digest, size=found.size) as writer:
            writer.write(found.data)
            writer.commit()

    def _add(self, tar: TarReader, entry: Entry) -> None:
        name = clean_name(entry.name)
        if len(self._members) + len(self._links) >= MAX_MEMBERS:
            raise InvalidValue(f"{self.name} has too many members")
        if not name:
            return
        if entry.kind == "file":
            if entry.sparse is not None:
                raise InvalidValue(
                    f"{self.name}: {name} is a sparse file", hint="make the archive without sparse files"
                )
            self._members[name] = member = self._stored(tar, entry, _promised(name))
            self._by_digest[member.digest] = member
        elif entry.kind == "link":
            self._links[name] = clean_name(entry.link)
        elif entry.kind == "symlink":
            self._links[name] = _target(name, entry.link)

    def _stored(self, tar: TarReader, entry: Entry, promised: Digest | None) -> Member:
        if entry.size <= SMALL_BYTES and self._small + entry.size <= MAX_SMALL_TOTAL:
            data = tar.small_data()
            self._small += len(data)
            algorithm = promised.algorithm if promised is not None else "sha256"
            digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
            if promised is not None and digest != promised:
                raise DigestMismatch(f"{self.name}: {entry.name} has digest {digest}")
            return Member(digest, len(data), data)
        with self._store.blobs.writer(expected=promised, size=entry.size) as writer:
            for chunk in tar.data():
                writer.write(chunk)
            digest, size = writer.commit()
        return Member(digest, size)


def clean_name(name: str) -> str:
    """A member's path without ``./`` and doubled slashes; "" when it leaves the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "" if ".." in parts else "/".join(parts)


def _target(name: str, link: str) -> str:
    """Where a symbolic link points inside the archive; "" when outside."""
    if link.startswith("/"):
        return ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
    return "" if path.startswith("..") else clean_name(path)


def _promised(name: str) -> Digest | None:
    """The digest that a path below ``blobs/`` promises."""
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return None
    try:
        return Digest(parts[1], parts[2])
    except InvalidValue:
        return None
