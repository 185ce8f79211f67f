"""Blobs of a cache into the store, and stacks of them into snapshots (SLV-06, SLV-09, RCH-14).

Digests, sizes and diff ids are checked on the way; what does not fit is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from builder.cache.cacheconfig import CREATED_ANNOTATION, DESCRIPTION_ANNOTATION, DIFF_ID_ANNOTATION, time_ns
from builder.cache.cachegraph import Stack
from builder.cache.names import from_base36
from builder.cache.store import Store
from builder.cache.types import CacheRecord
from builder.errors import InvalidValue
from builder.exporter.steps import Steps
from builder.images.progress import transfers
from builder.images.unpacking import unpack_layers
from builder.llb.ops import ExecOp
from builder.oci.descriptor import Descriptor
from builder.oci.digest import DiffId, Digest, chain_ids
from builder.registry.parallel import each
from builder.registry.progress import Meter, OnTransfer, Stop
from builder.remotecache.backend import CacheImporter
from builder.solver.env import SolveEnv
from builder.solver.planning import Node, Nodes, record_parts

MAX_BLOB_BYTES = 1 << 40
_WORKERS = 4


class Fetcher:
    """Brings results of one import into the store of a build."""

    def __init__(self, importer: CacheImporter, env: SolveEnv) -> None:
        self._importer = importer
        self._env = env

    def record(self, node: Node, nodes: Nodes, stack: Stack, *, created_ns: int) -> CacheRecord:
        """The result of a step, put on record as if the step had run here. Raises PybuildError."""
        env = self._env
        snapshot = self.snapshot(stack, str(node.vertex.digest))
        outputs: list[str | None] = [snapshot]
        op = node.vertex.op
        if isinstance(op, ExecOp):
            root = next(mount for mount in op.mounts if mount.dest == "/")
            outputs = [None] * op.outputs
            outputs[root.output] = snapshot
        record = CacheRecord(
            key=node.key,
            op=node.op,
            outputs=tuple(outputs),
            name=node.vertex.name,
            created_ns=created_ns,
            parts=record_parts(node, nodes, {}),
        )
        env.store.records.save(record)
        return record

    def snapshot(self, stack: Stack, vertex: str) -> str:
        """The committed tree of a stack of layers, held by the build."""
        env = self._env
        diff_ids = tuple(_diff_id(layer) for layer in stack)
        steps = Steps(env.emit, vertex)
        bring(env.store, self._importer, stack, transfers(steps), env.cancel.check)
        snapshot = unpack_layers(env.store, stack, diff_ids, env.hold, env.emit, vertex=vertex)
        if snapshot is None:
            raise InvalidValue("a cached result without layers")
        _tell_origins(env.store, stack, diff_ids)
        return snapshot


def bring(
    store: Store,
    importer: CacheImporter,
    blobs: Sequence[Descriptor],
    on_transfer: OnTransfer | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Fetch the blobs that are not here, several at a time, each by one process. Raises PybuildError."""
    stop = Stop()

    def one(blob: Descriptor) -> None:
        if blob.size > MAX_BLOB_BYTES:
            raise InvalidValue(f"blob {blob.digest} is too large ({blob.size} > {MAX_BLOB_BYTES})")
        meter = Meter(str(blob.digest), blob.size, on_transfer)

        def moved(current: int) -> None:
            stop.check()
            check()
            meter.at(current)

        with store.lock(f"blob {blob.digest}"):
            if store.blobs.has(blob.digest):
                meter.finish("already exists")
                return
            with store.blobs.writer(expected=blob.digest, size=blob.size) as writer:
                importer.fetch(blob, writer, moved)
                writer.commit()
        meter.finish()

    missing = {blob.digest: blob for blob in blobs if not store.blobs.has(blob.digest)}
    each(one, tuple(missing.values()), workers=_WORKERS, stop=stop)


def _diff_id(layer: Descriptor) -> DiffId:
    text = dict(layer.annotations).get(DIFF_ID_ANNOTATION, "")
    if not text:
        raise InvalidValue(f"layer {layer.digest} of the cache has no diff id")
    return DiffId(Digest.parse(text))


def _tell_origins(store: Store, stack: Stack, diff_ids: tuple[DiffId, ...]) -> None:
    """Snapshots get the time and the name of the step that made them, so that images come out alike."""
    for layer, chain in zip(stack, chain_ids(diff_ids), strict=True):
        told = dict(layer.annotations)
        created_ns = time_ns(told.get(CREATED_ANNOTATION, ""))
        info = store.snapshots.by_chain(chain)
        if created_ns and info is not None and info.description.startswith("layer "):
            text = told.get(DESCRIPTION_ANNOTATION, "")[:1000]
            description = "".join(c if c.isprintable() else " " for c in text) or info.description
            store.db.run(
                "UPDATE snapshots SET created_ns=?, description=? WHERE id=?",
                (created_ns, description, from_base36(info.id)),
            )
