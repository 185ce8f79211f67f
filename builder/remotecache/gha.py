"""``type=gha``: a cache in the cache service of GitHub Actions (RCH-10).

Entries of the service never change, so the document is kept under numbered keys, ``KEY#1``, ``KEY#2`` and so
on; the newest counts. Each scope of the token (a branch and those below it) has a document of its own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import BinaryIO

from builder import cancelling
from builder.cache.cacheconfig import MAX_JSON_BYTES, CacheConfig
from builder.cache.cacheread import from_json
from builder.errors import RegistryError, Unauthorized, UsageError
from builder.oci.descriptor import Descriptor
from builder.remotecache import values
from builder.remotecache.backend import Access, OnBytes, Say, Sink
from builder.remotecache.content import Content
from builder.remotecache.ghalist import Listing
from builder.remotecache.ghaservice import V1, V2, CacheService, fetch, read
from builder.remotecache.ghatoken import Scopes, scopes_of
from builder.remotecache.named import document
from builder.remotecache.service import Service
from builder.remotecache.spec import CacheSpec

_HOSTED_V2 = "results-receiver.actions.githubusercontent.com"
_PATIENCE_S = 15.0
"""How long a reserved number that nobody commits is waited for."""


def importer(spec: CacheSpec, access: Access) -> ActionsCache:
    """Raises UsageError."""
    return _cache(spec, access, exporting=False)


def exporter(spec: CacheSpec, access: Access) -> ActionsCache:
    """Raises UsageError."""
    return _cache(spec, access, exporting=True)


def _cache(spec: CacheSpec, access: Access, *, exporting: bool) -> ActionsCache:
    token = spec.attr("token")
    if not token:
        raise UsageError(
            "token not set for github actions cache",
            hint="give $ACTIONS_RUNTIME_TOKEN, which only actions of a workflow see by themselves",
        )
    version, url = _address(spec)
    timeout_s = values.seconds(spec, "timeout", 600)
    rest_token = spec.attr("ghtoken")
    service = Service(
        access.registry,
        deadline_s=max(timeout_s, 0.001),
        secrets=(token, rest_token),
        hint="the token may have ended with its job, or not allow to write",
    )
    listing = None
    if exporting and rest_token and spec.attr("repository"):
        api = values.base_url(spec, "api_url", spec.attr("api_url", "https://api.github.com"))
        listing = Listing(service, api, spec.attr("repository"), rest_token)
    scope = spec.attr("scope", "buildkit")
    return ActionsCache(
        service=service,
        entries=(V2 if version == 2 else V1)(service, url, token),
        scope=scope,
        token=token,
        timeout_s=timeout_s,
        listing=listing,
        exporting=exporting,
        label=f"gha:{scope}",
        mounts=spec.on("mounts", default=True),
    )


def _address(spec: CacheSpec) -> tuple[int, str]:
    """Which version of the service is spoken, and where it is. Raises UsageError."""
    text = spec.attr("version")
    if text not in ("", "1", "2"):
        raise UsageError(f"failed to parse api version {text!r:.40}, expected 1 or 2")
    version = int(text or 0)
    if version != 1 and spec.attr("url_v2"):
        return 2, values.base_url(spec, "url_v2", spec.attr("url_v2"))
    if not spec.attr("url"):
        raise UsageError(
            "url not set for github actions cache",
            hint="$ACTIONS_CACHE_URL, or $ACTIONS_RESULTS_URL where $ACTIONS_CACHE_SERVICE_V2 is true",
        )
    url = values.base_url(spec, "url", spec.attr("url"))
    return version or (2 if _HOSTED_V2 in url else 1), url


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionsCache:
    """What one token can see of the service, under one name (``scope``)."""

    service: Service
    entries: CacheService
    scope: str
    token: str = field(repr=False)
    timeout_s: float
    listing: Listing | None
    exporting: bool
    label: str
    mounts: bool
    name: str = "exporting cache to GitHub Actions Cache"
    workers: int = 4

    def load(self, say: Say) -> tuple[CacheConfig, ...]:  # noqa: ARG002 - nothing happens besides
        """The documents of all scopes that may be read, or of the one to be written to. Raises RegistryError,
        InvalidValue.
        """
        scopes = scopes_of(self.token)
        wanted = (self._written(scopes),) if self.exporting else scopes.readable
        found = []
        for scope in dict.fromkeys(wanted):
            entry = self.entries.find(self._index(scope) + "#")
            if entry is not None and self._number(scope, entry.key):
                data = read(self.service, entry, MAX_JSON_BYTES)
                found.append(from_json(data, name=self.label))
        return tuple(found)

    def fetch(self, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """A blob, going on where a connection broke."""
        entry = self.entries.find(_blob_key(blob))
        if entry is None or entry.key != _blob_key(blob):
            raise RegistryError(f"blob {blob.digest} not found in {self.label}", status=404)
        fetch(self.service, entry, blob, sink, on_bytes)

    def has(self, blob: Descriptor) -> bool:
        """Whether there is an entry for the blob. Raises Unauthorized when none could be made."""
        key, scopes = _blob_key(blob), scopes_of(self.token)
        self._written(scopes)  # who may not write need not begin
        listed = self.listing.keys(scopes.readable) if self.listing is not None else None
        if listed is not None:
            return key in listed
        entry = self.entries.find(key)
        return entry is not None and entry.key == key

    def put(self, blob: Descriptor, opener: Callable[[], BinaryIO], on_bytes: OnBytes) -> None:
        """Upload; an entry that somebody else is making is as good."""
        self.entries.save(_blob_key(blob), Content.of_blob(blob, opener), on_bytes)

    def turn(self) -> AbstractContextManager[bool]:
        """Nobody can be kept out."""
        return nullcontext(False)

    def publish(self, config: CacheConfig, say: Say) -> None:
        """Write the document under the next number."""
        scope = self._written(scopes_of(self.token))
        content = Content.of(document(config))
        patience_s = min(_PATIENCE_S, self.timeout_s / 2)
        began, skipped = time.monotonic(), 0
        while True:
            entry = self.entries.find(self._index(scope) + "#")
            number = (self._number(scope, entry.key) if entry is not None else 0) + 1 + skipped
            if self.entries.save(f"{self._index(scope)}#{number}", content, lambda _: None):
                say(f"writing manifest {self._index(scope)}#{number}")
                return
            waited = time.monotonic() - began
            if waited > self.timeout_s or skipped > 100:
                raise RegistryError(f"{self.label}: others write the index all the time", hint="try again")
            if waited > patience_s:
                skipped += 1  # whoever reserved it is gone
            else:
                cancelling.pause(patience_s / 10)

    def _written(self, scopes: Scopes) -> str:
        if not scopes.writable:
            raise Unauthorized(
                f"the token may not write to {self.label}", hint="workflows of forks may only import"
            )
        return scopes.writable

    def _index(self, scope: str) -> str:
        return f"index-{self.scope}-1-{hashlib.sha256(scope.encode()).hexdigest()[:8]}"

    def _number(self, scope: str, key: str) -> int:
        """The number of a document's key; 0 for a key that is none."""
        before, _, text = key.rpartition("#")
        good = before == self._index(scope) and text.isascii() and text.isdigit() and len(text) < 12
        return int(text) if good else 0


def _blob_key(blob: Descriptor) -> str:
    return f"buildkit-blob-1-{blob.digest}"
