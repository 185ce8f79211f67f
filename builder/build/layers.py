"""Layers are made while later steps still run: every snapshot that an image needs is packed by a worker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from builder.build.bases import BaseLayers, Original
from builder.cache.differ import root_change
from builder.cache.estargz import TOC_ANNOTATION, Unsupported
from builder.cache.pack import PackedLayer, pack_changes, repack
from builder.cache.problems import translated
from builder.cache.restack import layer_changes, origin
from builder.cache.store import Store
from builder.cache.tree import View
from builder.cancelling import carried
from builder.errors import StoreError
from builder.exporter.types import OutputSpec
from builder.oci.descriptor import Descriptor, layer_compression
from builder.oci.digest import DiffId

WORKERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """How layers are made; ``level`` None is the default of the compression.

    ``force`` re-encodes layers that came with a base image too. ``clamp_s`` is the latest modification time
    that goes into a layer, in Unix seconds. ``buildkit`` leaves out what BuildKit's layers lose (LAY-01,
    LAY-05).
    """

    compression: str = "gzip"
    level: int | None = None
    force: bool = False
    clamp_s: int | None = None
    buildkit: bool = False

    @classmethod
    def of(cls, spec: OutputSpec) -> LayerOptions:
        """What an output asks for; times change only where it says so (RPR-02)."""
        return cls(
            compression=spec.compression,
            level=spec.compression_level,
            force=spec.force_compression,
            clamp_s=spec.epoch if spec.rewrite_timestamp else None,
            buildkit=spec.buildkit_layers,
        )

    @property
    def variant(self) -> str:
        """Under which name layers made so are kept."""
        parts = [self.compression]
        if self.level is not None:
            parts.append(f"level={self.level}")
        if self.clamp_s is not None:
            parts.append(f"clamp={self.clamp_s}")
        if self.buildkit:
            parts.append("buildkit")
        return ";".join(parts)

    @property
    def reencoded(self) -> str:
        """The same for layers that came with an image: it sorts behind the name of the one that came."""
        return f"~{self.compression}" if self.level is None else f"~{self.compression};level={self.level}"

    def fits(self, layer: Descriptor) -> bool:
        """Whether a layer that came with an image is already as asked for."""
        if self.level is not None:
            return False
        if self.compression == "estargz":
            return TOC_ANNOTATION in dict(layer.annotations)
        return layer_compression(layer.media_type) == self.compression


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image, as a blob in the store."""

    diff_id: DiffId
    descriptor: Descriptor


class LayerMaker:
    """Packs snapshots in the background. One per build and compression; a context manager.

    ``check`` is called after each layer; what it raises is the layer's failure. ``bases`` says which
    snapshots are layers of base images.
    """

    def __init__(
        self,
        store: Store,
        options: LayerOptions,
        check: Callable[[], None] | None = None,
        bases: BaseLayers | None = None,
    ) -> None:
        self.bases = bases
        self._origins: dict[str, str] = {}
        self._store = store
        self._check = check
        self._options = options
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._wanted: set[str] = set()
        self._made: dict[str, Layer | BaseException] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._working = carried(self._work)

    def __enter__(self) -> LayerMaker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def want(self, snapshot: str) -> None:
        """Make the layer of ``snapshot`` soon."""
        snapshot = self._origin(snapshot)
        with self._lock:
            if snapshot in self._wanted or self._closed:
                return
            self._wanted.add(snapshot)
            known = known_layer(self._store, snapshot, self._options, self._original(snapshot))
            if known is not None:
                self._made[snapshot] = known
                return
            if len(self._threads) < WORKERS:
                thread = threading.Thread(target=self._working, name="layer", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue.put(snapshot)

    def layer(self, snapshot: str) -> Layer:
        """The layer of ``snapshot``, made now if need be. Raises StoreError."""
        self.want(snapshot)
        snapshot = self._origin(snapshot)
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

    def _origin(self, snapshot: str) -> str:
        """The snapshot that has the layer: that of a merge is packed once, where it was made."""
        found = self._origins.get(snapshot)
        if found is None:
            found = snapshot if self._original(snapshot) is not None else origin(self._store, snapshot)
            self._origins[snapshot] = found
        return found

    def _original(self, snapshot: str) -> Original | None:
        return self.bases.original(snapshot) if self.bases is not None else None

    def _work(self) -> None:
        while True:
            snapshot = self._queue.get()
            if snapshot is None or self._closed:
                return
            made: Layer | BaseException
            try:
                made = pack_snapshot(self._store, snapshot, self._options, self._original(snapshot))
                if self._check is not None:
                    self._check()
            except BaseException as error:  # noqa: BLE001 - raised in the thread that asks for the layer
                made = error
            with self._lock:
                self._made[snapshot] = made
                self._lock.notify_all()


def known_layer(
    store: Store, snapshot: str, options: LayerOptions, original: Original | None = None
) -> Layer | None:
    """The layer of ``snapshot`` if it is here: an image's stays what it is unless ``options.force``."""
    snapshots = store.snapshots
    info = snapshots.get(snapshot)
    if original is None and (info is None or info.chain_id is None):
        found = snapshots.layer(snapshot, options.variant)
    else:
        found = original or snapshots.any_layer(snapshot)
        if options.force and found is not None and not options.fits(found[1]):
            found = snapshots.layer(snapshot, options.reencoded)
    if found is None or not store.blobs.has(found[1].digest):
        return None
    return Layer(*found)


def pack_snapshot(
    store: Store, snapshot: str, options: LayerOptions, original: Original | None = None
) -> Layer:
    """Pack what a snapshot changes, and remember the blob with it.

    ``original`` is the layer of the base image that it is the tree of.
    """
    own = snapshot if original is not None else origin(store, snapshot)
    if own != snapshot:
        made = known_layer(store, own, options) or pack_snapshot(store, own, options)
        store.snapshots.share_layers(own, snapshot)
        return made
    info = store.snapshots.get(snapshot)
    if info is None:
        raise StoreError(f"snapshot {snapshot} is gone", code="snapshot-missing")
    came = info.chain_id is not None or original is not None
    packed = _reencoded(store, snapshot, options, original) if came else None
    if packed is None:
        packed = _packed(store, snapshot, options, came=came)
    variant = options.reencoded if came else options.variant
    store.snapshots.set_layer(
        snapshot, compression=variant, diff_id=packed.diff_id, descriptor=packed.descriptor
    )
    return Layer(packed.diff_id, packed.descriptor)


def _packed(store: Store, snapshot: str, options: LayerOptions, *, came: bool) -> PackedLayer:
    """A layer from its tree; the times of one that ``came`` with an image stay.

    A diff that nobody has looked at is packed from the trees that it compares, whose roots do not count.
    """
    diff = (recipe := store.snapshots.recipe(snapshot)) is not None and recipe.kind == "diff"
    lowers = () if diff else store.snapshots.diff_dir(snapshot)[1]
    with (
        translated("pack a layer"),
        layer_changes(store.snapshots, snapshot) as (found, tree),
        View(lowers, userxattr=store.snapshots.userxattr) as below,
    ):
        return pack_changes(
            store.blobs,
            found if options.buildkit or diff else [*root_change(below, tree), *found],
            tree,
            compression=options.compression,
            level=options.level,
            clamp_s=None if came else options.clamp_s,
            user_xattrs=not options.buildkit,
        )


def _reencoded(
    store: Store, snapshot: str, options: LayerOptions, original: Original | None
) -> PackedLayer | None:
    """The layer that came with an image in another compression, its tar as it was; None without its blob."""
    found = original or store.snapshots.any_layer(snapshot)
    if found is None or not store.blobs.has(found[1].digest):
        return None
    try:
        with store.blobs.open(found[1].digest) as file:
            return repack(store.blobs, file, compression=options.compression, level=options.level)
    except Unsupported:
        return None
