"""Names, links and walks of file trees: what every kind of tree has in common.

Paths are relative, without leading slash, "" is the root, names are joined by "/" and are text with
surrogateescape.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from builder.errors import PathNotFound, PybuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:  # typing would take a millisecond of every start
    Protocol = object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.protocols import TreeSink

MAX_LINKS = 255
_OF_OVERLAYFS = ("trusted.overlay.", "user.overlay.")
OVERLAY_XATTRS = (*_OF_OVERLAYFS, "user.pybuild.")
"""Attributes with a meaning for us or the kernel, never part of a layer."""
DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XATTR = frozenset(
    {errno.ENODATA, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EOVERFLOW}
)
"""EOVERFLOW: capabilities for a user namespace whose root user has no id in ours."""
_GONE = frozenset({errno.ENODATA, errno.EOVERFLOW})
_BAD_NAMES = frozenset({"", ".", ".."})


class TreeError(PybuildError):
    """A tree cannot hold, or does not hold, what was asked for."""

    code = "tree-error"


class Links(Protocol):
    """What resolving a path needs to know of a tree."""

    def lstat(self, path: str, /) -> os.stat_result | None: ...
    def readlink(self, path: str, /) -> str: ...


class SourceTree(Protocol):
    """What copying, hashing and packing read: a ``View``, or a local context that hides ignored files.

    ``owner`` not None means: every entry counts as owned by that (uid, gid), whatever ``lstat`` says.
    """

    @property
    def owner(self) -> tuple[int, int] | None: ...
    def lstat(self, path: str) -> os.stat_result | None: ...
    def readlink(self, path: str) -> str: ...
    def scandir(self, path: str) -> list[tuple[str, os.stat_result]]: ...
    def open(self, path: str) -> int: ...
    def read(self, path: str, limit: int) -> bytes: ...
    def xattrs(self, path: str) -> dict[str, bytes]: ...
    def resolve(self, path: str, *, follow_final: bool = True) -> str: ...
    def walk(
        self, path: str = "", *, enter: Callable[[str], bool] | None = None
    ) -> Iterator[tuple[str, os.stat_result]]: ...


def is_whiteout(st: os.stat_result) -> bool:
    """Whether this is overlayfs' mark for "nothing here": a character device 0/0."""
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def sort_names(entries: list[tuple[str, os.stat_result]]) -> list[tuple[str, os.stat_result]]:
    """Sort by the bytes of the names, in place."""
    entries.sort()
    if entries and not all(name.isascii() for name, _ in entries):
        entries.sort(key=lambda entry: os.fsencode(entry[0]))
    return entries


def clean(path: str) -> str:
    """A tree path from any text: leading slashes, "." and empty parts dropped, ".." stays at the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part and part != ".":
            parts.append(part)
    if "\0" in path:
        raise TreeError("a path holds a NUL character")
    return "/".join(parts)


def join(parent: str, name: str) -> str:
    """``name`` inside ``parent``."""
    return f"{parent}/{name}" if parent else name


def split(path: str) -> tuple[str, str]:
    """Parent and name; refuses names that would walk elsewhere. "" is not a name."""
    parent, _, name = path.rpartition("/")
    if name in _BAD_NAMES:
        raise TreeError(f"not a path inside a tree: {path!r}")
    return parent, name


def is_carried(name: str) -> bool:
    """Whether a layer carries this extended attribute: file capabilities and the user's own (LAY-05)."""
    return name == "security.capability" or name.startswith("user.")


def read_xattrs(target: int | str, *, raw: bool = False) -> dict[str, bytes]:
    """Extended attributes of an fd, or of a path whose last part is not followed, except overlayfs' own.

    One that cannot be had is left out: it went meanwhile, its file system or our rights do not give it. Any
    other failure raises if it is one that a layer would carry, for then it would be lost unseen.
    """
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTR:
            return {}
        raise
    found: dict[str, bytes] = {}
    for name in names:
        if name.startswith(OVERLAY_XATTRS) and not (raw and name.endswith(".opaque")):
            continue
        try:
            found[name] = os.getxattr(target, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NO_XATTR and is_carried(name):
                raise
    return found


def copy_xattrs(source: int | str, target: int | str) -> None:
    """Give ``target`` the extended attributes of ``source``, overlayfs' own left out.

    One that cannot be copied (a security label that is not ours to set) is passed over unless a layer would
    carry it. Raises OSError.
    """
    follow = isinstance(source, int)
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTR:
            return
        raise
    for name in names:
        if name.startswith(_OF_OVERLAYFS):
            continue
        try:
            os.setxattr(
                target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow
            )
        except OSError as error:
            if error.errno not in _GONE and is_carried(name):
                raise


def by_fd(fd: int, name: str = "") -> str:
    """A path that names what is in an open directory without walking there again."""
    return f"/proc/self/fd/{fd}/{name}" if name else f"/proc/self/fd/{fd}"


def resolve_in(tree: Links, path: str, *, follow_final: bool = True) -> str:
    """``SourceTree.resolve`` in terms of ``lstat`` and ``readlink``, for every tree that has these."""
    if "\0" in path:
        raise TreeError("a path holds a NUL character")
    todo = [part for part in reversed(path.split("/")) if part and part != "."]
    done: list[str] = []
    links = 0
    missing = False
    while todo:
        part = todo.pop()
        if part == "..":
            if done:
                done.pop()
            missing = False
            continue
        done.append(part)
        if missing or (not todo and not follow_final):
            continue
        st = tree.lstat("/".join(done))
        if st is None:
            missing = True
        elif stat.S_ISLNK(st.st_mode):
            links += 1
            if links > MAX_LINKS:
                raise PathNotFound(f'"/{clean(path)}": too many links', path=path)
            target = tree.readlink("/".join(done))
            done = [] if target.startswith("/") else done[:-1]
            todo.extend(part for part in reversed(target.split("/")) if part and part != ".")
    return "/".join(done)


def walk_tree(
    tree: SourceTree, path: str = "", *, enter: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """``SourceTree.walk`` in terms of ``scandir``, for every tree that has it."""
    prefix = f"{path}/" if path else ""
    stack = [(prefix, iter(tree.scandir(path)))]
    while stack:
        prefix, entries = stack[-1]
        for name, st in entries:
            inner = prefix + name
            yield inner, st
            if stat.S_ISDIR(st.st_mode) and (enter is None or enter(inner)):
                stack.append((inner + "/", iter(tree.scandir(inner))))
                break
        else:
            stack.pop()


def make_missing(
    tree: TreeSink, path: str, mode: int, uid: int, gid: int, *, mtime_ns: int | None
) -> tuple[str, ...]:
    """Make a directory and its missing parents, all alike; gives what was made, outermost first."""
    missing: list[str] = []
    st = None
    while path:
        st = tree.lstat(path)
        if st is not None:
            break
        missing.append(path)
        path = split(path)[0]
    if st is not None and not stat.S_ISDIR(st.st_mode):
        raise TreeError(f'"/{path}": is not a directory', code="not-a-directory")
    missing.reverse()
    for inner in missing:
        tree.mkdir(inner, mode, uid, gid)
    if mtime_ns is not None:
        for inner in reversed(missing):
            tree.set_meta(inner, mtime_ns=mtime_ns)
    return tuple(missing)
