"""Pushing an image: blobs first (skipped, mounted or uploaded), then manifests from the leaves up
(REG-06)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from builder.errors import BlobMissing, InvalidValue
from builder.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest, parse_document
from builder.oci.reference import Reference
from builder.registry.client import RegistryClient
from builder.registry.parallel import each
from builder.registry.progress import Meter, OnTransfer, Stop
from builder.registry.upload import Uploader

MAX_INDEX_DEPTH = 4


class Source(Protocol):
    """Where blobs come from."""

    def has(self, digest: Digest, /) -> bool: ...

    def read(self, digest: Digest, limit: int, /) -> bytes: ...

    def open(self, digest: Digest, /) -> BinaryIO: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """What goes out: blobs in any order, then manifests in this order, the root last."""

    blobs: tuple[Descriptor, ...]
    manifests: tuple[tuple[Descriptor, bytes], ...]


def plan(root: Descriptor, source: Source) -> PushPlan:
    """Walk what ``root`` names. Raises BlobMissing when a manifest is not there; layers may be elsewhere."""
    blobs: dict[Digest, Descriptor] = {}
    manifests: dict[Digest, tuple[Descriptor, bytes]] = {}

    def visit(descriptor: Descriptor, depth: int) -> None:
        if depth > MAX_INDEX_DEPTH:
            raise InvalidValue(f"{root.digest}: indexes are nested too deeply")
        if descriptor.digest in manifests:
            return
        data = source.read(descriptor.digest, MAX_DOCUMENT_BYTES)
        document = parse_document(data, descriptor.media_type)
        if isinstance(document, Manifest):
            for blob in (document.config, *document.layers):
                if ".nondistributable." not in blob.media_type and ".foreign." not in blob.media_type:
                    blobs[blob.digest] = blob
        else:
            for child in document.manifests:
                if child.media_type in MANIFEST_TYPES or child.media_type in INDEX_TYPES:
                    visit(child, depth + 1)
                else:
                    blobs[child.digest] = child
        manifests[descriptor.digest] = (descriptor, data)

    visit(root, 0)
    return PushPlan(blobs=tuple(blobs.values()), manifests=tuple(manifests.values()))


def push(
    client: RegistryClient,
    ref: Reference,
    root: Descriptor,
    source: Source,
    *,
    by_digest: bool = False,
    mount_from: Callable[[Digest], Sequence[Reference]] = lambda _digest: (),
    bring: Callable[[Digest], None] = lambda _digest: None,
    on_transfer: OnTransfer | None = None,
) -> Descriptor:
    """Push ``root`` and all it names to ``ref``; returns ``root``. ``by_digest`` gives it no tag.

    ``mount_from`` says which repositories are known to hold a blob; those on the same registry are tried
    before an upload, so a blob that is not here can still be pushed (EXP-14). ``bring`` is asked to put one
    into ``source`` that has to be uploaded after all. Raises RegistryError, BlobMissing.
    """
    uploader = Uploader(client, client.places(ref, pull=False)[-1])
    outgoing = plan(root, source)
    stop = Stop()

    def one(blob: Descriptor) -> None:
        meter = Meter(str(blob.digest), blob.size, on_transfer)

        def moved(current: int) -> None:
            stop.check()
            meter.at(current)

        if uploader.has_blob(blob.digest):
            meter.finish("already exists")
            return
        for known in mount_from(blob.digest):
            if known.registry == ref.registry and known.repository != ref.repository:
                if uploader.mount(blob.digest, known.repository):
                    meter.finish(f"mounted from {known.repository}")
                    return
        if not source.has(blob.digest):
            bring(blob.digest)
        if not source.has(blob.digest):
            raise BlobMissing(
                f"cannot push {ref}: blob {blob.digest} is not here", hint="pull the base image first"
            )
        uploader.upload(blob, lambda: source.open(blob.digest), moved)
        meter.finish("pushed")

    each(one, outgoing.blobs, workers=client.config.max_transfers, stop=stop)
    for descriptor, data in outgoing.manifests:
        is_root = descriptor.digest == root.digest
        target = str(descriptor.digest) if by_digest or not is_root else (ref.tag or "latest")
        if is_root and ref.digest is not None and ref.tag is None:
            target = str(ref.digest)
        uploader.put_manifest(target, data, descriptor.media_type)
    return root
