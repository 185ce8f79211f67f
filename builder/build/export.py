"""Exports of a solved build: every output gets its layers and its own line of progress."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from builder.build.bases import note_built
from builder.build.layers import LayerMaker, LayerOptions
from builder.build.phases import Phase, phase
from builder.build.squash import squashed
from builder.cache.store import Store
from builder.exporter.run import VERTEX_NAMES, export
from builder.exporter.sources import Absent
from builder.exporter.steps import Steps
from builder.exporter.times import rfc3339
from builder.exporter.types import BuiltImage, ExportResult, LayerRef, OutputSpec
from builder.oci.digest import chain_ids
from builder.oci.platform import normalize
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
    beside: Callable[[], None] = lambda: None,
    explicit: bool = False,
    absent: Absent | None = None,
) -> list[ExportResult]:
    """Write every output in order; with ``squash`` one layer is added to the base.

    ``inline`` says what caches go into the configs of images. Pushes wait until all outputs are written; then
    ``beside`` runs at the same time (EXP-13). ``explicit`` says that the user named the platforms. ``absent``
    has the layers below the images that may not be here.

    Raises ExportError, StoreError, RegistryError, Cancelled.
    """
    exporting = _Exporting(
        store=store,
        images=images,
        makers=makers,
        registry=registry,
        emit=emit,
        stdout=stdout,
        squash=squash,
        inline=inline,
        explicit=explicit,
        absent=absent,
    )
    results: list[ExportResult] = []
    with ExitStack() as waiting:
        for number, spec in enumerate(outputs):
            cancel.check()
            again = sum(other.type == spec.type for other in outputs[:number])
            with ExitStack() as own:
                key = str(again) if again else ""
                step = own.enter_context(phase(VERTEX_NAMES[spec.type], emit, key=key))
                pushes = len(exporting.pushes)
                results.append(exporting.one(spec, step))
                if len(exporting.pushes) > pushes:
                    waiting.push(own.pop_all())
        cancel.check()
        _together(exporting.pushes, beside)
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exporting:
    """What all outputs of a build have in common; ``pushes`` are still to be made."""

    store: Store
    images: Sequence[BuiltImage]
    makers: Mapping[LayerOptions, LayerMaker]
    registry: RegistryConfig
    emit: OnEvent
    stdout: BinaryIO | None
    squash: bool
    inline: Callable[[Sequence[BuiltImage]], Sequence[str | None]]
    explicit: bool
    absent: Absent | None
    pushes: list[Callable[[], None]] = field(default_factory=list)

    def one(self, spec: OutputSpec, step: Phase) -> ExportResult:
        """Write one output."""
        ready: Sequence[BuiltImage] = self.images
        texts: Sequence[str | None] = ()
        if spec.type not in TREE_OUTPUTS:
            maker = self.makers[LayerOptions.of(spec)]
            ready = [replace(image, layers=_layers(self.store, maker, image, spec)) for image in self.images]
            if self.squash:
                ready = [squashed(self.store, image, spec) for image in ready]
            texts = self.inline(ready)
            if self.explicit:
                _compare_platforms(self.images, step, self.emit)
            _tell(spec, self.images, step, self.emit)
        result = export(
            self.store,
            ready,
            # Layers were packed with the epoch as their latest time, so there is nothing to rewrite.
            replace(spec, rewrite_timestamp=False),
            on_event=self.emit,
            vertex=step.digest,
            stdout=self.stdout,
            registry=self.registry,
            inline_cache=texts,
            later=self.pushes,
            absent=self.absent,
        )
        if spec.type == "image" and spec.unpack and spec.store:
            self._unpack(result, step)
        return result

    def _unpack(self, result: ExportResult, step: Phase) -> None:
        """Make the snapshots that a container of the image starts from."""
        from builder.images.unpacking import unpack

        steps = Steps(self.emit, step.digest)
        with self.store.hold() as hold:
            for name in result.names or (str(result.images[0].manifest.digest),):
                with steps.step(f"unpacking to {name}"):
                    for image in result.images:
                        unpack(self.store, image.manifest, hold)


def _together(pushes: Sequence[Callable[[], None]], beside: Callable[[], None]) -> None:
    """Run the pushes, one after the other, while ``beside`` runs; all come to their end before one's failure
    is raised."""
    if not pushes:
        beside()
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:
        running = pool.submit(contextvars.copy_context().run, beside)
        for push in pushes:
            push()
    running.result()


def _compare_platforms(images: Sequence[BuiltImage], step: Phase, emit: OnEvent) -> None:
    """Warn of an image that says to be for another platform than was asked for (EXP-13)."""
    for image in images:
        made, asked = normalize(image.config.platform), normalize(image.platform)
        if (made.os, made.architecture, made.variant) != (asked.os, asked.architecture, asked.variant):
            short = f'Requested platform "{asked}" does not match result platform "{made}"'
            emit(WarningEvent(vertex=step.digest, short=short))


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


def _layers(store: Store, maker: LayerMaker, image: BuiltImage, spec: OutputSpec) -> tuple[LayerRef, ...]:
    """The layers of an image, lowest first; those that came from another machine's cache are rewritten where
    times are to be (RPR-02).

    Their times are those of their snapshots, so that a cached build gives the same image again.
    """
    if image.snapshot is None:
        return image.below
    base_layers = len(image.config.diff_ids) - len(image.below)
    infos = list(reversed(store.snapshots.chain(image.snapshot)))
    for info in infos:
        maker.want(info.id)
    refs = list(image.below)
    clamp_s = LayerOptions.of(spec).clamp_s
    for number, info in enumerate(infos):
        layer = maker.layer(info.id)
        ref = LayerRef(
            diff_id=layer.diff_id,
            descriptor=layer.descriptor,
            base=number < base_layers,
            created=rfc3339(info.created_ns),
            created_by=info.description,
        )
        if clamp_s is not None and info.chain_id is not None:
            from builder.exporter.rewrite import rewrite_layers

            (ref,) = rewrite_layers(store, (ref,), clamp_s, level=spec.compression_level)
        refs.append(ref)
    if clamp_s is None and not (spec.buildkit_layers or image.below):  # else trees and layers are not alike
        chains = chain_ids(tuple(ref.diff_id for ref in refs))
        note_built(
            store, {chain: info.id for chain, info in zip(chains, infos, strict=True) if not info.chain_id}
        )
    return tuple(refs)
