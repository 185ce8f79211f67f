"""Reading OCI image layouts: a directory, or (through ``archive``) a tar of one (SOC-01).

What a layout says is checked like a registry's reply: documents are bounded, blobs verified when they are
copied.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from builder.cache.store import Store
from builder.errors import BlobMissing, InvalidValue, NoSuchImage
from builder.exporter.archive import NAME_ANNOTATION, REF_ANNOTATION, blob_name
from builder.images.resolve import ResolvedBase, resolved_from
from builder.images.select import choose, document, platform_manifest
from builder.oci.config import MAX_CONFIG_BYTES
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest
from builder.oci.platform import Platform, host_platform
from builder.oci.reference import Reference


class BlobTarget(Protocol):
    """Where blobs are copied to."""

    def has(self, digest: Digest) -> bool: ...
    def writer(
        self, *, expected: Digest | None = None, size: int | None = None
    ) -> AbstractContextManager[Any]: ...


class Layout:
    """An opened layout; ``open_member`` gives a file by its path, FileNotFoundError when there is none."""

    def __init__(self, name: str, open_member: Callable[[str], BinaryIO]) -> None:
        self.name = name
        self._open = open_member

    def index(self) -> tuple[Descriptor, ...]:
        """The entries of ``index.json``. Raises InvalidValue when this is no layout."""
        try:
            with self._open("index.json") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidValue(f"{self.name} is not an OCI image layout: it has no index.json") from error
        if len(data) > MAX_DOCUMENT_BYTES:
            raise InvalidValue(f"{self.name}: index.json is too large")
        return parse_layout_index(data, self.name)

    def find(self, ref_or_digest: str) -> Descriptor:
        """The entry that a tag, a full name or a digest means; "" is the only entry. Raises NoSuchImage."""
        entries = self.index()
        return find_entry(entries, ref_or_digest, self.name)

    def open_blob(self, digest: Digest) -> BinaryIO:
        """A blob's file, not verified. Raises BlobMissing."""
        try:
            return self._open(blob_name(digest))
        except FileNotFoundError as error:
            raise BlobMissing(f"{self.name}: blob {digest} is not in the layout") from error

    def copy(self, descriptor: Descriptor, target: BlobTarget) -> None:
        """Copy a blob, verified. Raises BlobMissing, DigestMismatch."""
        if target.has(descriptor.digest):
            return
        source = self.open_blob(descriptor.digest)
        with source, target.writer(expected=descriptor.digest, size=descriptor.size) as writer:
            while chunk := source.read(1 << 20):
                writer.write(chunk)
            writer.commit()


def parse_layout_index(data: bytes, name: str) -> tuple[Descriptor, ...]:
    """The entries of an ``index.json``. Raises InvalidValue."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{name}: index.json is not valid JSON: {error}") from error
    items = value.get("manifests") if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise InvalidValue(f"{name}: index.json has no list of manifests")
    return tuple(Descriptor.from_json(item) for item in items)


def find_entry(entries: tuple[Descriptor, ...], wanted: str, name: str) -> Descriptor:
    """See ``Layout.find``."""
    if wanted.startswith(("sha256:", "sha512:")):
        digest = Digest.parse(wanted)
        for entry in entries:
            if entry.digest == digest:
                return entry
        raise NoSuchImage(f"{name}: no image with digest {digest} in index.json")
    distinct = {entry.digest: entry for entry in entries}
    if not wanted:
        if len(distinct) == 1:
            return entries[0]
        latest = [entry for entry in entries if _matches(entry, "latest")]
        if latest:
            return latest[-1]
        raise NoSuchImage(f"{name} holds {len(distinct)} images", hint="say which: by tag or digest")
    for entry in reversed(entries):
        if _matches(entry, wanted):
            return entry
    raise NoSuchImage(f"{name}: no image called {wanted!r} in index.json", hint=_known(entries))


def _matches(entry: Descriptor, wanted: str) -> bool:
    annotations = dict(entry.annotations)
    tag, full = annotations.get(REF_ANNOTATION, ""), annotations.get(NAME_ANNOTATION, "")
    if wanted in (tag, full):
        return True
    try:
        ref = str(Reference.parse(wanted).with_default_tag())
    except InvalidValue:
        return False
    return ref == full or (":" in tag and str(_as_reference(tag) or "") == ref)


def _as_reference(text: str) -> Reference | None:
    try:
        return Reference.parse(text).with_default_tag()
    except InvalidValue:
        return None


def entry_name(entry: Descriptor) -> Reference | None:
    """The name that an entry itself gives to its image; a bare tag says no repository, so it is none."""
    annotations = dict(entry.annotations)
    full = annotations.get(NAME_ANNOTATION, "")
    if full:
        return _as_reference(full)
    tag = annotations.get(REF_ANNOTATION, "")
    return _as_reference(tag) if "/" in tag or ":" in tag else None


def _known(entries: tuple[Descriptor, ...]) -> str | None:
    names = [dict(entry.annotations).get(REF_ANNOTATION, "") for entry in entries]
    shown = sorted({name for name in names if name})[:8]
    return f"it has {', '.join(shown)}" if shown else None


@contextmanager
def open_layout(path: Path) -> Iterator[Layout]:
    """The layout in the directory ``path``. Raises InvalidValue."""
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidValue(f"cannot open image layout {path}: {error.strerror}") from error
    try:
        yield Layout(str(path), lambda name: _open_beneath(root, name))
    finally:
        os.close(root)


def _open_beneath(root: int, name: str) -> BinaryIO:
    """A regular file below a directory, no link followed on the way."""
    fd = os.dup(root)
    try:
        *parents, last = name.split("/")
        for parent in parents:
            inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = inner
        return open(
            os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=fd), "rb"
        )
    except (NotADirectoryError, FileNotFoundError) as error:
        raise FileNotFoundError(name) from error
    except OSError as error:
        raise InvalidValue(f"cannot read {name} of the layout: {error.strerror}") from error
    finally:
        os.close(fd)


def import_layout(
    store: Store, path: Path, ref_or_digest: str = "", *, platform: Platform | None = None
) -> ResolvedBase:
    """Bring manifest and config of a layout's image into the store; ``ensure_layers`` copies its layers.

    Raises InvalidValue, NoSuchImage, BlobMissing, DigestMismatch.
    """
    if not path.is_dir():
        from builder.images.loading import import_layout_tar

        return import_layout_tar(store, path, ref_or_digest, platform=platform)
    wanted = platform or host_platform()
    with open_layout(path) as layout:
        root = layout.find(ref_or_digest)
        descriptor = root
        for _ in range(4):
            _copy_document(layout, descriptor, store)
            found = document(store, descriptor)
            if isinstance(found, Manifest):
                if found.config.size > MAX_CONFIG_BYTES:
                    raise InvalidValue(f"{path}: image config of {found.config.size} bytes is too large")
                layout.copy(found.config, store.blobs)
                break
            descriptor = choose(found, wanted, str(path))
    chosen = platform_manifest(store, descriptor, wanted, str(path))
    return resolved_from(root, chosen, platform, "layout", path)


def _copy_document(layout: Layout, descriptor: Descriptor, store: Store) -> None:
    if descriptor.size > MAX_DOCUMENT_BYTES:
        raise InvalidValue(f"{layout.name}: manifest of {descriptor.size} bytes is too large")
    layout.copy(descriptor, store.blobs)
