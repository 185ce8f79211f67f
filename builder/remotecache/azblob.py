"""``type=azblob``: a cache in a container of Azure Blob Storage (RCH-12)."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from builder.errors import UsageError
from builder.oci.descriptor import Descriptor
from builder.remotecache import azureblocks, values
from builder.remotecache.backend import Access, OnBytes, Sink
from builder.remotecache.content import Content
from builder.remotecache.named import NamedCache
from builder.remotecache.service import Call, Reply, Service
from builder.remotecache.sharedkey import authorization, dated
from builder.remotecache.spec import CacheSpec

Pairs = tuple[tuple[str, str], ...]
_NOTHING = Content.of(b"")


def importer(spec: CacheSpec, access: Access) -> NamedCache:
    """The cache to read from and to write to. Raises UsageError."""
    text = spec.attr("account_url")
    if not text:
        raise UsageError(
            "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for"
            " azblob cache"
        )
    url = values.base_url(spec, "account_url", text)
    account = spec.attr("account_name") or (urlsplit(url).hostname or "").partition(".")[0]
    container = values.path_part(spec, "container", "buildkit-cache")
    if not container or "/" in container:
        raise UsageError(f"azblob cache: {container!r:.80} cannot be a container")
    secret = spec.attr("secret_access_key")
    service = Service(
        access.registry,
        secrets=(secret,),
        hint="give account_name and secret_access_key, a key of the storage account",
    )
    prefix = values.path_part(spec, "prefix")
    documents = values.path_part(spec, "manifests_prefix", "manifests")
    names = tuple(
        values.checked_name(_joined(prefix, documents, name), "azblob cache: name")
        for name in values.names(spec)
    )
    return NamedCache(
        files=Container(service, f"{url}/{quote(container)}", account, _key(secret)),
        label=f"azblob:{container}/{names[0]}",
        name="exporting cache to Azure Blob Storage",
        blobs=_joined(prefix, values.path_part(spec, "blobs_prefix", "blobs"), ""),
        documents=names,
        mounts=spec.on("mounts", default=True),
    )


exporter = importer


def _joined(*parts: str) -> str:
    """With one slash between those that are not empty; the last part may be."""
    inner = [part.strip("/") for part in parts[:-1]]
    return "/".join((*(part for part in inner if part), parts[-1]))


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("azblob cache: secret_access_key is not base64") from None


class Container:
    """The blobs of a container, which is made by the first write that misses it. Without a key requests are
    not signed: a container that all may read can be imported from.
    """

    def __init__(self, service: Service, url: str, account: str, key: bytes) -> None:
        self._service = service
        self._url = url
        self._account = account
        self._key = key
        self._lock = threading.Lock()
        self._made = False

    def read(self, name: str, limit: int) -> bytes | None:
        """See ``Files``."""
        reply = self._ask("GET", name, ok=(200, 404), limit=limit)
        return reply.data if reply.status == 200 else None

    def fetch(self, name: str, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """See ``Files``."""
        self._service.fetch(lambda rest: self._call("GET", name, headers=rest), blob, sink, on_bytes)

    def kept(self, name: str, size: int) -> bool:
        """See ``Files``."""
        reply = self._ask("HEAD", name, ok=(200, 404))
        return reply.status == 200 and reply.header("Content-Length") == str(size)

    def write(self, name: str, content: Content, on_bytes: OnBytes) -> None:
        """See ``Files``."""
        self._make()

        def put(query: Pairs, headers: Pairs, content: Content, on_sent: Callable[[int], None]) -> None:
            self._ask("PUT", name, query=query, headers=headers, content=content, on_sent=on_sent, ok=(201,))

        azureblocks.write(put, content, on_bytes)

    def _make(self) -> None:
        with self._lock:
            if self._made:
                return
            whole = (("restype", "container"),)
            if self._ask("HEAD", "", query=whole, ok=(200, 404)).status == 404:
                self._ask("PUT", "", query=whole, ok=(201, 409))  # 409: somebody else was faster
            self._made = True

    def _ask(
        self,
        method: str,
        name: str,
        *,
        query: Pairs = (),
        headers: Pairs = (),
        content: Content = _NOTHING,
        on_sent: OnBytes | None = None,
        ok: tuple[int, ...] = (200,),
        limit: int = 256 * 1024,
    ) -> Reply:
        def call() -> Call:
            return self._call(method, name, query=query, headers=headers, content=content, on_sent=on_sent)

        return self._service.ask(call, ok=ok, limit=limit)

    def _call(
        self,
        method: str,
        name: str,
        *,
        query: Pairs = (),
        headers: Pairs = (),
        content: Content = _NOTHING,
        on_sent: OnBytes | None = None,
    ) -> Call:
        url = f"{self._url}/{quote(name, safe='/-_.~')}" if name else self._url
        if query:
            url += "?" + "&".join(f"{key}={quote(value, safe='-_.~')}" for key, value in query)
        if content.size:
            headers = (*headers, ("Content-Type", "application/octet-stream"))
        headers = dated(headers, datetime.now(UTC))
        signature = ""
        if self._key:
            signature = authorization(
                method, url, headers, size=content.size, account=self._account, key=self._key
            )
        body = content.body(on_sent) if content.size else None
        return Call(method=method, url=url, headers=headers, authorization=signature, body=body)
