"""A build context in a directory: its tree, and what is remembered of it between builds (SLO-01…06, CTX-13).

The directory is read in place; nothing is transferred. What the build may see is decided in
``contexttree``; here digests are kept, so that a rebuild reads no unchanged file, and a rebuild in which
nothing changed does not even compare files one by one (``index`` says when a stat may be trusted).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from builder.cache.names import KEY_VERSION
from builder.cache.tree import join
from builder.errors import PathNotFound
from builder.sources.contexttree import ContextTree, Ignore
from builder.sources.index import Documents, FileIndex, is_racy, pack_numbers, stamp

__all__ = ["Ignore", "LocalContext"]

MAX_HOPS = 255
_YOUNG_NS = 1_000_000_000


class LocalContext(ContextTree):
    """A directory as a build context, with a memory.

    ``documents`` is where digests are kept between builds (a ``Store`` fits); without it they live as long
    as this object. ``ignore_key`` names the ignore rules (their text's digest): what was computed from a
    selection holds only under the same rules.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str = "context",
        ignore: Ignore | None = None,
        ignore_key: str = "",
        ignore_file: tuple[str, bytes] = ("", b""),
        documents: Documents | None = None,
    ) -> None:
        super().__init__(root, name=name, ignore=ignore)
        self.ignore_file = ignore_file
        self._ignore_key = ignore_key
        self._documents = documents
        self._index: FileIndex | None = None

    def close(self) -> None:
        """Write what was learnt and release the directory."""
        self.remember()
        super().close()

    def __enter__(self) -> LocalContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def file_digest(self, path: str) -> bytes | None:
        """The digest that ``put_file_digest`` was given for this path, if the file is unchanged since."""
        with self._lock:
            st = self._stat(path)
            return None if st is None else self._file_index().get(path, st)

    def put_file_digest(self, path: str, digest: bytes) -> None:
        """Remember the 32-byte digest of a file that was just read.

        Nothing is kept if the file is not what it was when the tree was looked at, or may still change
        unseen.
        """
        with self._lock:
            st = self._stat(path)
            if st is None or is_racy(st, self._looked_ns(path)):
                return
            now = self._fresh(path)
            if now is not None and stamp(now) == stamp(st):
                self._file_index().put(path, st, digest)

    def remembered(
        self, selector: str, prefixes: Sequence[str], compute: Callable[[], bytes], *, wildcard: bool = False
    ) -> bytes:
        """``compute()``, or its value from an earlier build if nothing below ``prefixes`` changed since.

        ``compute`` must be a function of ``selector`` and of the trees that the prefixes lead to (links in
        the prefixes are followed). With ``wildcard``, ``compute`` may also follow links that it finds below
        them: if there are any, the whole context has to be unchanged.
        """
        key = self._key(self._ignore_key, selector)
        block, racy = self._block(tuple(prefixes), wildcard=wildcard)
        known = self._documents.doc("ctxblock", key) if self._documents else None
        if known is not None and known[:32] == block:
            return known[32:]
        value = compute()
        if self._documents is not None and not racy and not self.changed():
            self._documents.put_doc("ctxblock", key, block + value)
        return value

    def unchanged(self, selector: str, prefixes: Sequence[str], *, wildcard: bool = False) -> bytes | None:
        """What ``remembered`` would give without computing anything; None when it would have to."""
        known = None
        if self._documents is not None:
            known = self._documents.doc("ctxblock", self._key(self._ignore_key, selector))
        if known is None or known[:32] != self._block(tuple(prefixes), wildcard=wildcard)[0]:
            return None
        return known[32:]

    def remember(self) -> None:
        """Write the file digests of this build to the state directory."""
        with self._lock:
            if self._documents is None or self._index is None:
                return
            gone = []
            for path in self._index.known():
                parent, _, name = path.rpartition("/")
                if parent in self._dirs and name not in self._dirs[parent]:
                    gone.append(path)
            self._index.drop(gone)
            if self._index.dirty:
                self._documents.put_doc("ctxindex", self._key(), self._index.dump())
                self._index = None

    def _key(self, *more: str) -> str:
        root = self._root_stat
        root_path = os.fspath(self.root.absolute())
        parts = [str(KEY_VERSION), root_path, str(root.st_dev), str(root.st_ino), *more]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def _file_index(self) -> FileIndex:
        if self._index is None:
            data = self._documents.doc("ctxindex", self._key()) if self._documents else None
            self._index = FileIndex(data)
        return self._index

    # --- the stat block ---------------------------------------------------------------------------------

    def _block(self, prefixes: tuple[str, ...], *, wildcard: bool) -> tuple[bytes, bool]:
        """The hash of the stats of all that the prefixes lead to, and whether any of them is too young."""
        links: set[str] = set()
        tops = sorted({self._follow(prefix, links) for prefix in prefixes})
        if "" in tops:
            tops = [""]
        digest = hashlib.sha256("\0".join([*prefixes, "", *tops]).encode("utf-8", "surrogateescape"))
        racy = has_links = False
        for link in sorted(links):
            st = self._stat(link)
            if st is not None:
                digest.update(os.fsencode(link) + pack_numbers([*stamp(st)]))
                racy = racy or is_racy(st, self._looked_ns(link))
        for top in tops:
            racy_below, links_below = self._block_of(top, digest.update)
            racy, has_links = racy or racy_below, has_links or links_below
        if wildcard and has_links and tops != [""]:
            return self._block(("", *prefixes), wildcard=False)
        return digest.digest(), racy

    def _follow(self, path: str, links: set[str]) -> str:
        """``resolve`` that also collects the links it came through."""
        for _ in range(MAX_HOPS):
            parts = path.split("/")
            for count in range(1, len(parts) + 1):
                here = self.resolve("/".join(parts[:count]), follow_final=False)
                st = self._stat(here)
                if st is not None and stat.S_ISLNK(st.st_mode):
                    links.add(here)
                    base = "" if (target := self.readlink(here)).startswith("/") else here.rpartition("/")[0]
                    path = "/".join([base, target, *parts[count:]])
                    break
            else:
                return self.resolve(path)
        raise PathNotFound(f'"/{path.lstrip("/")}": too many links', path=path)

    def _block_of(self, top: str, update: Callable[[bytes], object]) -> tuple[bool, bool]:
        """Hash one path and all below it: (is any of it too young, does it hold links)."""
        racy = has_links = False
        if top:
            st = self._stat(top)
            if st is None:
                update(b"missing")
                return False, False
            update(pack_numbers([*stamp(st)]))
            racy = is_racy(st, self._looked_ns(top))
            if not stat.S_ISDIR(st.st_mode):
                return racy, False
        self._scan_below(top)
        names: list[str] = []
        numbers: list[int] = []
        todo = [top]
        while todo:
            path = todo.pop()
            entries = self._dirs[path]
            names.append(f"{path}/{len(entries)}")
            names.extend(entries)
            looked = self._looked[path]
            young = looked - _YOUNG_NS
            for name, st in entries.items():
                mode, modified_ns, changed_ns = st.st_mode, st.st_mtime_ns, st.st_ctime_ns
                numbers += (st.st_dev, st.st_ino, mode, st.st_size, modified_ns, changed_ns)
                kind = mode & 0o170000
                if kind == stat.S_IFDIR:
                    todo.append(join(path, name))
                elif kind == stat.S_IFLNK:
                    has_links = True
                if modified_ns > young or changed_ns > young:
                    racy = racy or is_racy(st, looked)
        update("\0".join(names).encode("utf-8", "surrogateescape"))
        update(pack_numbers(numbers))
        return racy, has_links
