"""One output of a build: chooses the exporter, assembles what it needs, names and pushes (EXP-01…EXP-13)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from builder.attest.types import Attestation
from builder.cache.store import Store
from builder.errors import ExportError, RegistryError
from builder.exporter import archive, destination
from builder.exporter.image import assemble, assemble_index, check_annotations
from builder.exporter.sources import Absent
from builder.exporter.steps import Steps
from builder.exporter.times import rfc3339
from builder.exporter.types import BuiltImage, ExportResult, ImageResult, LayerRef, OutputSpec
from builder.oci.canonical import compact_json
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.reference import Reference
from builder.registry.hosts import HostConfig, RegistryConfig
from builder.registry.progress import Transfer
from builder.solver.progress import OnEvent

VERTEX_NAMES = {
    "image": "exporting to image",
    "oci": "exporting to oci image format",
    "docker": "exporting to docker image format",
    "local": "exporting to client directory",
    "tar": "exporting to client tarball",
    "cacheonly": "exporting nothing",
}
_NO_REGISTRIES = RegistryConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """Images of a build and what stands for all of them."""

    root: Descriptor
    images: tuple[ImageResult, ...]
    indexed: bool


def export(
    store: Store,
    images: Sequence[BuiltImage],
    spec: OutputSpec,
    *,
    on_event: OnEvent | None = None,
    vertex: str = "",
    stdout: BinaryIO | None = None,
    registry: RegistryConfig = _NO_REGISTRIES,
    epoch: int | None = None,
    now_ns: int | None = None,
    inline_cache: Sequence[str | None] = (),
    later: list[Callable[[], None]] | None = None,
    absent: Absent | None = None,
) -> ExportResult:
    """Write ``images`` (one per platform, in the order asked for) to where ``spec`` says.

    ``epoch`` is the build's; the one of ``spec`` wins (RPR-01). ``inline_cache`` goes into the configs, in
    the order of ``images``. A push is put into ``later``, for when all else has gone well (EXP-13).
    ``absent`` has the layers that may not be in the store. Raises ExportError, UsageError, StoreError,
    RegistryError, SolveError.
    """
    import time

    if not images:
        raise ExportError("there is nothing to export")
    if len({image.platform for image in images}) < len(images):
        raise ExportError("unable to export multiple refs, missing platforms mapping")
    epoch = spec.epoch if spec.epoch is not None else epoch
    now_ns = time.time_ns() if now_ns is None else now_ns
    steps = Steps(on_event, vertex)
    if spec.type == "cacheonly":
        return ExportResult()
    if spec.type in ("local", "tar"):
        _export_tree(store, images, spec, steps, stdout, epoch)
        return ExportResult()
    names = _names(spec)
    made = assemble_all(
        store, images, spec, steps, epoch=epoch, now_ns=now_ns, inline_cache=inline_cache, names=names
    )
    if spec.type == "image":
        named = _name(store, made, spec, names, steps)
        if spec.push or spec.push_by_digest:
            push = partial(_push, store, made, spec, names, steps, registry, absent)
            push() if later is None else later.append(push)
    else:
        created = rfc3339(epoch * 1_000_000_000 if epoch is not None else now_ns)
        _export_archive(store, made, spec, names, steps, stdout, created)
        named = tuple(str(name) for name in names)
    return ExportResult(root=made.root, images=made.images, names=named, response=_response(made, named))


def assemble_all(
    store: Store,
    images: Sequence[BuiltImage],
    spec: OutputSpec,
    steps: Steps,
    *,
    epoch: int | None,
    now_ns: int,
    inline_cache: Sequence[str | None] = (),
    names: Sequence[Reference] = (),
) -> Assembled:
    """Configs, manifests and, for several platforms, attestations or where asked for, an index (EXP-05)."""
    attested, spec = _attested(images, spec)
    indexed = spec.indexed or len(images) > 1 or attested
    check_annotations(spec.annotations, [image.platform for image in images], indexed=indexed)
    made: list[ImageResult] = []
    for number, image in enumerate(images):
        layers = image.layers
        if spec.rewrite_timestamp and epoch is not None:
            layers = _rewrite(store, layers, epoch, spec, steps)
        with steps.step("exporting layers"):
            result = assemble(
                store,
                image.config,
                layers,
                oci=spec.oci_mediatypes,
                annotations=spec.annotations,
                epoch=epoch,
                base_history=image.base_history,
                now_ns=now_ns,
                inline_cache=inline_cache[number] if number < len(inline_cache) else None,
                nondist=spec.prefer_nondist,
            )
        steps.done(f"exporting manifest {result.manifest.digest}")
        steps.done(f"exporting config {result.config.digest}")
        made.append(result)
    if not indexed:
        return Assembled(root=made[0].manifest, images=tuple(made), indexed=False)
    notes: list[Descriptor] = []
    for image, result in zip(images, made, strict=True) if attested else ():
        if told := _told(image, spec):
            from builder.exporter.attestations import attestation_manifest

            note = attestation_manifest(store, result, told, names, artifact=spec.oci_artifact)
            steps.done(f"exporting attestation manifest {note.digest}")
            notes.append(note)
    root = assemble_index(
        store, made, oci=spec.oci_mediatypes, annotations=spec.annotations, attestations=notes
    )
    steps.done(f"exporting manifest list {root.digest}")
    return Assembled(root=root, images=tuple(made), indexed=True)


def _attested(images: Sequence[BuiltImage], spec: OutputSpec) -> tuple[bool, OutputSpec]:
    """Whether attestations go with the images, and what comes of the types; docker's archives have no place
    for them."""
    if spec.type == "docker" or not any(_told(image, spec) for image in images):
        return False, spec
    if spec.oci_if_attested:
        return True, replace(spec, oci_mediatypes=True)
    if not spec.oci_mediatypes:
        raise ExportError('cannot export attestations with "oci-mediatypes=false"')
    return True, spec


def _told(image: BuiltImage, spec: OutputSpec) -> tuple[Attestation, ...]:
    """The attestations of an image that this output wants."""
    return tuple(note for note in image.attestations if spec.attestation_inline or not note.inline_only)


def _rewrite(
    store: Store, layers: tuple[LayerRef, ...], epoch: int, spec: OutputSpec, steps: Steps
) -> tuple[LayerRef, ...]:
    from builder.exporter.rewrite import rewrite_layers

    with steps.step(f"rewriting layers with source-date-epoch {epoch} ({rfc3339(epoch * 1_000_000_000)})"):
        return rewrite_layers(store, layers, epoch, level=spec.compression_level)


def _names(spec: OutputSpec) -> tuple[Reference, ...]:
    """The names as references, ``latest`` filled in (EXO-05)."""
    return tuple(
        dict.fromkeys(Reference.parse(name).with_default_tag() for name in spec.names if name != "*")
    )


def _name(
    store: Store, made: Assembled, spec: OutputSpec, names: Sequence[Reference], steps: Steps
) -> tuple[str, ...]:
    """Put the image into the store under its names; without any it is dangling (EXP-12)."""
    shown = [str(name) for name in names]
    if spec.name_canonical:
        shown += [f"{name.name}@{made.root.digest}" for name in names]
    if spec.dangling_prefix and not (spec.dangling_empty_only and names):
        shown.append(f"{Reference.parse(spec.dangling_prefix).name}@{made.root.digest}")
    if not spec.store:
        return tuple(shown)
    if not shown:
        store.images.add(made.root)
    for text in shown:
        with steps.step(f"naming to {text}"):
            store.images.tag(text, made.root)
    return tuple(shown)


def _push(
    store: Store,
    made: Assembled,
    spec: OutputSpec,
    names: Sequence[Reference],
    steps: Steps,
    registry: RegistryConfig,
    absent: Absent | None,
) -> None:
    from builder.exporter.sources import mount_sources, record_source
    from builder.registry.client import client_for
    from builder.registry.push import push

    for name in names:
        config = _insecure(registry, name.registry) if spec.insecure else registry

        def moved(transfer: Transfer) -> None:
            steps.transfer(
                transfer.id,
                transfer.current,
                transfer.total,
                transfer.started_ns,
                done=transfer.done,
                note=transfer.note,
            )

        def bring(digest: Digest) -> None:
            if absent is not None:
                absent.bring(digest, steps)

        with steps.step("pushing layers"), _naming(name):
            push(
                client_for(config),
                name,
                made.root,
                store.blobs,
                by_digest=spec.push_by_digest,
                mount_from=lambda digest: mount_sources(store, digest, absent),
                bring=bring,
                on_transfer=moved,
            )
        for image in made.images:
            for blob in (image.config, *(layer.descriptor for layer in image.layers)):
                record_source(store, blob.digest, name)
        steps.done(f"pushing manifest for {name}@{made.root.digest}")


@contextmanager
def _naming(name: Reference) -> Iterator[None]:
    """Say what could not be pushed (REG-06)."""
    try:
        yield
    except RegistryError as error:
        error.context = (error.message, *error.context)
        error.message = f"failed to push {name}"
        error.args = (error.message,)
        raise


def _insecure(config: RegistryConfig, registry: str) -> RegistryConfig:
    known = [host for host in config.hosts if host.prefix == registry]
    host = replace(known[0], insecure=True) if known else HostConfig(prefix=registry, insecure=True)
    return replace(config, hosts=(*(item for item in config.hosts if item.prefix != registry), host))


def _export_archive(
    store: Store,
    made: Assembled,
    spec: OutputSpec,
    names: Sequence[Reference],
    steps: Steps,
    stdout: BinaryIO | None,
    created: str,
) -> None:
    root = archive.Root(descriptor=made.root, names=tuple(names), created=created)
    contents = archive.plan(store.blobs, (root,), docker=spec.type == "docker")
    if not spec.tar:
        with steps.step("copying files"):
            archive.write_directory(store.blobs, contents, Path(spec.dest), (root,))
        return
    total = sum(blob.size for blob in contents.blobs)
    with (
        steps.step("sending tarball", total) as moved,
        destination.opened(spec.dest, f"{spec.type} archive", stdout) as out,
    ):
        archive.write_tar(store.blobs, contents, out, on_bytes=moved)


def _export_tree(
    store: Store,
    images: Sequence[BuiltImage],
    spec: OutputSpec,
    steps: Steps,
    stdout: BinaryIO | None,
    epoch: int | None,
) -> None:
    from builder.exporter.trees import Tree, write_local, write_tar

    split = (spec.indexed or len(images) > 1) and spec.platform_split
    trees = [
        Tree(
            platform=image.platform,
            snapshot=image.snapshot,
            notes=_notes(store, image, spec, shared=not split and len(images) > 1),
        )
        for image in images
    ]
    if spec.type == "local":
        waiting = partial(steps.done, f"waiting for another build that writes to {spec.dest}")
        with steps.step("copying files"):
            write_local(
                store, trees, Path(spec.dest), split=split, mode=spec.mode, epoch=epoch, on_wait=waiting
            )
        return
    with steps.step("sending tarball"), destination.opened(spec.dest, "tar archive", stdout) as out:
        write_tar(store, trees, out, split=split, epoch=epoch)


def _notes(
    store: Store, image: BuiltImage, spec: OutputSpec, *, shared: bool
) -> tuple[tuple[str, bytes], ...]:
    """The attestations of a tree as files; in a directory that platforms share their names say which."""
    if not image.attestations:
        return ()
    from builder.exporter.attestations import tree_files
    from builder.exporter.trees import view_of

    with view_of(store, image.snapshot) as view:
        platform = str(image.platform) if shared else ""
        return tree_files(view, image.attestations, platform, prefix=spec.attestation_prefix)


def _response(made: Assembled, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The keys of EXP-04."""
    pairs = [("containerimage.digest", str(made.root.digest))]
    if not made.indexed:
        pairs.append(("containerimage.config.digest", str(made.images[0].config.digest)))
    document = compact_json(made.root.to_json())
    pairs.append(("containerimage.descriptor", base64.b64encode(document).decode("ascii")))
    if names:
        pairs.append(("image.name", ",".join(names)))
    return tuple(pairs)


def image_id(result: ExportResult) -> Digest | None:
    """The id of a single-platform image."""
    return result.images[0].config_digest if len(result.images) == 1 else None
