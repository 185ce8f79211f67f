"""Layers are made while later steps still run: every snapshot that an image needs is packed by a worker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from builder.cache.pack import pack_changes
from builder.cache.restack import SAME_LAYER, layer_changes
from builder.cache.store import Store
from builder.errors import StoreError
from builder.exporter.types import OutputSpec
from builder.oci.descriptor import Descriptor
from builder.oci.digest import DiffId

WORKERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """How layers are made; ``level`` None is the default of the compression.

    ``force`` re-encodes layers that came with a base image too. ``clamp_s`` is the latest modification time
    that goes into a layer, in Unix seconds.
    """

    compression: str = "gzip"
    level: int | None = None
    force: bool = False
    clamp_s: int | None = None

    @classmethod
    def of(cls, spec: OutputSpec) -> LayerOptions:
        """What an output asks for; times change only where it says so (RPR-02)."""
        return cls(
            compression=spec.compression,
            level=spec.compression_level,
            force=spec.force_compression,
            clamp_s=spec.epoch if spec.rewrite_timestamp else None,
        )

    @property
    def variant(self) -> str:
        """Under which name layers made so are kept."""
        parts = [self.compression]
        if self.level is not None:
            parts.append(f"level={self.level}")
        if self.clamp_s is not None:
            parts.append(f"clamp={self.clamp_s}")
        return ";".join(parts)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image, as a blob in the store."""

    diff_id: DiffId
    descriptor: Descriptor


class LayerMaker:
    """Packs snapshots in the background. One per build and compression; a context manager.

    ``check`` is called after each layer; what it raises is the layer's failure.
    """

    def __init__(self, store: Store, options: LayerOptions, check: Callable[[], None] | None = None) -> None:
        self._store = store
        self._check = check
        self._options = options
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._wanted: set[str] = set()
        self._made: dict[str, Layer | BaseException] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False

    def __enter__(self) -> LayerMaker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def want(self, snapshot: str) -> None:
        """Make the layer of ``snapshot`` soon."""
        with self._lock:
            if snapshot in self._wanted or self._closed:
                return
            self._wanted.add(snapshot)
            known = self._known(snapshot)
            if known is not None:
                self._made[snapshot] = known
                return
            if len(self._threads) < WORKERS:
                thread = threading.Thread(target=self._work, name="layer", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue.put(snapshot)

    def layer(self, snapshot: str) -> Layer:
        """The layer of ``snapshot``, made now if need be. Raises StoreError."""
        self.want(snapshot)
        with self._lock:
            while snapshot not in self._made:
                self._lock.wait()
            made = self._made[snapshot]
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        """Finish what is being packed and stop; what only waits is dropped."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    def _known(self, snapshot: str) -> Layer | None:
        snapshots = self._store.snapshots
        found = snapshots.layer(snapshot, self._options.variant)
        info = snapshots.get(snapshot)
        if found is None and not self._options.force and info is not None and info.chain_id is not None:
            found = snapshots.any_layer(snapshot)
        if found is None or not self._store.blobs.has(found[1].digest):
            return None
        return Layer(*found)

    def _work(self) -> None:
        while True:
            snapshot = self._queue.get()
            if snapshot is None or self._closed:
                return
            made: Layer | BaseException
            try:
                made = pack_snapshot(self._store, snapshot, self._options)
                if self._check is not None:
                    self._check()
            except BaseException as error:  # noqa: BLE001 - raised in the thread that asks for the layer
                made = error
            with self._lock:
                self._made[snapshot] = made
                self._lock.notify_all()


def pack_snapshot(store: Store, snapshot: str, options: LayerOptions) -> Layer:
    """Pack what a snapshot changes, and remember the blob with it."""
    info = store.snapshots.get(snapshot)
    if info is None:
        raise StoreError(f"snapshot {snapshot} is gone", code="snapshot-missing")
    if (other := store.doc(SAME_LAYER, snapshot)) is not None:
        store.snapshots.share_layers(other.decode("ascii"), snapshot)
        known = store.snapshots.layer(snapshot, options.variant)
        if known is not None and store.blobs.has(known[1].digest):
            return Layer(*known)
    clamp_s = None if info.chain_id is not None else options.clamp_s
    with layer_changes(store.snapshots, snapshot) as (found, tree):
        packed = pack_changes(
            store.blobs,
            found,
            tree,
            compression=options.compression,
            level=options.level,
            clamp_s=clamp_s,
        )
    store.snapshots.set_layer(
        snapshot, compression=options.variant, diff_id=packed.diff_id, descriptor=packed.descriptor
    )
    return Layer(packed.diff_id, packed.descriptor)
