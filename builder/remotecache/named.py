"""Caches in places that only know files by name: blobs by digest, the document by the cache's name.

Every layer carries its descriptor in the document (``config.to_bytes(details=True)``); there is no manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from builder.cache.cacheconfig import MAX_JSON_BYTES, CacheConfig
from builder.cache.cacheread import from_json
from builder.errors import InvalidValue
from builder.oci.descriptor import Descriptor
from builder.remotecache.backend import OnBytes, Say, Sink
from builder.remotecache.content import Content


class Files(Protocol):
    """A service that keeps files by name. All raise RegistryError."""

    def read(self, name: str, limit: int) -> bytes | None:
        """A small file; None when it is not there."""
        ...

    def fetch(self, name: str, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """The bytes of a blob."""
        ...

    def kept(self, name: str, size: int) -> bool:
        """Whether a file of this size is there, and will be for a while."""
        ...

    def write(self, name: str, content: Content, on_bytes: OnBytes) -> None:
        """Make or replace a file."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCache:
    """A cache among files; ``documents`` are the names under which it is written, the first one is read."""

    files: Files
    label: str
    name: str
    blobs: str
    documents: tuple[str, ...]
    mounts: bool = True
    workers: int = 4

    def load(self, say: Say) -> tuple[CacheConfig, ...]:  # noqa: ARG002 - nothing happens besides
        """The document, if there is one. Raises RegistryError, InvalidValue."""
        data = self.files.read(self.documents[0], MAX_JSON_BYTES)
        return () if data is None else (from_json(data, name=self.label),)

    def fetch(self, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """A blob, going on where a connection broke."""
        self.files.fetch(self._name(blob), blob, sink, on_bytes)

    def has(self, blob: Descriptor) -> bool:
        """A file of the right size is taken for the blob."""
        return self.files.kept(self._name(blob), blob.size)

    def put(self, blob: Descriptor, opener: Callable[[], BinaryIO], on_bytes: OnBytes) -> None:
        """Upload."""
        self.files.write(self._name(blob), Content.of_blob(blob, opener), on_bytes)

    def turn(self) -> AbstractContextManager[bool]:
        """Nobody can be kept out."""
        return nullcontext(False)

    def publish(self, config: CacheConfig, say: Say) -> None:
        """Write the document under each name."""
        content = Content.of(document(config))
        for name in self.documents:
            self.files.write(name, content, lambda _: None)
            say(f"writing manifest {name}")

    def _name(self, blob: Descriptor) -> str:
        return self.blobs + str(blob.digest)


def document(config: CacheConfig) -> bytes:
    """The document as such places keep it. Raises InvalidValue."""
    data = config.to_bytes(details=True)
    if len(data) > MAX_JSON_BYTES:
        raise InvalidValue(
            f"the cache document of {len(data)} bytes is larger than readers take ({MAX_JSON_BYTES})",
            hint="use mode=min, or export to another place",
        )
    return data
