"""Tar stream → tree: applies layers, unpacks archives for ADD, and unpacks tar build contexts (row LAY-09).

The stream is hostile until proven otherwise. Names are cleaned and must stay inside; parents are resolved
with links followed as if the destination were the root directory; everything is made relative to open
directories (``Writer``). Entries, sizes, names and growth are bounded. In a layer, ``.wh.NAME`` deletes what
lower layers have and ``.wh..wh..opq`` empties a directory of it; elsewhere such names are ordinary.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from builder.cache.compression import Decompressor, InflateLimits, Readable
from builder.cache.problems import at_entry
from builder.cache.readahead import ReadAhead
from builder.cache.tarfields import BadArchive
from builder.cache.tarread import Entry, TarReader
from builder.cache.tree import TreeError, join, resolve_in
from builder.cache.treewriter import Writer
from builder.cancelling import check as check_cancelled
from builder.errors import PybuildError, StoreFull
from builder.oci.digest import DiffId, Digest

_INFLATE = InflateLimits()
_SMALL = 128 * 1024
_MAX_ID = (1 << 32) - 2
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_OF_THE_MACHINE = {errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what an archive may hold; ``file_bytes`` counts holes too."""

    entries: int = 10_000_000
    total_bytes: int = 1 << 40
    file_bytes: int = 1 << 40
    path_bytes: int = 4096
    name_bytes: int = 255
    xattrs: int = 256
    inflate: InflateLimits = _INFLATE


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """What an applied stream was; ``diff_id`` and ``size`` are those of the uncompressed tar."""

    diff_id: DiffId
    size: int
    entries: int
    compression: str


_DEFAULT_LIMITS = Limits()
OwnerHook = Callable[[int, int], tuple[int, int]]


def apply(
    stream: Readable,
    writer: Writer,
    limits: Limits = _DEFAULT_LIMITS,
    *,
    dest: str = "",
    whiteouts: bool = True,
    owner: tuple[int, int] | None = None,
    map_owner: OwnerHook | None = None,
    skip_devices: bool = False,
) -> ApplyResult:
    """Unpack a tar stream, compressed or not, into ``writer``.

    ``dest`` is an existing directory of the tree that then counts as the root of everything in the archive.
    ``owner`` replaces every entry's owner; ``map_owner`` computes it. ``skip_devices`` leaves out device
    nodes that may not be made. Raises ``BadArchive`` or ``CorruptData`` for the stream's faults,
    ``StoreFull`` when the disk is.
    """
    inflated = Decompressor(stream, limits=limits.inflate)
    with ReadAhead(inflated) as source:
        reader = TarReader(source, hashing=True)
        applier = _Applier(reader, writer, limits, dest, whiteouts, owner, map_owner, skip_devices)
        applier.run()
    return ApplyResult(
        diff_id=DiffId(Digest("sha256", reader.hexdigest())),
        size=reader.bytes_read,
        entries=applier.count,
        compression=inflated.compression,
    )


def is_archive(stream: Readable) -> bool:
    """Whether a stream begins like a tar archive with at least one entry, after decompression (FIL-15)."""
    try:
        return next(iter(TarReader(Decompressor(stream))), None) is not None
    except PybuildError:
        return False


class _Scope:
    """The part of a tree below ``dest``, as the tree that links are resolved in."""

    def __init__(self, writer: Writer, dest: str) -> None:
        self._writer = writer
        self._dest = dest

    def path(self, inner: str) -> str:
        return join(self._dest, inner) if inner else self._dest

    def lstat(self, path: str) -> os.stat_result | None:
        return self._writer.lstat(self.path(path))

    def readlink(self, path: str) -> str:
        return self._writer.readlink(self.path(path))


class _Applier:
    def __init__(
        self,
        reader: TarReader,
        writer: Writer,
        limits: Limits,
        dest: str,
        whiteouts: bool,
        owner: tuple[int, int] | None,
        map_owner: OwnerHook | None,
        skip_devices: bool,
    ) -> None:
        self.count = 0
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._scope = _Scope(writer, dest)
        self._whiteouts = whiteouts
        self._owner = owner
        self._map_owner = map_owner
        self._skip_devices = skip_devices
        self._total = 0
        self._made: set[str] = set()  # what this archive put where, for whiteouts
        self._parents: dict[str, str] = {}  # names of parents → where they really are
        self._times: dict[str, int] = {}  # directory times, set at the end

    def run(self) -> None:
        for entry in self._reader:
            check_cancelled()
            try:
                self._apply(entry)
            except OSError as error:
                raise _explain(entry, error) from error
        for path in sorted(self._times, key=len, reverse=True):
            st = self._writer.lstat(path)
            if st is not None and stat.S_ISDIR(st.st_mode):
                self._writer.set_meta(path, mtime_ns=self._times[path])

    # --- one entry

    def _apply(self, entry: Entry) -> None:
        self._count(entry)
        parts = self._parts(entry.name)
        if not parts:
            self._root(entry)
            return
        parent_name, base = "/".join(parts[:-1]), parts[-1]
        if self._whiteouts and self._is_marker(entry, parts):
            return
        parent = self._parent(parent_name)
        path = join(parent, base)
        self._make(entry, path)
        if self._whiteouts:
            self._made.add(path)

    def _count(self, entry: Entry) -> None:
        limits = self._limits
        self.count += 1
        self._total += entry.size
        if self.count > limits.entries:
            raise BadArchive(f"the archive has more than {limits.entries} entries")
        if entry.size > limits.file_bytes or self._total > limits.total_bytes:
            raise BadArchive(f"{entry.name!r}: the archive's content is larger than allowed")
        if len(entry.xattrs) > limits.xattrs:
            raise BadArchive(f"{entry.name!r}: more than {limits.xattrs} extended attributes")

    def _parts(self, name: str) -> list[str]:
        """A name's parts; refused when it would lead outside or is longer than any kernel takes."""
        if len(name) > self._limits.path_bytes:
            raise BadArchive(f"a name of {len(name)} bytes is too long: {name[:60]!r}…")
        if "\0" in name:
            raise BadArchive(f"{name!r}: a name holds a NUL")
        parts: list[str] = []
        for part in name.split("/"):
            if part == "..":
                if not parts:
                    raise BadArchive(
                        f"{name!r}: the name leads outside of the archive", code="archive-escape"
                    )
                parts.pop()
            elif part and part != ".":
                if len(part) > 63 and len(os.fsencode(self._named(part))) > self._limits.name_bytes:
                    raise BadArchive(f"{part[:60]!r}…: a file name is too long")
                parts.append(part)
        return parts

    def _named(self, part: str) -> str:
        """The file name that a part stands for: the one that goes, in a layer's whiteout."""
        return part.removeprefix(_WHITEOUT) if self._whiteouts else part

    def _root(self, entry: Entry) -> None:
        """The root's own entry may only say what the directory is like."""
        if entry.kind != "dir":
            raise BadArchive(
                f"the archive's root is not a directory but a {entry.kind}", code="archive-escape"
            )
        path = self._scope.path("")
        self._merge(entry, path, *self._owner_of(entry))

    def _merge(self, entry: Entry, path: str, uid: int, gid: int) -> None:
        """A directory over a directory: a layer says all that is known of it."""
        self._writer.set_meta(path, mode=entry.mode, uid=uid, gid=gid, xattrs=entry.xattrs)
        if self._whiteouts:
            self._writer.drop_xattrs(path, entry.xattrs)
        self._times[path] = entry.mtime_ns

    def _parent(self, name: str) -> str:
        """Where a parent directory really is, made when it is missing."""
        known = self._parents.get(name)
        if known is not None:
            return known
        path = self._below_known(name)
        if path is None:
            path = self._scope.path(resolve_in(self._scope, name))
        uid, gid = (0, 0) if self._owner is None else self._owner
        if self._map_owner is not None:
            uid, gid = self._map_owner(uid, gid)
        try:
            made = self._writer.makedirs(path, 0o755, uid, gid)
        except TreeError as error:
            raise BadArchive(f"{name!r}: not a directory, but there are entries below it") from error
        if self._whiteouts:
            self._made.update(made)
        self._parents[name] = path
        return path

    def _below_known(self, name: str) -> str | None:
        """The same for a name below a known one, if no link is in between: deep trees cost one step each."""
        above, _, last = name.rpartition("/")
        known = self._parents.get(above)
        if known is None or not last:
            return None
        path = join(known, last)
        st = self._writer.lstat(path)
        return path if st is None or stat.S_ISDIR(st.st_mode) else None

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        if self._owner is not None:
            return self._owner
        uid, gid = entry.uid, entry.gid
        if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID):
            raise BadArchive(f"{entry.name!r}: impossible owner {uid}:{gid}")
        return (uid, gid) if self._map_owner is None else self._map_owner(uid, gid)

    def _make(self, entry: Entry, path: str) -> None:
        if entry.kind == "link":
            self._link(entry, path)
            return
        uid, gid = self._owner_of(entry)
        existing = self._writer.lstat(path)
        if existing is not None:
            if stat.S_ISDIR(existing.st_mode):
                if entry.kind == "dir":
                    self._merge(entry, path, uid, gid)
                    return
                self._remove(path)
            elif stat.S_ISLNK(existing.st_mode):
                self._parents.clear()
        writer, mode, mtime, xattrs = self._writer, entry.mode, entry.mtime_ns, entry.xattrs
        if entry.kind == "file":
            writer.write_file(path, self._content(entry), mode, uid, gid, mtime_ns=mtime, xattrs=xattrs)
        elif entry.kind == "dir":
            writer.mkdir(path, mode, uid, gid, xattrs=xattrs)
            self._times[path] = mtime
        elif entry.kind == "symlink":
            if not entry.link or len(entry.link) > self._limits.path_bytes or "\0" in entry.link:
                raise BadArchive(f"{entry.name!r}: not a possible link text")
            self._parents.clear()
            writer.symlink(path, entry.link, uid, gid, mtime_ns=mtime, xattrs=xattrs)
        else:
            self._node(entry, path, uid, gid)

    def _content(self, entry: Entry) -> bytes | Iterable[bytes | int]:
        if entry.sparse is not None:
            return self._reader.with_holes(entry.sparse, entry.size)
        return self._reader.small_data() if entry.size <= _SMALL else self._reader.data()

    def _node(self, entry: Entry, path: str, uid: int, gid: int) -> None:
        kinds = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}
        device = 0
        if entry.kind != "fifo":
            if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
                raise BadArchive(f"{entry.name!r}: impossible device {entry.major}:{entry.minor}")
            device = os.makedev(entry.major, entry.minor)
        if entry.kind == "char" and device == 0:
            self._writer.remove(path)  # overlayfs' own whiteout, packed as it lay there: nothing is here
            return
        try:
            self._writer.mknod(
                path,
                kinds[entry.kind] | entry.mode,
                device,
                uid,
                gid,
                mtime_ns=entry.mtime_ns,
                xattrs=entry.xattrs,
            )
        except PermissionError:
            if not self._skip_devices:
                raise

    def _link(self, entry: Entry, path: str) -> None:
        parts = self._parts(entry.link)
        if not parts:
            raise BadArchive(f"{entry.name!r}: a hard link to the root", code="archive-escape")
        parent = self._scope.path(resolve_in(self._scope, "/".join(parts[:-1])))
        target = join(parent, parts[-1])
        st = self._writer.lstat(target)
        if st is None or stat.S_ISDIR(st.st_mode):
            raise BadArchive(f"{entry.name!r}: hard link to {entry.link!r}, which is not a file in this tree")
        if target == path:
            raise BadArchive(f"{entry.name!r}: a hard link to itself")
        existing = self._writer.lstat(path)
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            self._remove(path)
            if self._writer.lstat(target) is None:
                raise BadArchive(f"{entry.name!r}: a hard link takes the place of what it links to")
        self._writer.link(path, target)
        if not stat.S_ISLNK(st.st_mode):
            uid, gid = self._owner_of(entry)
            self._writer.set_meta(
                path, mode=entry.mode, uid=uid, gid=gid, mtime_ns=entry.mtime_ns, xattrs=entry.xattrs
            )

    # --- deletions

    def _is_marker(self, entry: Entry, parts: list[str]) -> bool:
        """Carry out a whiteout; True when the entry was one, or AUFS' own metadata."""
        base = parts[-1]
        if any(part.startswith(_AUFS) for part in parts[:-1]):
            return True
        if any(part.startswith(_WHITEOUT) for part in parts[:-1]):
            raise BadArchive(f"{entry.name!r}: an entry below a whiteout")
        if not base.startswith(_WHITEOUT):
            return False
        if base != _OPAQUE and base.startswith(_AUFS):
            return True
        name = base.removeprefix(_WHITEOUT)
        if name in ("", ".", ".."):
            raise BadArchive(f"{entry.name!r}: a whiteout of no name", code="archive-escape")
        parent_name = "/".join(parts[:-1])
        inside = resolve_in(self._scope, parent_name)
        parent = self._scope.path(inside)
        if base == _OPAQUE:
            self._clear(self._parent(parent_name))
        elif join(parent, name) in self._made:
            self._clear(join(parent, name))
        else:
            self._remove(join(parent, name))
        return True

    def _clear(self, path: str) -> None:
        """Remove below a directory what this archive did not put there itself."""
        for name, st in self._writer.scandir(path):
            inner = join(path, name)
            if inner not in self._made:
                self._remove(inner)
            elif stat.S_ISDIR(st.st_mode):
                self._clear(inner)

    def _remove(self, path: str) -> None:
        if self._writer.remove(path):
            self._parents.clear()
            self._times.pop(path, None)


def _explain(entry: Entry, error: OSError) -> PybuildError:
    if error.errno in _NO_SPACE:
        return StoreFull(
            "no space left on the device while a layer was unpacked", hint="pybuild prune frees space"
        )
    if isinstance(error, PermissionError):
        return TreeError(
            f"{entry.name!r}: cannot make this {entry.kind}: {error.strerror}", code="not-permitted"
        )
    if error.errno in _OF_THE_MACHINE:
        return at_entry(error, f"unpack {entry.name!r}")
    return BadArchive(f"{entry.name!r}: cannot make this {entry.kind}: {error.strerror or error}")
