"""Volumes and binds of a new container: which there are, where their data is, and filling new volumes.

The result is a list of mount entries in the form of ``inspect``: ``Type``, ``Name``, ``Source``,
``Destination``, ``RW``, ``Mode``, ``Propagation``, ``Driver``, and ``Anonymous`` for volumes that go with
``rm -v``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from builder.cache.store import Store
from builder.cache.tree import View
from builder.containers.types import BadOption, CreateRequest, VolumeRequest
from builder.errors import NoSuchImage
from runtime.errors import NoSuchContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Entry = dict[str, Any]
else:  # typing would take a millisecond of every start
    Entry = dict


def resolve(store: Store, request: CreateRequest, image_volumes: Iterable[str], tree: View) -> list[Entry]:
    """The mounts of a new container, parents before what is below them; volumes are made and filled.

    A destination is taken by the first of ``-v``, ``--tmpfs``, ``--volumes-from`` and VOLUME that names it
    (VOL-04). ``tree`` is the image's.
    """
    found: dict[str, Entry] = {}
    for volume in (*request.volumes, *request.tmpfs):
        if volume.target in found:
            raise BadOption(f"Duplicate mount point: {volume.target}")
        found[volume.target] = _entry(store, volume, tree)
    for text in request.volumes_from:
        for entry in _entries_of(store, text):
            found.setdefault(entry["Destination"], entry)
    for path in image_volumes:
        target = os.path.normpath("/" + path.lstrip("/"))
        if target not in found and target != "/":
            found[target] = _entry(store, VolumeRequest(target=target), tree)
    return sorted(found.values(), key=lambda entry: entry["Destination"].count("/"))


def _entry(store: Store, volume: VolumeRequest, tree: View) -> Entry:
    if volume.kind == "tmpfs":
        return {
            "Type": "tmpfs",
            "Source": "",
            "Destination": volume.target,
            "RW": not volume.readonly,
            "Mode": "",
            "Propagation": "",
            "TmpfsSize": volume.tmpfs_size,
            "TmpfsMode": volume.tmpfs_mode,
        }
    if volume.kind == "bind":
        return _bind_entry(volume)
    _refuse_file(tree, volume.target)
    row = store.volumes.create(volume.source or None)
    if volume.copy:
        fill(store, row.name, row.path, tree, volume.target)
    return {
        "Type": "volume",
        "Name": row.name,
        "Source": str(row.path),
        "Destination": volume.target,
        "Driver": "local",
        "Mode": "" if not volume.readonly else "ro",
        "RW": not volume.readonly,
        "Propagation": "",
        "Anonymous": not volume.source,
    }


def _bind_entry(volume: VolumeRequest) -> Entry:
    if not os.path.lexists(volume.source):
        if not volume.create_source:
            raise BadOption(f"bind source path does not exist: {volume.source}", code="bind-source-missing")
        try:
            os.makedirs(volume.source, exist_ok=True)
        except OSError as error:
            raise BadOption(f"cannot make the bind source {volume.source}: {error.strerror}") from error
    return {
        "Type": "bind",
        "Source": volume.source,
        "Destination": volume.target,
        "Mode": "" if not volume.readonly else "ro",
        "RW": not volume.readonly,
        "Propagation": volume.propagation,
    }


def _entries_of(store: Store, text: str) -> list[Entry]:
    """The mounts of another container (VOL-05), ``NAME[:ro|rw]``."""
    name, _, mode = text.partition(":")
    row = store.containers.get(name)
    if row is None:
        raise NoSuchContainer(f"No such container: {name}")
    if mode not in ("", "ro", "rw"):
        raise BadOption(f"invalid mode {mode!r} in --volumes-from {text!r}")
    entries = [dict(entry) for entry in row.data["Mounts"] if entry["Type"] != "tmpfs"]
    for entry in entries:
        if mode == "ro":
            entry["RW"], entry["Mode"] = False, "ro"
        if entry["Type"] == "volume":
            entry["Anonymous"] = entry.get("Anonymous", False)
    return entries


def _refuse_file(tree: View, target: str) -> None:
    status = tree.lstat(tree.resolve(target))
    if status is not None and not stat.S_ISDIR(status.st_mode):
        raise BadOption(
            f"cannot mount volume over existing file, file exists {target}", code="volume-over-file"
        )


def fill(store: Store, name: str, path: Path, tree: View, target: str) -> None:
    """Copy what the image has at ``target`` into a volume that is still empty (VOL-02)."""
    from builder.cache import ownership
    from builder.cache.treewriter import Writer
    from runtime.cp import Ownership, Plan, copy

    where = tree.resolve(target)
    status = tree.lstat(where)
    if status is None or not stat.S_ISDIR(status.st_mode):
        return
    with store.lock(f"volume {name}"), closing(Writer(path)) as sink:
        if sink.scandir(""):
            return
        copy(tree, sink, Plan(where, "", True, merge=True), Ownership(archive=True))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            ownership.chown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
            os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)


def users_of(store: Store, volume: str) -> tuple[str, ...]:
    """The ids of the containers that mount a volume (VOL-07)."""
    return tuple(
        row.id
        for row in store.containers.list()
        if any(entry.get("Name") == volume for entry in row.data["Mounts"])
    )


def image_tree(store: Store, snapshot: str | None) -> View:
    """The tree of an unpacked image; the empty tree for ``scratch``."""
    if snapshot is None:
        return View(())
    if store.snapshots.get(snapshot) is None:
        raise NoSuchImage("the image's tree is gone from the store", hint="pull or build the image again")
    return View(store.snapshots.layers(snapshot), userxattr=store.snapshots.userxattr)
