"""``type=registry``: a cache under a reference of its own, or in the configs of an image (RCH-08)."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import BinaryIO

from builder.cache.cacheconfig import CacheConfig
from builder.errors import DigestMismatch, InvalidValue, NotFoundInRegistry, UsageError
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.reference import Reference
from builder.registry.client import RegistryClient, client_for
from builder.registry.hosts import HostConfig, RegistryConfig
from builder.registry.upload import Uploader
from builder.remotecache import documents
from builder.remotecache.backend import Access, OnBytes, Say, Sink
from builder.remotecache.documents import ManifestForm
from builder.remotecache.spec import CacheSpec


def importer(spec: CacheSpec, access: Access) -> RegistryCache:
    """Raises UsageError."""
    return RegistryCache(spec, access)


def exporter(spec: CacheSpec, access: Access) -> RegistryCache:
    """Raises UsageError."""
    ManifestForm.of(spec)
    return RegistryCache(spec, access)


class RegistryCache:
    """A reference of a registry that holds a cache."""

    name = "exporting cache to registry"
    workers = 1

    def __init__(self, spec: CacheSpec, access: Access) -> None:
        try:
            self._ref = Reference.parse(spec.needed("ref")).with_default_tag()
        except InvalidValue as error:
            raise UsageError(error.message, hint=error.hint) from error
        self.label = str(self._ref)
        self.mounts = spec.on("mounts", default=True)
        self._spec = spec
        # Other machines may hold the cache, and nothing may: a build does not wait long for it.
        config = replace(access.registry, retry_waits_s=access.registry.retry_waits_s[:1])
        if spec.on("registry.insecure"):
            config = insecure(config, self._ref.registry)
        self._config = config

    @property
    def _client(self) -> RegistryClient:
        return client_for(self._config)

    def load(self, say: Say) -> tuple[CacheConfig, ...]:
        """The cache document, or the inline caches of an image. Raises RegistryError, InvalidValue."""
        return documents.read(self, self.label, say)

    def manifest(self, wanted: Descriptor | None) -> tuple[Descriptor, bytes]:
        """See ``documents.Reader``."""
        ref = self._ref if wanted is None else self._ref.with_digest(wanted.digest)
        try:
            return self._client.manifest(ref)
        except NotFoundInRegistry as error:
            raise NotFoundInRegistry(
                f"{ref}: not found", request=error.request, status=error.status
            ) from error

    def small(self, blob: Descriptor) -> bytes:
        """See ``documents.Reader``."""
        sink = io.BytesIO()
        self._client.fetch_blob(self._ref, blob, sink)
        return sink.getvalue()

    def fetch(self, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """A blob, going on where a connection broke."""
        plain = replace(blob, urls=())  # a cache must not make us ask addresses of its choice
        self._client.fetch_blob(self._ref, plain, sink, on_bytes=on_bytes, verify=False)

    def has(self, blob: Descriptor) -> bool:
        """Whether the repository has it."""
        return self._uploader().has_blob(blob.digest)

    def put(self, blob: Descriptor, opener: Callable[[], BinaryIO], on_bytes: OnBytes) -> None:
        """Upload."""
        self._uploader().upload(blob, opener, on_bytes)

    def turn(self) -> AbstractContextManager[bool]:
        """Nobody can be kept out."""
        return nullcontext(False)

    def publish(self, config: CacheConfig, say: Say) -> Descriptor | None:
        """Upload the document, then the manifest under the tag."""
        uploader = self._uploader()
        form = ManifestForm.of(self._spec)

        def put(document: Descriptor, data: bytes, status: str) -> None:
            if not uploader.has_blob(document.digest):
                uploader.upload(document, lambda: io.BytesIO(data))
            say(status)

        descriptor, body = documents.write(config, form, put)
        if descriptor.digest != Digest.of(body):
            raise DigestMismatch("the manifest changed while it was written")
        target = str(self._ref.digest) if self._ref.digest is not None else (self._ref.tag or "latest")
        uploader.put_manifest(target, body, descriptor.media_type)
        say(documents.status_name(form, descriptor.digest))
        return descriptor

    def _uploader(self) -> Uploader:
        client = self._client
        return Uploader(client, client.places(self._ref, pull=False)[-1])


def insecure(config: RegistryConfig, registry: str) -> RegistryConfig:
    """``config`` with certificates of one registry unchecked, and http where https does not answer."""
    known = [host for host in config.hosts if host.prefix == registry]
    host = replace(known[0], insecure=True) if known else HostConfig(prefix=registry, insecure=True)
    return replace(config, hosts=(*(item for item in config.hosts if item.prefix != registry), host))
