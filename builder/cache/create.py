"""Makes a new state directory; ``VERSION`` comes last, so an interrupted attempt is simply made again."""

from __future__ import annotations

import fcntl
import os

from builder.cache import reserve
from builder.cache.boot import boot_id
from builder.cache.db import create_database
from builder.cache.faults import point
from builder.cache.problems import translated
from builder.cache.schema import SCHEMA, VERSION
from builder.errors import StoreError

DIRECTORIES = (
    "tmp",
    "content",
    "content/blobs",
    "content/blobs/sha256",
    "snapshots",
    "cachemounts",
    "volumes",
    "containers",
    "history",
)
_OURS = frozenset(
    {
        *(name for name in DIRECTORIES if "/" not in name),
        "VERSION",
        "VERSION.new",
        "db.sqlite",
        "db.sqlite-wal",
        "db.sqlite-shm",
        "gate.lock",
        "gc.lock",
        "lost+found",
        reserve.NAME,
    }
)


def create(path: str) -> None:
    """Make the state directory at ``path``; several processes may try at once.

    StoreError when there is a directory already that holds something else.
    """
    with translated("make the state directory"):
        os.makedirs(path, 0o700, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.exists(f"{path}/VERSION"):
                return
            _refuse_foreign(path)
            _fill(path)
            reserve.lay(path)
            os.fsync(fd)
        finally:
            os.close(fd)


def _refuse_foreign(path: str) -> None:
    foreign = sorted(set(os.listdir(path)) - _OURS)
    if foreign:
        raise StoreError(
            f"{path} is not a pybuild state directory: it holds {foreign[0]!r}",
            hint="choose an empty or new directory with --root",
            code="store-foreign",
        )


def _fill(path: str) -> None:
    for name in DIRECTORIES:
        os.makedirs(f"{path}/{name}", 0o700, exist_ok=True)
    point("create.directories")
    _write(f"{path}/content/oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    if not os.path.exists(f"{path}/db.sqlite"):  # VERSION alone may have been lost
        _write(
            f"{path}/content/index.json",
            b'{\n  "schemaVersion": 2,\n  "mediaType": "application/vnd.oci.image.index.v1+json",\n'
            b'  "manifests": []\n}',
        )
    create_database(
        f"{path}/db.sqlite",
        SCHEMA + f"INSERT OR IGNORE INTO meta(key, value) VALUES('boot', '{boot_id()}');",
    )
    point("create.database")
    _write(f"{path}/VERSION.new", f"{VERSION}\n".encode())
    os.rename(f"{path}/VERSION.new", f"{path}/VERSION")
    point("create.version")


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
