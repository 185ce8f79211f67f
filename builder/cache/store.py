"""One state directory, opened: everything that pybuild keeps between two commands.

``docs/formats/store.md`` describes what is on disk and in which order it gets there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from builder.cache.blobs import BlobStore
from builder.cache.boot import boot_id, note_running
from builder.cache.db import Database
from builder.cache.holds import Hold, Holds
from builder.cache.locks import Gate, NamedLock
from builder.cache.problems import if_writable, translated
from builder.cache.records import RecordStore
from builder.cache.schema import VERSION
from builder.cache.snapshots import SnapshotStore
from builder.cache.staging import Owner, Staging
from builder.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from builder.cache.cachemounts import CacheMountStore
    from builder.cache.containerstore import ContainerStore
    from builder.cache.gc import PruneReport
    from builder.cache.history import BuildHistory, EventLog
    from builder.cache.imagestore import ImageStore
    from builder.cache.protocols import Snapshotter
    from builder.cache.usage import UsageRow
    from builder.cache.volumestore import VolumeStore

_TOUCH_LIMIT = 5000


class Store:
    """An open state directory; safe for many threads and, together with others, for many processes.

    Use ``Store.open``; ``close()`` (or leaving the ``with``) writes what was only noted. Things that must
    survive a prune by somebody else are used inside ``with store.hold()``.
    """

    def __init__(
        self, root: Path, db: Database, snapshotter: Literal["auto", "overlay", "native"] = "auto"
    ) -> None:
        text = str(root)
        self.root = root
        self.db = db
        self.gate = Gate(text)
        self._tmp = f"{text}/tmp"
        self._wanted = snapshotter
        self._touches: dict[tuple[str, str], int] = {}
        self._touches_lock = threading.Lock()
        self._owner = Owner(self._tmp)
        self._holds = Holds(db, self.gate, self._tmp)
        self.blobs = BlobStore(
            db, self.gate, text, published=self._holds.published_blobs, touched=self._touch
        )
        self.snapshots = SnapshotStore(
            db,
            text,
            self._owner,
            boot_id,
            self._choose,
            published=self._holds.published_snapshot,
            touched=self._touch,
            realise=self._realise,
        )
        self.records = RecordStore(db, touched=self._touch)

    @classmethod
    def open(cls, root: Path, *, snapshotter: Literal["auto", "overlay", "native"] = "auto") -> Store:
        """Open a state directory, making it on first use.

        StoreError with a hint when it was made by a newer pybuild, cannot be written, or is something else.
        """
        path = os.path.abspath(root)
        if _version(path) is None:
            from builder.cache.create import create

            create(path)
        store = cls(Path(path), Database(f"{path}/db.sqlite"), snapshotter)
        try:
            store._start(path)
        except BaseException:
            store.db.close()
            raise
        return store

    def close(self) -> None:
        """Write what was noted and let everything go; further use is an error. A second call does nothing."""
        try:
            self._flush_touches(closing=True)
            self._write_index_if_behind()
            self._holds.close()
            self._release_owner()
        finally:
            self.db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def images(self) -> ImageStore:
        """Images by name and id."""
        from builder.cache.imagestore import ImageStore

        return ImageStore(self.db, self.blobs, str(self.root))

    @cached_property
    def cache_mounts(self) -> CacheMountStore:
        """Directories that steps keep between builds."""
        from builder.cache.cachemounts import CacheMountStore

        return CacheMountStore(self.db, self.gate, str(self.root))

    @cached_property
    def containers(self) -> ContainerStore:
        """Containers by name and id."""
        from builder.cache.containerstore import ContainerStore

        return ContainerStore(self.db, self.gate, str(self.root))

    @cached_property
    def volumes(self) -> VolumeStore:
        """Volumes by name."""
        from builder.cache.volumestore import VolumeStore

        return VolumeStore(self.db, self.gate, str(self.root))

    @cached_property
    def builds(self) -> BuildHistory:
        """The record of every build."""
        from builder.cache.history import BuildHistory

        return BuildHistory(self.db, self._owner, str(self.root))

    @cached_property
    def events(self) -> EventLog:
        """What happened, in order."""
        from builder.cache.history import EventLog

        return EventLog(self.db)

    def staging(self, prefix: str) -> Staging:
        """``with store.staging("unpack") as directory``: a private directory that is gone afterwards."""
        return Staging(self._tmp, prefix)

    def lock(
        self,
        name: str,
        *,
        note: str = "",
        timeout_s: float | None = None,
        on_wait: Callable[[], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> NamedLock:
        """``with store.lock(name)``: exclusive between processes and threads; dies with its owner.

        ``on_wait`` is called once when it has to wait, ``check`` while it waits (it may raise to give up);
        StoreBusy after ``timeout_s``. Others can read ``note`` while we hold it.
        """
        return NamedLock(self._tmp, name, note=note, timeout_s=timeout_s, on_wait=on_wait, check=check)

    def hold(self) -> Hold:
        """``with store.hold() as hold``: what it names, and all that we commit meanwhile, is not pruned."""
        return self._holds.new()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Row changes inside become one transaction (records, docs, layers, touches, events).

        Keep it short, and publish no blobs inside: every other writer waits.
        """
        with self.db.write():
            yield
        if not self.db.in_write:
            self._write_index_if_behind()

    def sweep(self) -> None:
        """Remove what dead processes left behind. Cheap; ``open`` does it."""
        from builder.cache.sweep import sweep

        sweep(self)

    def prune(self, **options: Any) -> PruneReport:
        """Remove what nothing needs; see ``gc.prune`` for the options."""
        from builder.cache.gc import prune

        return prune(self, **options)

    def usage(self) -> tuple[UsageRow, ...]:
        """What is kept and what it takes (GC-01)."""
        from builder.cache.usage import usage

        return usage(self)

    def doc(self, kind: str, key: str) -> bytes | None:
        """A small remembered document, or None: anything may be forgotten at any time."""
        row = self.db.one("SELECT data, used_ns FROM docs WHERE kind=? AND key=?", (kind, key))
        if row is None:
            return None
        if time.time_ns() - row[1] > 86_400_000_000_000:
            self._touch("doc", f"{kind}\0{key}")
        return bytes(row[0])

    def put_doc(self, kind: str, key: str, data: bytes) -> None:
        """Remember a small document."""
        self.db.run(
            "INSERT OR REPLACE INTO docs(kind, key, data, used_ns) VALUES(?,?,?,?)",
            (kind, key, data, time.time_ns()),
        )

    def _start(self, path: str) -> None:
        """What every opening looks at: ids, the boot, index.json, the entries of tmp/, the notes in trash."""
        from builder.cache import ownership

        meta: dict[str, str] = dict(self.db.all("SELECT key, value FROM meta"))  # a handful of rows
        ownership.check(self.db, meta.get("owners"), path)
        if meta.get("boot") != boot_id():
            from builder.cache.boot import after_restart

            after_restart(self.db, self.gate, path, boot_id())
        with translated("open the state directory"):
            names = os.listdir(self._tmp)
        if names or self.db.one("SELECT 1 FROM trash LIMIT 1") is not None:
            from builder.cache.sweep import sweep

            sweep(self, names)
        if meta.get("images") != meta.get("index_written"):
            self.images.write_index()

    def _choose(self) -> Snapshotter:
        from builder.cache.native import NativeSnapshotter
        from builder.cache.overlay import UNSUPPORTED, OverlaySnapshotter, probe

        if self._wanted == "native":
            return NativeSnapshotter()
        found = probe(self.db, self._tmp, boot_id())
        if found != UNSUPPORTED:
            return OverlaySnapshotter(userxattr=found == "user")
        if self._wanted == "overlay":
            raise StoreError(
                f"overlay mounts do not work in {self.root}",
                hint="use the native snapshotter, or put the state directory on ext4, xfs or btrfs",
                code="overlay-unsupported",
            )
        return NativeSnapshotter()

    def _realise(self, snapshot_id: str) -> None:
        from builder.cache.lazy import realise

        realise(self, snapshot_id)

    def _touch(self, kind: str, key: str) -> None:
        with self._touches_lock:
            self._touches[kind, key] = self._touches.get((kind, key), 0) + 1
            full = len(self._touches) >= _TOUCH_LIMIT
        if full:
            self._flush_touches()

    def _flush_touches(self, *, closing: bool = False) -> None:
        """Write noted uses. A store that was only looked at writes nothing."""
        with self._touches_lock:
            touches, self._touches = self._touches, {}
        if not touches:
            return
        now = time.time_ns()
        from builder.cache.touches import write_touches

        with if_writable(), self.db.write() as tx:
            write_touches(tx, touches, now)
            if closing:
                note_running(tx, boot_id())

    def _write_index_if_behind(self) -> None:
        """A batch left index.json for later."""
        images: ImageStore | None = self.__dict__.get("images")
        if images is not None and images.behind:
            images.write_index()

    def _release_owner(self) -> None:
        """Active snapshots that nobody committed are dropped like those of a dead process."""
        name = self._owner.made()
        if name is None:
            return
        begun = "SELECT 1 FROM snapshots WHERE owner=? UNION ALL SELECT 1 FROM builds WHERE owner=?"
        left = self.db.one(begun, (name, name)) is not None
        self._owner.close(forget=not left)
        if left:
            self.sweep()


def _version(path: str) -> int | None:
    """The layout of an existing state directory; None when there is none yet."""
    try:
        with open(f"{path}/VERSION", "rb") as file:
            text = file.read(64)
    except FileNotFoundError:
        return None
    except OSError as error:
        from builder.cache.problems import from_os

        raise from_os(error, "open the state directory") from error
    try:
        found = int(text)
    except ValueError:
        raise StoreError(
            f"{path}/VERSION holds no version", hint="choose another state directory with --root"
        ) from None
    if found > VERSION:
        raise StoreError(
            f"{path} was made by a newer pybuild (layout {found}, this one knows {VERSION})",
            hint="upgrade pybuild, or choose another state directory with --root",
            code="store-too-new",
        )
    return found
