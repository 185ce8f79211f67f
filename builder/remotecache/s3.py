"""``type=s3``: a cache in a bucket of S3, or of a service that speaks its protocol (RCH-11)."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

from builder.errors import PybuildError, RegistryError, UsageError
from builder.oci.descriptor import Descriptor
from builder.remotecache import values
from builder.remotecache.backend import Access, OnBytes, Sink
from builder.remotecache.content import Content
from builder.remotecache.named import NamedCache
from builder.remotecache.service import Call, Reply, Service, tag
from builder.remotecache.sigv4 import Keys, signed
from builder.remotecache.spec import CacheSpec

Pairs = tuple[tuple[str, str], ...]
PART_BYTES = 64 << 20
_COPY_BYTES = 5 << 30
"""The largest object that one request copies."""
_MAX_PARTS = 10_000
_NOTHING = Content.of(b"")


def importer(spec: CacheSpec, access: Access) -> NamedCache:
    """The cache to read from and to write to. Raises UsageError."""
    bucket, region = _set(spec, "bucket"), _set(spec, "region")
    prefix = values.path_part(spec, "prefix")
    documents = prefix + values.path_part(spec, "manifests_prefix", "manifests/")
    blobs = prefix + values.path_part(spec, "blobs_prefix", "blobs/")
    names = tuple(values.checked_name(documents + name, "s3 cache: name") for name in values.names(spec))
    spec.on("disable_accept_encoding")  # that header is never part of our signatures
    keys = _keys(spec)
    mode = spec.attr("retry_mode")
    if mode not in ("", "standard", "adaptive"):
        raise UsageError('retry_mode must be "standard" or "adaptive"')
    service = Service(
        access.registry,
        attempts=values.positive(spec, "retry_max_attempts", 3),
        secrets=(keys.secret_access_key, keys.session_token) if keys else (),
        adaptive=mode == "adaptive",
        hint="$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, or their attributes, name a key; it needs"
        " s3:GetObject, s3:PutObject and s3:ListBucket",
    )
    files = Bucket(
        service=service,
        base=_base(spec, bucket, region),
        bucket=bucket,
        region=region,
        keys=keys,
        touch_after_s=values.seconds(spec, "touch_refresh", 24 * 3600),
    )
    return NamedCache(
        files=files,
        label=f"s3:{bucket}/{names[0]}",
        name="exporting cache to Amazon S3",
        blobs=blobs,
        documents=names,
        mounts=spec.on("mounts", default=True),
        workers=values.positive(spec, "upload_parallelism", 4),
    )


exporter = importer


def _set(spec: CacheSpec, key: str) -> str:
    value = spec.attr(key)
    if not value:
        raise UsageError(f"{key} ($AWS_{key.upper()}) not set for s3 cache")
    if not all(c.isascii() and (c.isalnum() or c in "-._") for c in value) or value.strip(".") != value:
        raise UsageError(f"s3 cache: {value!r:.80} cannot be a {key}")
    return value


def _keys(spec: CacheSpec) -> Keys | None:
    """None = requests are not signed; a bucket that all may read can be imported from."""
    name, secret = spec.attr("access_key_id"), spec.attr("secret_access_key")
    if bool(name) != bool(secret):
        raise UsageError("s3 cache: access_key_id and secret_access_key go together")
    if not name:
        return None
    return Keys(access_key_id=name, secret_access_key=secret, session_token=spec.attr("session_token"))


def _base(spec: CacheSpec, bucket: str, region: str) -> str:
    """The address below which the bucket's objects are."""
    path_style = spec.on("use_path_style")
    endpoint = spec.attr("endpoint_url")
    if endpoint:
        endpoint = values.base_url(spec, "endpoint_url", endpoint)
    else:
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        endpoint, path_style = f"https://s3.{region}.{domain}", False
    parts = urlsplit(endpoint)
    if path_style or "." in bucket or _is_address(parts.hostname or ""):
        return f"{endpoint}/{bucket}"
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The objects of a bucket. ``touch_after_s``: objects older than that are copied onto themselves, so that
    a rule which removes old ones leaves those that are in use.
    """

    service: Service
    base: str
    bucket: str
    region: str
    keys: Keys | None = field(repr=False)
    touch_after_s: float = 24 * 3600

    def read(self, name: str, limit: int) -> bytes | None:
        """See ``Files``."""
        reply = self._ask("GET", name, ok=(200, 404), limit=limit)
        if reply.status == 404:
            if reply.code == "NoSuchBucket":
                raise RegistryError(f"there is no bucket {self.bucket}", status=404, hint="create it first")
            return None
        return reply.data

    def fetch(self, name: str, blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """See ``Files``."""
        self.service.fetch(lambda rest: self._call("GET", name, headers=rest), blob, sink, on_bytes)

    def kept(self, name: str, size: int) -> bool:
        """See ``Files``."""
        reply = self._ask("HEAD", name, ok=(200, 404))
        if reply.status == 404 or reply.header("Content-Length") != str(size):
            return False
        if time.time() - _time(reply.header("Last-Modified")) > self.touch_after_s:
            self._touch(name, size)
        return True

    def write(self, name: str, content: Content, on_bytes: OnBytes) -> None:
        """See ``Files``."""
        if content.size <= PART_BYTES:
            self._ask("PUT", name, content=content, on_sent=on_bytes)
            return

        def send(upload: Pairs) -> list[str]:
            tags, done = [], 0
            for number, part in enumerate(content.parts(max(PART_BYTES, -(-content.size // _MAX_PARTS))), 1):
                query = (("partNumber", str(number)), *upload)
                reply = self._ask("PUT", name, query=query, content=part, on_sent=_from(done, on_bytes))
                tags.append(reply.header("ETag"))
                done += part.size
            return tags

        self._in_parts(name, send)

    def _touch(self, name: str, size: int) -> None:
        source = ("x-amz-copy-source", quote(f"/{self.bucket}/{name}", safe="/-_.~"))
        if size <= _COPY_BYTES:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            headers = (source, ("x-amz-metadata-directive", "REPLACE"), ("x-amz-meta-updated-at", now))
            self._ask("PUT", name, headers=headers, late_errors=True)
            return

        def copy(upload: Pairs) -> list[str]:
            tags = []
            for number, start in enumerate(range(0, size, _COPY_BYTES), 1):
                last = min(start + _COPY_BYTES, size) - 1
                headers = (source, ("x-amz-copy-source-range", f"bytes={start}-{last}"))
                query = (("partNumber", str(number)), *upload)
                reply = self._ask("PUT", name, query=query, headers=headers, late_errors=True)
                tags.append(tag(reply.data, "ETag"))
            return tags

        self._in_parts(name, copy)

    def _in_parts(self, name: str, send: Callable[[Pairs], list[str]]) -> None:
        """An upload in parts; ``send`` takes what names the upload and gives the parts' ETags."""
        reply = self._ask("POST", name, query=(("uploads", ""),))
        found = tag(reply.data, "UploadId")
        if not found:
            raise RegistryError(f"the service did not begin an upload of {name}")
        upload = (("uploadId", found),)
        try:
            tags = send(upload)
            parts = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(text)}</ETag></Part>"
                for number, text in enumerate(tags, 1)
            )
            data = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
            self._ask("POST", name, query=upload, content=Content.of(data), late_errors=True)
        except BaseException:
            try:
                self._ask("DELETE", name, query=upload, ok=(204, 200, 404))
            except PybuildError:
                pass  # parts that stay there cost money, and that is all that can be done about them
            raise

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
        late_errors: bool = False,
    ) -> Reply:
        def call() -> Call:
            return self._call(method, name, query=query, headers=headers, content=content, on_sent=on_sent)

        return self.service.ask(call, ok=ok, limit=limit, late_errors=late_errors)

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
        url = f"{self.base}/{quote(name, safe='/-_.~')}"
        if query:
            url += "?" + "&".join(
                f"{quote(key, safe='')}={quote(value, safe='-_.~')}" for key, value in query
            )
        authorization = ""
        if self.keys is not None:
            headers, authorization = signed(
                method,
                url,
                headers,
                payload_sha256=content.sha256(),
                keys=self.keys,
                region=self.region,
                now=datetime.now(UTC),
            )
        body = content.body(on_sent) if content.size else None
        return Call(method=method, url=url, headers=headers, authorization=authorization, body=body)


def _from(start: int, on_bytes: OnBytes) -> OnBytes:
    return lambda sent: on_bytes(start + sent)


def _time(header: str) -> float:
    """Of an HTTP date; now when it is none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError, OverflowError):
        return time.time()
