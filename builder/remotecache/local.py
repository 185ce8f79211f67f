"""``type=local``: a cache in an OCI image layout on disk (RCH-09)."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from builder.cache.cacheconfig import CacheConfig
from builder.cancelling import pause
from builder.errors import DigestMismatch, ExportError, InvalidValue, NoSuchImage
from builder.exporter.archive import OCI_LAYOUT, REF_ANNOTATION, blob_name
from builder.images.layout import open_layout, parse_layout_index
from builder.oci.canonical import document_json
from builder.oci.descriptor import OCI_INDEX, Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest, parse_document
from builder.pipes import at_once
from builder.remotecache import documents
from builder.remotecache.backend import Access, OnBytes, Say, Sink
from builder.remotecache.documents import ManifestForm
from builder.remotecache.spec import CacheSpec

_CHUNK = 1 << 20
_POLL_S = 0.05


def importer(spec: CacheSpec, access: Access) -> LocalCache:  # noqa: ARG001 - every kind has this form
    """Raises UsageError."""
    return LocalCache(spec, spec.needed("src"), wanted=spec.attr("digest") or spec.attr("tag", "latest"))


def exporter(spec: CacheSpec, access: Access) -> LocalCache:  # noqa: ARG001 - every kind has this form
    """Raises UsageError."""
    ManifestForm.of(spec)
    return LocalCache(spec, spec.needed("dest"), wanted=spec.attr("tag", "latest"))


class LocalCache:
    """A directory with caches by tag."""

    name = "exporting cache to client directory"
    workers = 1

    def __init__(self, spec: CacheSpec, place: str, *, wanted: str) -> None:
        self._spec = spec
        self._root = Path(place)
        self._wanted = wanted
        self.label = f"local:{place}"
        self.mounts = spec.on("mounts", default=True)

    # --- reading

    def load(self, say: Say) -> tuple[CacheConfig, ...]:
        """The cache under the tag; nothing there is no failure. Raises InvalidValue, BlobMissing."""
        if not (self._root / "index.json").exists():
            return ()
        try:
            return documents.read(self, str(self._root), say)
        except NoSuchImage:
            return ()

    def manifest(self, wanted: Descriptor | None) -> tuple[Descriptor, bytes]:
        """See ``documents.Reader``."""
        if wanted is None:
            with open_layout(self._root) as layout:
                wanted = layout.find(self._wanted)
        if wanted.size > MAX_DOCUMENT_BYTES:
            raise InvalidValue(f"manifest {wanted.digest} of {wanted.size} bytes is too large")
        return wanted, self.small(wanted)

    def small(self, blob: Descriptor) -> bytes:
        """See ``documents.Reader``."""
        sink = io.BytesIO()
        self.fetch(blob, sink, lambda _: None)
        data = sink.getvalue()
        if Digest.of(data) != blob.digest:
            raise DigestMismatch(f"{self._root}: blob {blob.digest} is damaged")
        return data

    def fetch(self, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """A blob's bytes, at most as many as its descriptor says. Raises BlobMissing."""
        with open_layout(self._root) as layout:
            done = 0
            with layout.open_blob(blob.digest) as file:
                while done < blob.size and (chunk := file.read(min(_CHUNK, blob.size - done))):
                    sink.write(chunk)
                    done += len(chunk)
                    on_bytes(done)

    # --- writing

    def has(self, blob: Descriptor) -> bool:
        """A file of the right size is taken for the blob."""
        try:
            return (self._root / blob_name(blob.digest)).lstat().st_size == blob.size
        except OSError:
            return False

    def put(self, blob: Descriptor, opener: Callable[[], BinaryIO], on_bytes: OnBytes) -> None:
        """Copy, then rename."""
        with self._writing():
            path = self._root / blob_name(blob.digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            with _replaced(path) as target, opener() as source:
                shutil.copyfileobj(source, target, _CHUNK)
        on_bytes(blob.size)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Under the lock of the layout's index."""
        with self._writing():
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(self._root / "index.json.lock", flags, 0o644)
        try:
            with self._writing():
                while not _locked(lock):
                    pause(_POLL_S)
            yield True
        finally:
            os.close(lock)

    def publish(self, config: CacheConfig, say: Say) -> Descriptor | None:
        """Write document and manifest, name them in the index, and with ``reset`` drop all other blobs."""
        form = ManifestForm.of(self._spec)

        def put(document: Descriptor, data: bytes, status: str) -> None:
            self.put(document, lambda: io.BytesIO(data), lambda _: None)
            say(status)

        descriptor, body = documents.write(config, form, put)
        self.put(descriptor, lambda: io.BytesIO(body), lambda _: None)
        with self._writing():
            with _replaced(self._root / "oci-layout") as file:
                file.write(OCI_LAYOUT)
            entries = self._name(descriptor)
            if self._spec.on("reset"):
                self._sweep(entries)
        say(documents.status_name(form, descriptor.digest))
        return descriptor

    def _name(self, descriptor: Descriptor) -> list[Descriptor]:
        """Let the tag mean ``descriptor``."""
        named = replace(descriptor, annotations=((REF_ANNOTATION, self._wanted),))
        entries = [
            entry
            for entry in self._entries()
            if dict(entry.annotations).get(REF_ANNOTATION) != self._wanted
            and (entry.digest != named.digest or entry.annotations)
        ]
        entries.append(named)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX}
        value = {**index, "manifests": [entry.to_json() for entry in entries]}
        with _replaced(self._root / "index.json") as file:
            file.write(document_json(value))
        return entries

    def _entries(self) -> tuple[Descriptor, ...]:
        try:
            with open(self._root / "index.json", "rb", opener=at_once) as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            return ()
        if len(data) > MAX_DOCUMENT_BYTES:
            raise InvalidValue(f"{self._root}: index.json is too large")
        return parse_layout_index(data, str(self._root))

    def _sweep(self, entries: list[Descriptor]) -> None:
        """Remove the blobs that no entry of the index leads to; an entry that cannot be read keeps all."""
        kept: set[Digest] = set()
        for entry in entries:
            kept.add(entry.digest)
            document = parse_document(self.manifest(entry)[1], entry.media_type)
            if isinstance(document, Manifest):
                kept |= {document.config.digest, *(layer.digest for layer in document.layers)}
            else:
                kept |= {child.digest for child in document.manifests}
                if any(documents.is_manifest(child.media_type) for child in document.manifests):
                    return  # an image of several platforms: not ours to clean up
        for path in (self._root / "blobs").glob("*/*"):
            if f"{path.parent.name}:{path.name}" not in {str(digest) for digest in kept}:
                path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise ExportError(f"cannot write cache to {self._root}: {error.strerror}{where}") from error


def _locked(fd: int) -> bool:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` once it is written."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
