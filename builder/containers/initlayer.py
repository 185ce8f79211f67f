"""The layer between an image and a container's own changes: mount points that the image does not have
(CRE-08).

Because they are in a layer of their own, ``diff`` and ``commit`` compare with it and never see them,
however they were used. One layer serves all containers of an image that need the same mount points.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from contextlib import closing

from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.cache.treewriter import Writer
from builder.oci.digest import sha256_hex

GENERATED = ("etc/hosts", "etc/resolv.conf", "etc/hostname")
"""Files that are made per container and bind-mounted."""

STUBS = (*GENERATED, ".dockerenv")
"""Files that exist only as mount points or marks: left out of ``export`` unless the image has them."""

_DIRECTORIES = ("proc", "sys", "dev", "etc")
_DOC = "container-init-layer"

Stub = tuple[str, bool]
"""Path and whether it is a directory."""


def prepare(store: Store, hold: Hold, image_snapshot: str | None, mount_points: Iterable[Stub]) -> str:
    """The committed snapshot with every mount point, on top of ``image_snapshot``; held by ``hold``."""
    wanted = sorted({*mount_points})
    key = sha256_hex(json.dumps([store.snapshots.driver, image_snapshot, wanted]).encode())
    known = store.doc(_DOC, key)
    if known is not None and hold.snapshot(known.decode()):
        return known.decode()
    active = store.snapshots.prepare(
        image_snapshot, description="container mount points", record_type="internal"
    )
    try:
        with closing(Writer(active.upper, active.lowers, userxattr=active.userxattr)) as writer:
            _fill(writer, wanted)
        info = store.snapshots.commit(active, description="container mount points", record_type="internal")
    except BaseException:
        store.snapshots.discard(active)
        raise
    hold.snapshot(info.id)
    store.put_doc(_DOC, key, info.id.encode())
    return info.id


def _fill(writer: Writer, mount_points: list[Stub]) -> None:
    for path in _DIRECTORIES:
        if writer.lstat(path) is None:
            writer.mkdir(path, 0o755, 0, 0)
    for path in STUBS:
        _file(writer, path)
    if writer.lstat("etc/mtab") is None and _is_directory(writer, "etc"):
        writer.symlink("etc/mtab", "/proc/mounts")
    for path, directory in mount_points:
        where = writer.resolve(path)
        if not where or writer.lstat(where) is not None or where.split("/")[0] in ("proc", "sys", "dev"):
            continue
        if directory:
            writer.makedirs(where)
        else:
            writer.makedirs(where.rpartition("/")[0])
            writer.write_file(where, b"", 0o644)


def _file(writer: Writer, path: str) -> None:
    """An empty regular file, in place of nothing or of a link that would lead the mount elsewhere."""
    parent, _, name = path.rpartition("/")
    where = writer.resolve(parent)
    if where and not _is_directory(writer, where):
        return
    target = f"{where}/{name}" if where else name
    status = writer.lstat(target)
    if status is None or stat.S_ISLNK(status.st_mode):
        writer.write_file(target, b"", 0o644)


def _is_directory(writer: Writer, path: str) -> bool:
    status = writer.lstat(path)
    return status is not None and stat.S_ISDIR(status.st_mode)
