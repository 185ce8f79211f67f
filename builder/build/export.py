"""Exports of a solved build: every output gets its layers and its own line of progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO

from builder.build.layers import LayerMaker, LayerOptions
from builder.build.phases import phase
from builder.cache.store import Store
from builder.exporter.run import VERTEX_NAMES, export
from builder.exporter.times import rfc3339
from builder.exporter.types import BuiltImage, ExportResult, LayerRef, OutputSpec
from builder.registry.hosts import RegistryConfig
from builder.solver.cancel import Cancel
from builder.solver.progress import OnEvent

TREE_OUTPUTS = frozenset({"local", "tar", "cacheonly"})


def export_all(
    store: Store,
    images: Sequence[BuiltImage],
    outputs: Sequence[OutputSpec],
    makers: Mapping[LayerOptions, LayerMaker],
    *,
    registry: RegistryConfig,
    emit: OnEvent,
    cancel: Cancel,
    stdout: BinaryIO | None,
) -> list[ExportResult]:
    """Write every output in order. Raises ExportError, StoreError, RegistryError, Cancelled."""
    results: list[ExportResult] = []
    for spec in outputs:
        cancel.check()
        with phase(VERTEX_NAMES[spec.type], emit) as step:
            ready: Sequence[BuiltImage] = images
            if spec.type not in TREE_OUTPUTS:
                maker = makers[LayerOptions.of(spec)]
                ready = [replace(image, layers=_layers(store, maker, image)) for image in images]
            results.append(
                export(
                    store,
                    ready,
                    # Layers are packed with the epoch as their latest time, so there is nothing to rewrite.
                    replace(spec, rewrite_timestamp=False),
                    on_event=emit,
                    vertex=step.digest,
                    stdout=stdout,
                    registry=registry,
                )
            )
    return results


def _layers(store: Store, maker: LayerMaker, image: BuiltImage) -> tuple[LayerRef, ...]:
    """The layers of an image, lowest first.

    Their times are those of their snapshots, so that a cached build gives the same image again.
    """
    if image.snapshot is None:
        return ()
    base_layers = len(image.config.diff_ids)
    infos = list(reversed(store.snapshots.chain(image.snapshot)))
    for info in infos:
        maker.want(info.id)
    refs = []
    for number, info in enumerate(infos):
        layer = maker.layer(info.id)
        refs.append(
            LayerRef(
                diff_id=layer.diff_id,
                descriptor=layer.descriptor,
                base=number < base_layers,
                created=rfc3339(info.created_ns),
                created_by=info.description,
            )
        )
    return tuple(refs)
