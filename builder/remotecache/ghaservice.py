"""The cache service of GitHub Actions in its two versions: entries that are reserved, filled and committed.

An entry never changes once it is committed. Version 1 is REST (``_apis/artifactcache``) and takes the bytes
itself; version 2 is Twirp and gives signed addresses of a block blob for both ways.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from builder.errors import RegistryError
from builder.oci.descriptor import Descriptor
from builder.registry.http import display_url
from builder.remotecache import azureblocks
from builder.remotecache.backend import OnBytes, Sink
from builder.remotecache.content import Content
from builder.remotecache.service import Call, Reply, Service
from builder.remotecache.sharedkey import VERSION as BLOB_VERSION

Pairs = tuple[tuple[str, str], ...]
VERSION = hashlib.sha256(b"|go-actionscache-1.0").hexdigest()
"""The version of entries that BuildKit writes: entries of another one are not seen."""
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A committed entry: the key that it was found by, and where its bytes are."""

    key: str
    url: str = field(repr=False)


class CacheService(Protocol):
    """Entries by key. All raise RegistryError."""

    def find(self, key: str) -> Entry | None:
        """The entry with this key, else the newest whose key begins with it."""
        ...

    def save(self, key: str, content: Content, on_bytes: OnBytes) -> bool:
        """Make an entry; False when somebody has made, or is making, one of this key."""
        ...


def read(service: Service, entry: Entry, limit: int) -> bytes:
    """The bytes of a small entry. Raises RegistryError."""
    return service.ask(lambda: _download(entry, ()), limit=limit).data


def fetch(service: Service, entry: Entry, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
    """The bytes of an entry that is a blob. Raises RegistryError, DigestMismatch."""
    service.fetch(lambda rest: _download(entry, rest), blob, sink, on_bytes)


def _download(entry: Entry, headers: Pairs) -> Call:
    """The address is signed: no token goes there."""
    return Call(method="GET", url=_checked(entry.url), headers=headers, follow=True)


class V1:
    """The REST service."""

    def __init__(self, service: Service, url: str, token: str) -> None:
        self._service = service
        self._url = f"{url}/_apis/artifactcache"
        self._token = token

    def find(self, key: str) -> Entry | None:
        """See ``CacheService``."""
        query = urlencode({"keys": key, "version": VERSION})
        reply = self._ask("GET", f"cache?{query}", ok=(200, 204))
        if reply.status == 204 or not reply.data:
            return None
        value = _json(reply)
        found = str(value.get("cacheKey") or "")
        return Entry(key=found, url=str(value.get("archiveLocation") or "")) if found else None

    def save(self, key: str, content: Content, on_bytes: OnBytes) -> bool:
        """See ``CacheService``."""
        wanted = {"key": key, "version": VERSION, "cacheSize": content.size}
        reply = self._ask("POST", "caches", value=wanted, ok=(200, 201, 400, 409))
        if reply.status in (400, 409):
            return _refused(reply)
        value = _json(reply)
        number = value.get("cacheId", value.get("cacheID"))
        if isinstance(number, bool) or not isinstance(number, int):
            raise RegistryError("the cache service gave no number for a reserved entry")
        done = 0
        for part in content.parts(_CHUNK_BYTES):
            self._patch(f"caches/{number}", part, _from(done, on_bytes))
            done += part.size
        self._ask("POST", f"caches/{number}", value={"size": content.size}, ok=(200, 201, 204))
        return True

    def _patch(self, path: str, part: Content, on_sent: OnBytes) -> None:
        span = f"bytes {part.start}-{part.start + part.size - 1}/*"
        headers = (("Content-Type", "application/octet-stream"), ("Content-Range", span))
        self._ask("PATCH", path, headers=headers, content=part, on_sent=on_sent, ok=(200, 201, 204))

    def _ask(
        self,
        method: str,
        path: str,
        *,
        value: dict[str, object] | None = None,
        headers: Pairs = (),
        content: Content | None = None,
        on_sent: OnBytes | None = None,
        ok: tuple[int, ...],
    ) -> Reply:
        if value is not None:
            content, headers = Content.of(json.dumps(value).encode()), (("Content-Type", "application/json"),)

        def call() -> Call:
            return Call(
                method=method,
                url=f"{self._url}/{path}",
                headers=(*headers, ("Accept", "application/json;api-version=6.0-preview.1")),
                authorization=f"Bearer {self._token}",
                body=content.body(on_sent) if content is not None else None,
            )

        return self._service.ask(call, ok=ok)


class V2:
    """The Twirp service."""

    def __init__(self, service: Service, url: str, token: str) -> None:
        self._service = service
        self._url = f"{url}/twirp/github.actions.results.api.v1.CacheService"
        self._token = token

    def find(self, key: str) -> Entry | None:
        """See ``CacheService``."""
        wanted = {"key": key, "restore_keys": [key], "version": VERSION}
        reply = self._ask("GetCacheEntryDownloadURL", wanted, ok=(200, 404))
        value = _json(reply)
        if reply.status == 404 or value.get("ok") is not True:
            return None
        url = str(value.get("signed_download_url") or "")
        return Entry(key=str(value.get("matched_key") or key), url=url)

    def save(self, key: str, content: Content, on_bytes: OnBytes) -> bool:
        """See ``CacheService``."""
        reply = self._ask("CreateCacheEntry", {"key": key, "version": VERSION}, ok=(200, 400, 409))
        if reply.status != 200:
            return _refused(reply)
        value = _json(reply)
        if value.get("ok") is not True:
            return False
        url = _checked(str(value.get("signed_upload_url") or ""))

        def put(query: Pairs, headers: Pairs, content: Content, on_sent: Callable[[int], None]) -> None:
            added = [f"{name}={quote(text, safe='')}" for name, text in query]
            target = "&".join((url if "?" in url else f"{url}?", *added)) if added else url
            fields = (
                *headers,
                ("Content-Type", "application/octet-stream"),
                ("x-ms-version", BLOB_VERSION),
            )
            self._service.ask(
                lambda: Call(method="PUT", url=target, headers=fields, body=content.body(on_sent)),
                ok=(200, 201),
            )

        azureblocks.write(put, content, on_bytes)
        wanted = {"key": key, "size_bytes": content.size, "version": VERSION}
        if _json(self._ask("FinalizeCacheEntryUpload", wanted, ok=(200,))).get("ok") is not True:
            raise RegistryError(f"the cache service did not commit {key}")
        return True

    def _ask(self, method: str, value: Mapping[str, object], *, ok: tuple[int, ...]) -> Reply:
        content = Content.of(json.dumps(value).encode())
        return self._service.ask(
            lambda: Call(
                method="POST",
                url=f"{self._url}/{method}",
                headers=(("Content-Type", "application/json"),),
                authorization=f"Bearer {self._token}",
                body=content.body(),
            ),
            ok=ok,
        )


def _refused(reply: Reply) -> bool:
    """False for an entry that exists. Raises RegistryError for every other refusal."""
    text = reply.data[:4000].decode("utf-8", "replace").lower()
    if reply.status == 409 or "alreadyexists" in text or "already exists" in text or "already_exists" in text:
        return False
    raise RegistryError(
        f"the cache service does not take an entry: {reply.code or 'bad request'}", status=400
    )


def _json(reply: Reply) -> dict[str, Any]:
    try:
        value = json.loads(reply.data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        if reply.status == 404:
            return {}
        raise RegistryError("the cache service's reply is not JSON", status=reply.status)
    return value


def _checked(url: str) -> str:
    """An address that the service gave. Raises RegistryError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        good = False
    if not good:
        raise RegistryError(f"the cache service gave no usable address: {display_url(url)!r:.200}")
    return url


def _from(start: int, on_bytes: OnBytes) -> OnBytes:
    return lambda sent: on_bytes(start + sent)
