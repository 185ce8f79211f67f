"""Exports of a solved build: every output gets its layers and its own line of progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO

from builder.build.layers import LayerMaker, LayerOptions
from builder.build.phases import Phase, phase
from builder.build.squash import squashed
from builder.cache.store import Store
from builder.exporter.run import VERTEX_NAMES, export
from builder.exporter.times import rfc3339
from builder.exporter.types import BuiltImage, ExportResult, LayerRef, OutputSpec
from builder.registry.hosts import RegistryConfig
from builder.solver.cancel import Cancel
from builder.solver.progress import OnEvent, WarningEvent

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
    squash: bool = False,
    inline: Callable[[Sequence[BuiltImage]], Sequence[str | None]] = lambda _: (),
) -> list[ExportResult]:
    """Write every output in order; with ``squash`` one layer is added to the base.

    ``inline`` says what caches go into the configs of images.

    Raises ExportError, StoreError, RegistryError, Cancelled.
    """
    results: list[ExportResult] = []
    for spec in outputs:
        cancel.check()
        with phase(VERTEX_NAMES[spec.type], emit) as step:
            ready: Sequence[BuiltImage] = images
            texts: Sequence[str | None] = ()
            if spec.type not in TREE_OUTPUTS:
                maker = makers[LayerOptions.of(spec)]
                ready = [replace(image, layers=_layers(store, maker, image)) for image in images]
                if squash:
                    ready = [squashed(store, image, spec) for image in ready]
                texts = inline(ready)
                _tell(spec, images, step, emit)
            results.append(
                export(
                    store,
                    ready,
                    # Layers were packed with the epoch as their latest time, so there is nothing to rewrite.
                    replace(spec, rewrite_timestamp=False),
                    on_event=emit,
                    vertex=step.digest,
                    stdout=stdout,
                    registry=registry,
                    inline_cache=texts,
                )
            )
    return results


def _tell(spec: OutputSpec, images: Sequence[BuiltImage], step: Phase, emit: OnEvent) -> None:
    """What becomes of times (RPR-02) and, in docker's archives, of attestations (EXO-01)."""
    if spec.rewrite_timestamp and spec.epoch is not None:
        when = rfc3339(spec.epoch * 1_000_000_000)
        step.status(f"rewriting layers with source-date-epoch {spec.epoch} ({when})", done=True)
    notes = (note for image in images for note in image.attestations)
    if spec.type == "docker" and any(not note.inline_only for note in notes):
        emit(
            WarningEvent(vertex=step.digest, short="docker archives hold no attestations: they were left out")
        )


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
