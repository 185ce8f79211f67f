"""Owners by name: looked up in the passwd and group files of a tree (rows FIL-18, CPY-12)."""

from __future__ import annotations

from collections.abc import Callable

from builder.cache.tree import SourceTree, TreeError
from builder.errors import PathNotFound, SolveError
from builder.llb.ops import ChownOpt, UserOpt

_LIMIT = 4 * 1024 * 1024
_MAX_ID = (1 << 32) - 2

TreeAt = Callable[[int], SourceTree | None]


def find_owner(chown: ChownOpt | None, tree_at: TreeAt, *, lenient: bool = False) -> tuple[int, int] | None:
    """(uid, gid) of a chown option, None for none; SolveError for a name that is not known.

    A user by name brings its own group, one by number the group of the same number, unless a group is given.
    ``lenient`` takes root for an unknown name: WORKDIR belongs to USER, who need not exist (MET-02).
    """
    if chown is None:
        return None
    uid = gid = 0
    if chown.user is not None:
        found = _user(chown.user, tree_at)
        if found is None and not lenient:
            raise _unknown("user", chown.user.name, "/etc/passwd")
        uid, gid = found or (0, 0)
    if chown.group is not None:
        group = _group(chown.group, tree_at)
        if group is None and not lenient:
            raise _unknown("group", chown.group.name, "/etc/group")
        gid = group or 0
    for value in (uid, gid):
        if not 0 <= value <= _MAX_ID:
            raise SolveError(f"impossible user or group id {value}", code="bad-owner")
    return uid, gid


def _user(option: UserOpt, tree_at: TreeAt) -> tuple[int, int] | None:
    if not option.name:
        return option.id, option.id
    for fields in _lines(tree_at(option.input), "etc/passwd"):
        if fields[0] == option.name and len(fields) > 3:
            return _id(fields[2], option.name), _id(fields[3], option.name)
    return None


def _group(option: UserOpt, tree_at: TreeAt) -> int | None:
    if not option.name:
        return option.id
    for fields in _lines(tree_at(option.input), "etc/group"):
        if fields[0] == option.name and len(fields) > 2:
            return _id(fields[2], option.name)
    return None


def _id(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise SolveError(f"the entry of {name!r} has no usable id: {text[:40]!r}", code="bad-owner")
    return int(text)


def _unknown(what: str, name: str, file: str) -> SolveError:
    return SolveError(
        f"unable to find {what} {name!r}: no such entry in {file} of the image",
        hint=f"use a number, or add the {what} before this step",
        code="unknown-owner",
    )


def _lines(tree: SourceTree | None, path: str) -> list[list[str]]:
    if tree is None:
        return []
    try:
        text = tree.read(tree.resolve(path), _LIMIT)
    except PathNotFound:
        return []
    except TreeError as error:
        raise SolveError(f"cannot read /{path} of the image: {error.message}", code="bad-owner") from error
    return [line.split(":") for line in text.decode("utf-8", "surrogateescape").splitlines() if line]
