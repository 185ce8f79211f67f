"""``save``: images of the store as one archive (IC-SAVE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

from builder.cache.store import Store
from builder.cache.types import StoredImage
from builder.errors import InvalidValue, UsageError
from builder.exporter import archive, destination
from builder.exporter.archive import Root
from builder.images.select import find, portable_root
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.oci.reference import Reference

Format = Literal["docker", "oci"]


def save(
    store: Store,
    refs: Sequence[str],
    out: BinaryIO | Path,
    format: Format = "docker",  # noqa: A002 - what the flag is called
    *,
    platform: Platform | None = None,
) -> None:
    """Write the images that ``refs`` name to a stream or a file, as docker's archive or as an OCI layout.

    A name without tag saves all tags of its repository; an id saves no name. A directory that exists (``oci``
    only) is added to. Raises NoSuchImage, UsageError for a terminal, BlobMissing, ExportError.
    """
    if not refs:
        raise UsageError("save needs at least one image")
    with store.hold() as hold:
        roots = _roots(store, refs, platform)
        for root in roots:
            hold.blob(root.descriptor.digest)
        contents = archive.plan(store.blobs, roots, docker=format == "docker")
        if isinstance(out, Path) and out.is_dir() and format == "oci":
            archive.write_directory(store.blobs, contents, out, roots)
        elif isinstance(out, Path):
            with destination.opened(str(out), "image archive", None) as file:
                archive.write_tar(store.blobs, contents, file)
        else:
            with destination.opened("-", "image archive", out) as file:
                archive.write_tar(store.blobs, contents, file)
    for root in roots:
        store.events.add("image", "save", str(root.descriptor.digest), {})


def _roots(store: Store, refs: Sequence[str], platform: Platform | None) -> tuple[Root, ...]:
    """Every image once, with all the names that were asked for."""
    names: dict[Digest, list[Reference]] = {}
    descriptors: dict[Digest, Descriptor] = {}
    for text in refs:
        for image, asked in _matching(store, text):
            root = portable_root(store, image, platform, text)
            descriptors[root.digest] = replace(root, annotations=(), platform=None)
            known = names.setdefault(root.digest, [])
            known.extend(name for name in asked if name not in known)
    return tuple(Root(descriptor=descriptors[digest], names=tuple(names[digest])) for digest in descriptors)


def _matching(store: Store, text: str) -> list[tuple[StoredImage, list[Reference]]]:
    repository = _repository(text)
    if repository is not None:
        found = []
        for image in store.images.list():
            own = [name for name in map(Reference.parse, image.names) if name.name == repository]
            if own:
                found.append((image, own))
        if found:
            return found
    image = find(store, text)
    try:
        ref = Reference.parse(text).with_default_tag()
    except InvalidValue:
        return [(image, [])]  # an id
    return [(image, [ref] if str(ref) in image.names else [])]


def _repository(text: str) -> str | None:
    """The repository that a name without tag and digest means."""
    try:
        ref = Reference.parse(text)
    except InvalidValue:
        return None
    return ref.name if ref.tag is None and ref.digest is None else None
