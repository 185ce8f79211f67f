"""Mirrors of git repositories, ``git/<sha256 of the remote>``: what they take, and their removal.

A mirror is used under the lock ``git-<name>``; who uses it leaves a note in it of the remote and of how
often that happened. The note's time is the last use.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from builder.cache.locks import NamedLock

NOTE = "pybuild.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """One mirror; ``remote`` is "" when nobody noted it."""

    name: str
    remote: str
    created_ns: int
    last_used_ns: int
    uses: int
    size: int


def lock_name(name: str) -> str:
    """The name of the lock under which a mirror is used."""
    return f"git-{name}"


def note_use(directory: str | os.PathLike[str], remote: str) -> None:
    """Write down that a mirror is used, by whom holds its lock. ``remote`` has no credentials."""
    path = f"{os.fspath(directory)}/{NOTE}"
    known = _read(path)
    data = {"remote": remote, "uses": int(known.get("uses", 0)) + 1}
    with open(f"{path}.new", "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(data, file)
    os.rename(f"{path}.new", path)


def mirrors(root: str) -> tuple[Mirror, ...]:
    """Every mirror of a state directory, measured."""
    from builder.cache.measure import disk_usage

    found = []
    for name in _names(root):
        directory = f"{root}/git/{name}"
        note = _read(f"{directory}/{NOTE}")
        try:
            used = os.stat(f"{directory}/{NOTE}").st_mtime_ns if note else os.stat(directory).st_mtime_ns
            made = os.stat(f"{directory}/HEAD").st_mtime_ns
        except OSError:
            made = used = 0
        found.append(
            Mirror(
                name=name,
                remote=str(note.get("remote", "")),
                created_ns=made,
                last_used_ns=used,
                uses=int(note.get("uses", 0)),
                size=disk_usage(directory),
            )
        )
    return tuple(found)


def unused_since(root: str, then_ns: int) -> bool:
    """Whether there is a mirror that nobody has used since."""
    for name in _names(root):
        try:
            if os.stat(f"{root}/git/{name}/{NOTE}").st_mtime_ns < then_ns:
                return True
        except FileNotFoundError:
            continue
    return False


def in_use(root: str, name: str) -> bool:
    """Whether somebody works in it at this moment."""
    lock = NamedLock(f"{root}/tmp", lock_name(name))
    if not lock.is_wanted():
        return False
    free = lock.try_acquire()
    lock.release()
    return not free


def delete_mirror(root: str, name: str) -> bool:
    """Remove a mirror; False when somebody works in it."""
    from builder.cache.removal import discard_path

    lock = NamedLock(f"{root}/tmp", lock_name(name))
    if not lock.try_acquire():
        return False
    try:
        discard_path(f"{root}/git/{name}", f"{root}/tmp")
    finally:
        lock.release()
    return True


def _names(root: str) -> list[str]:
    try:
        with os.scandir(f"{root}/git") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(1 << 16))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or not isinstance(found.get("uses", 0), int):
        return {}
    return found
