"""Attestations published: beside an image's manifest in its index, or as files of a tree (ATT-02, EXL-04)."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence

from builder.attest.statement import MEDIA_TYPE, PREDICATE_ANNOTATION, image_subjects, statement
from builder.attest.types import MAX_BYTES, Attestation, Subject
from builder.cache.tree import View
from builder.errors import ExportError
from builder.exporter.image import HasBlobs
from builder.exporter.types import ImageResult
from builder.oci.canonical import compact_json
from builder.oci.descriptor import OCI_CONFIG, OCI_MANIFEST, Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import Manifest
from builder.oci.platform import Platform
from builder.oci.reference import Reference

ARTIFACT_TYPE = "application/vnd.docker.attestation.manifest.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
UNKNOWN = Platform("unknown", "unknown")
Statements = tuple[tuple[str, bytes], ...]
"""Predicate type and document."""


def attestation_manifest(
    store: HasBlobs,
    image: ImageResult,
    attestations: Sequence[Attestation],
    names: Sequence[Reference],
    *,
    artifact: bool,
) -> Descriptor:
    """Put the statements about ``image`` and their manifest into the store; gives its entry in the index.

    ``artifact`` makes it an OCI artifact that refers to the image, else it has the form of an image. Raises
    ExportError when the statements are too large.
    """
    subjects = image_subjects(names, image.platform, image.manifest.digest)
    layers = [layer.descriptor for layer in image.layers]
    statements = tuple(
        (
            item.predicate_type,
            statement(item.predicate_type, item.predicate(layers), item.subjects or subjects),
        )
        for item in attestations
    )
    check_size(len(data) for _, data in statements)
    config = EMPTY if artifact else _image_config(statements)
    manifest = Manifest(
        config=Descriptor(
            media_type=EMPTY_TYPE if artifact else OCI_CONFIG,
            digest=Digest.of(config),
            size=len(config),
            data=base64.b64encode(EMPTY).decode() if artifact else "",
        ),
        layers=tuple(
            Descriptor(
                media_type=MEDIA_TYPE,
                digest=Digest.of(data),
                size=len(data),
                annotations=((PREDICATE_ANNOTATION, kind),),
            )
            for kind, data in statements
        ),
        artifact_type=ARTIFACT_TYPE if artifact else "",
        subject=_plain(image.manifest) if artifact else None,
    )
    document = manifest.to_bytes()
    store.blobs.put_many((config, *(data for _, data in statements), document))
    return Descriptor(
        media_type=OCI_MANIFEST,
        digest=Digest.of(document),
        size=len(document),
        platform=UNKNOWN,
        annotations=(
            ("vnd.docker.reference.digest", str(image.manifest.digest)),
            ("vnd.docker.reference.type", "attestation-manifest"),
        ),
        artifact_type=ARTIFACT_TYPE if artifact else "",
    )


def check_size(sizes: Iterable[int]) -> None:
    """Raise ExportError when statements of these sizes are more than may be attached (ATT-11)."""
    total = sum(sizes)
    if total > MAX_BYTES:
        raise ExportError(f"attestations of {total} bytes are larger than the limit of {MAX_BYTES} bytes")


def _plain(descriptor: Descriptor) -> Descriptor:
    return Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)


def _image_config(statements: Statements) -> bytes:
    return compact_json(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(data)) for _, data in statements]},
        }
    )


def tree_files(
    view: View, attestations: Sequence[Attestation], platform: str, *, prefix: str
) -> tuple[tuple[str, bytes], ...]:
    """Names and documents of the statements about the files of a tree.

    ``platform`` goes into the names, "" = not. A name that the tree has is ExportError.
    """
    wanted = [item for item in attestations if not item.inline_only]
    if not wanted:
        return ()
    subjects = _file_subjects(view)
    found: list[tuple[str, bytes]] = []
    for item in wanted:
        name = prefix + item.name
        if platform:
            stem, dot, extension = name.rpartition(".")
            name = f"{stem}.{platform.replace('/', '_')}{dot}{extension}" if dot else f"{name}.{platform}"
        if "/" in name or view.lstat(name) is not None or name in dict(found):
            raise ExportError(
                f"cannot write the attestation {name}: the result has a file of that name",
                hint="give attestation-prefix=… to the output",
            )
        found.append((name, statement(item.predicate_type, item.predicate(()), item.subjects or subjects)))
    check_size(len(data) for _, data in found)
    return tuple(found)


def _file_subjects(view: View) -> tuple[Subject, ...]:
    """Every regular file of a tree."""
    found: list[Subject] = []
    for path, st in view.walk() if view.layers else ():
        if stat.S_ISREG(st.st_mode):
            fd = view.open(path)
            with os.fdopen(fd, "rb") as file:
                value = hashlib.file_digest(file, "sha256").hexdigest()
            found.append(Subject(name=path, digest=(("sha256", value),)))
    return tuple(found)
