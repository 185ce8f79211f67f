"""Cache mounts that travel with a cache (``mounts=true``, BET-07): as layer tars, restored where none is.

A mount that is in use, or that has content here already, is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from builder.cache.cacheconfig import CREATED_ANNOTATION, DIFF_ID_ANNOTATION, CacheMountBlob, time_text
from builder.cache.extract import apply
from builder.cache.pack import pack_layer
from builder.cache.store import Store
from builder.cache.treewriter import Writer
from builder.cache.types import Sharing
from builder.errors import Cancelled, DigestMismatch, PybuildError
from builder.llb.ops import EMPTY, ExecOp
from builder.remotecache.backend import CacheImporter
from builder.remotecache.fetching import bring
from builder.solver.env import SolveEnv
from builder.solver.progress import WarningEvent

Offered = Sequence[tuple[CacheImporter, str, Sequence[CacheMountBlob]]]
"""Imports, the steps in which they were read, and the mounts that they hold."""


def mount_names(ops: Iterable[ExecOp]) -> dict[str, Sharing]:
    """The cache mounts of steps that start out empty, with how they are shared."""
    return {
        mount.id or mount.dest: mount.sharing
        for op in ops
        for mount in op.mounts
        if mount.type == "cache" and mount.input == EMPTY
    }


def pack_mounts(
    store: Store, ops: Iterable[ExecOp], *, compression: str, level: int | None, warn: Callable[[str], None]
) -> tuple[CacheMountBlob, ...]:
    """The content of the steps' cache mounts as blobs in the store."""
    instances = {item.id: item for item in reversed(store.cache_mounts.list())}
    found = []
    for name in sorted(mount_names(ops)):
        instance = instances.get(name)
        if instance is None:
            continue
        if store.cache_mounts.in_use(instance.directory):
            warn(f"cache mount {name} is in use and stays out of the exported cache")
            continue
        with store.cache_mounts.acquire(name, "locked") as directory:
            packed = pack_layer(store.blobs, directory, compression=compression, level=level)
        annotations = (
            (DIFF_ID_ANNOTATION, str(packed.diff_id)),
            (CREATED_ANNOTATION, time_text(instance.last_used_ns)),
        )
        found.append(CacheMountBlob(id=name, descriptor=replace(packed.descriptor, annotations=annotations)))
    return tuple(found)


def fill_mounts(offered: Offered, ops: Iterable[ExecOp], env: SolveEnv) -> None:
    """See the solver's ``RemoteResults``."""
    known = {item.id for item in env.store.cache_mounts.list()}
    for name, sharing in mount_names(ops).items():
        if name in known:
            continue
        for importer, vertex, mounts in offered:
            blob = next((mount for mount in mounts if mount.id == name), None)
            if blob is None or not importer.mounts:
                continue
            try:
                bring(env.store, importer, (blob.descriptor,), check=env.cancel.check)
                fill = partial(_fill, env.store, blob)
                with env.store.cache_mounts.acquire(name, sharing, check=env.cancel.check, fill=fill):
                    break
            except Cancelled:
                raise
            except PybuildError as error:
                text = f"cache mount {name} in {importer.label} cannot be used: {error.message}"
                env.emit(WarningEvent(vertex=vertex, short=text))


def _fill(store: Store, mount: CacheMountBlob, directory: Path) -> None:
    wanted = dict(mount.descriptor.annotations).get(DIFF_ID_ANNOTATION, "")
    with store.blobs.open(mount.descriptor.digest) as blob, Writer(directory) as writer:
        result = apply(blob, writer, whiteouts=False, skip_devices=True)
    if str(result.diff_id) != wanted:
        raise DigestMismatch(f"it unpacks to {result.diff_id}, not to {wanted}")
