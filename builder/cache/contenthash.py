"""Content digests: what is selected from a tree, without times, inodes or places (rows CHK-01…CHK-10).

A file's digest covers mode, owner, size, type, link text, device, extended attributes and content; a
directory's covers its own mode and owner and the names and digests of what is in it. What a copy would not
use does not count: a directory whose content is copied counts without its own mode and owner (CHK-05).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builder.cache.selection import (
    Found,
    Source,
    below,
    check_required,
    excludes_source,
    find_sources,
)
from builder.cache.tree import SourceTree, clean, read_xattrs
from builder.cancelling import check as check_cancelled
from builder.llb.ops import Copy

_CHUNK = 1024 * 1024
_TYPES = {
    stat.S_IFREG: "0",
    stat.S_IFSOCK: "0",
    stat.S_IFLNK: "2",
    stat.S_IFCHR: "3",
    stat.S_IFBLK: "4",
    stat.S_IFDIR: "5",
    stat.S_IFIFO: "6",
}
_EMPTY = hashlib.sha256().digest()
_INSIDE = b"inside\0"


@dataclass(frozen=True, slots=True)
class Selection:
    """The digest of a selection, and (path, hex digest) of its entries, directories by their header.

    ``key`` is what a cache key takes. It is the digest, unless that is the one of a file inside a directory:
    the file itself has the same, and a copy of it makes another tree.
    """

    digest: str
    entries: tuple[tuple[str, str], ...]
    key: str


class ContentHasher:
    """Hashes selections of one tree.

    File digests are taken from ``lookup`` and given to ``keep`` (path, 32 bytes); a tree that has
    ``file_digest`` and ``put_file_digest`` methods, as local contexts do, is asked itself. Whoever keeps
    digests answers only for files that have not changed since (CHK-10). ``on_read`` is told how many bytes
    were read, as they are. Raises Cancelled when the build of this thread is.
    """

    def __init__(
        self,
        tree: SourceTree,
        *,
        lookup: Callable[[str], bytes | None] | None = None,
        keep: Callable[[str, bytes], Any] | None = None,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        self._tree = tree
        self._owner = tree.owner
        self._lookup = lookup or getattr(tree, "file_digest", None)
        self._keep = keep or getattr(tree, "put_file_digest", None)
        self._on_read = on_read
        self._entries: list[tuple[str, str]] = []

    def select(self, copies: Sequence[Copy]) -> Selection:
        """The digest of what copy actions read. PathNotFound for what must be there and is not."""
        self._entries = []
        found = [self._copy(copy) for copy in copies]
        digest, key = (_joined([pair[place] for pair in found]) for place in (0, 1))
        return Selection(f"sha256:{digest.hex()}", tuple(self._entries), f"sha256:{key.hex()}")

    def tree(self) -> str:
        """The digest of the whole tree, the root's own mode and owner included."""
        st = self._tree.lstat("")
        assert st is not None, "a tree has a root"
        return f"sha256:{self._directory('', st, own=True).hex()}"

    def file(self, path: str) -> str:
        """The digest of one entry: a file with its content, a directory by its header alone."""
        st = self._tree.lstat(path)
        if st is None:
            raise FileNotFoundError(path)
        return f"sha256:{self._entry(path, st).hex()}"

    # --- selections

    def _copy(self, copy: Copy) -> tuple[bytes, bytes]:
        """The digest of one copy and its part of the key: a path by its own digest; what wildcards and
        patterns select as a list (CHK-06).
        """
        sources = find_sources(
            self._tree, copy.src, wildcards=copy.allow_wildcard, follow=copy.follow_symlink
        )
        filtered = bool(copy.include_patterns or copy.exclude_patterns)
        if not filtered and len(sources) == 1 and not sources[0].matched:
            digest = self._source(sources[0], copy)
            return digest, digest
        listed: list[bytes] = []
        alone, inside = b"", False
        pattern = clean(copy.src).rpartition("/")[2]
        for source in sources:
            if excludes_source(source, copy.exclude_patterns):
                continue
            top = _key(f"/{source.tail}") if source.matched else b""
            for relative, digest in self._listed(source, copy, filtered=filtered):
                listed.append((top + relative or b"\0") + _text(digest))
                counted = bool(relative) or not (source.is_dir and copy.dir_contents)
                alone = digest if counted and _named(source, relative, pattern) else b""
                inside = bool(relative)
        if len(listed) == 1 and alone:
            return alone, hashlib.sha256(_INSIDE + alone).digest() if inside else alone
        digest = hashlib.sha256(b"".join(listed)).digest()
        return digest, digest

    def _source(self, source: Source, copy: Copy) -> bytes:
        if source.is_dir:
            return self._directory(source.path, source.stat, own=not copy.dir_contents)
        digest = self._entry(source.path, source.stat)
        self._entries.append((source.path, digest.hex()))
        return digest

    def _listed(self, source: Source, copy: Copy, *, filtered: bool) -> Iterator[tuple[bytes, bytes]]:
        """The entries of one source as (path below it, digest).

        Of a directory whose content is copied the header does not count (CHK-05); that a wildcard found it
        does.
        """
        linked = source.matched and source.path != source.name
        if not source.is_dir or (linked and not filtered):
            yield b"", self._source(source, copy)
            return
        check_required(self._tree, source.path, copy.required_paths)
        if not copy.dir_contents:
            yield b"", self._entry(source.path, source.stat)
        elif source.matched:
            yield b"", _EMPTY
        for found in with_parents(
            below(self._tree, source.path, copy.include_patterns, copy.exclude_patterns)
        ):
            digest = self._entry(found.path, found.stat)
            self._entries.append((found.path, digest.hex()))
            yield _key(f"/{found.relative}"), digest

    # --- entries

    def _directory(self, top: str, st: os.stat_result, *, own: bool) -> bytes:
        """A directory with all below it."""
        tree, entries = self._tree, self._entries
        if not top and self._owner is not None:
            result = hashlib.sha256(b"\0" + _text(_EMPTY))  # the root of a context is never seen (CHK-04)
        else:
            result = self._started(top, st) if own else hashlib.sha256()
        stack = [(top + "/" if top else "", iter(tree.scandir(top)), result, "")]
        while True:
            prefix, children, result, name = stack[-1]
            for child, child_st in children:
                path = prefix + child
                if child_st.st_mode & 0o170000 == stat.S_IFDIR:
                    inner = self._started(path, child_st)
                    stack.append((path + "/", iter(tree.scandir(path)), inner, child))
                    break
                digest = self._entry(path, child_st)
                entries.append((path, digest.hex()))
                result.update(b"\0" + _encode(child) + _text(digest))
            else:
                stack.pop()
                if not stack:
                    return result.digest()
                stack[-1][2].update(b"\0" + _encode(name) + _text(result.digest()))

    def _started(self, path: str, st: os.stat_result) -> Any:
        """The hash of a directory, its own header taken in."""
        header = self._entry(path, st)
        self._entries.append((path, header.hex()))
        return hashlib.sha256(b"\0" + _text(header))

    def _entry(self, path: str, st: os.stat_result) -> bytes:
        """A file with its content; anything else by its header (CHK-01, CHK-03)."""
        if st.st_mode & 0o170000 == stat.S_IFREG:
            return self._file(path, st)
        if not path and self._owner is not None:
            return _EMPTY
        link, size = "", 0
        if stat.S_ISLNK(st.st_mode):
            link = self._tree.readlink(path)
        return hashlib.sha256(self._header(st, size, link) + _counted(self._tree.xattrs(path))).digest()

    def _file(self, path: str, st: os.stat_result) -> bytes:
        if self._lookup is not None:
            known = self._lookup(path)
            if known is not None:
                return known
        fd = self._tree.open(path)
        try:
            head = self._header(st, st.st_size, "") + _counted(read_xattrs(fd))
            want = min(_CHUNK, st.st_size + 1)  # most files are small: no buffer larger than the file
            data = self._read(fd, want) if st.st_size else b""
            result = hashlib.sha256(head + data if len(data) < 8192 else head)
            if len(data) >= 8192:
                result.update(data)
            while len(data) == want:
                want = _CHUNK
                data = self._read(fd, want)
                result.update(data)
        finally:
            os.close(fd)
        digest = result.digest()
        if self._keep is not None:
            self._keep(path, digest)
        return digest

    def _read(self, fd: int, size: int) -> bytes:
        check_cancelled()
        data = os.read(fd, size)
        if self._on_read is not None:
            self._on_read(len(data))
        return data

    def _header(self, st: os.stat_result, size: int, link: str) -> bytes:
        uid, gid = self._owner or (st.st_uid, st.st_gid)
        kind = stat.S_IFMT(st.st_mode)
        mode = 0o777 if kind == stat.S_IFLNK else stat.S_IMODE(st.st_mode)
        major = minor = 0
        if kind in {stat.S_IFCHR, stat.S_IFBLK}:
            major, minor = os.major(st.st_rdev), os.minor(st.st_rdev)
        text = (
            f"namemode{mode}uid{uid}gid{gid}size{size}typeflag{_TYPES[kind]}linkname{link}"
            f"unamegnamedevmajor{major}devminor{minor}"
        )
        return text.encode("utf-8", "surrogateescape")


def with_parents(entries: Iterator[Found]) -> Iterator[Found]:
    """Chosen entries, and before the first one in it every directory that was not chosen itself."""
    waiting: list[Found] = []
    for found in entries:
        while waiting and not found.relative.startswith(waiting[-1].relative + "/"):
            waiting.pop()
        if found.chosen:
            yield from waiting
            waiting.clear()
            yield found
        else:
            waiting.append(found)


def _counted(xattrs: dict[str, bytes]) -> bytes:
    """The extended attributes that count (CHK-02)."""
    if not xattrs:
        return b""
    return b"".join(
        _encode(key) + value
        for key, value in sorted(xattrs.items())
        if key == "security.capability" or not key.startswith(("security.", "system."))
    )


def _named(source: Source, relative: bytes, pattern: str) -> bool:
    """Whether an entry has the pattern's own name."""
    if relative:
        return relative.rpartition(b"\0")[2] == _encode(pattern)
    return not source.matched or source.name.rpartition("/")[2] == pattern


def _joined(digests: list[bytes]) -> bytes:
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"\0".join(map(_text, digests))).digest()


def _key(path: str) -> bytes:
    """A path as it stands in a list: sorted so, a directory comes right before what is in it."""
    return _encode(path).replace(b"/", b"\0")


def _text(digest: bytes) -> bytes:
    return b"sha256:" + digest.hex().encode()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
