"""Files from http(s): fetched once, re-validated afterwards, checked, named safely (SHT-01…04)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from builder.errors import PybuildError, RegistryError, SourceUnavailable
from builder.oci.digest import Digest
from builder.sources.index import Documents
from builder.sources.steps import Step

if TYPE_CHECKING:
    from builder.registry.http import Response

Pairs = tuple[tuple[str, str], ...]
MAX_BYTES = 64 << 30
DEFAULT_NAME = "__unnamed__"
_DROPPED = {"", ".", ".."}


class Writer(Protocol):
    """A blob that is being written (``cache.blobs.BlobWriter``)."""

    def write(self, data: bytes, /) -> object:
        """Add bytes."""

    def commit(self) -> tuple[Digest, int]:
        """Keep it under its digest."""


class Blobs(Protocol):
    """The content store, as far as it is needed here."""

    def has(self, digest: Digest) -> bool:
        """Is it there?"""

    def path(self, digest: Digest) -> Path:
        """Its file."""

    def writer(self) -> AbstractContextManager[Writer]:
        """A new blob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFile:
    """What a URL gave: ``name`` is one safe path element, ``mtime_s`` 0 when the server did not say."""

    digest: Digest
    size: int
    name: str
    mtime_s: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAccess:
    """What requests need; ``secrets`` by name: ``HTTP_AUTH_HEADER_<host>``, ``HTTP_AUTH_TOKEN_<host>``."""

    secrets: Mapping[str, str] = field(default_factory=dict)
    proxy_env: Pairs = ()
    headers: Pairs = ()


class HttpSource:
    """One URL as a source; what was fetched is kept in the content store and asked for again cheaply."""

    def __init__(
        self,
        documents: Documents,
        blobs: Blobs,
        url: str,
        *,
        checksum: str = "",
        filename: str = "",
        access: HttpAccess | None = None,
    ) -> None:
        self._documents = documents
        self._blobs = blobs
        self._url = url
        self._checksum = Digest.parse(checksum) if checksum else None
        self._filename = filename
        self._access = access or HttpAccess()

    def fetch(self, step: Step) -> HttpFile:
        """The current content. Raises SourceUnavailable."""
        known = self._known(self._key())
        if self._checksum is not None:
            if known is not None and str(self._checksum) == known["digest"]:
                return self._file(known)
            alike = self._known(str(self._checksum))
            if alike is not None:
                return self._file({**alike, "name": safe_name("", "", self._url)})
        if known is not None and self._is_current(known):
            found = known
        else:
            found = self._download(step)
            data = json.dumps(found).encode()
            for key in (self._key(), found["digest"]):
                self._documents.put_doc("http", key, data)
        if self._checksum is not None:
            self._check(found)
        return self._file(found)

    def _check(self, fresh: dict[str, str]) -> None:
        assert self._checksum is not None
        got = fresh["digest"]
        if self._checksum.algorithm == "sha512":
            with self._blobs.path(Digest.parse(got)).open("rb") as file:
                got = "sha512:" + hashlib.file_digest(file, "sha512").hexdigest()
        if got != str(self._checksum):
            raise SourceUnavailable(f"digest mismatch {got}: {self._checksum}", code="digest-mismatch")

    def _key(self) -> str:
        url = split_credentials(self._url)[0]
        return hashlib.sha256(
            "\n".join([url, *(f"{k}:{v}" for k, v in self._access.headers)]).encode()
        ).hexdigest()

    def _known(self, key: str) -> dict[str, str] | None:
        """What was noted under a key: of this URL, or (by a digest) of whichever URL gave that content."""
        data = self._documents.doc("http", key)
        try:
            found = json.loads(data) if data else None
            if isinstance(found, dict) and self._blobs.has(Digest.parse(found["digest"])):
                return {str(key): str(value) for key, value in found.items()}
        except (ValueError, KeyError, PybuildError):
            return None
        return None

    def _is_current(self, known: dict[str, str]) -> bool:
        """Ask the server whether what we have is what it would send (SHT-02)."""
        conditions: list[tuple[str, str]] = []
        if known.get("etag"):
            conditions.append(("If-None-Match", known["etag"]))
        elif known.get("last_modified"):
            conditions.append(("If-Modified-Since", known["last_modified"]))
        if not conditions:
            return False
        for method in ("HEAD", "GET"):
            with _open(self._url, self._access, method=method, more=tuple(conditions)) as reply:
                if reply.status == 304:
                    return True
                if method == "HEAD" and reply.status == 200 and known.get("etag"):
                    return reply.header("ETag") == known["etag"]
                if reply.status == 200:
                    return False
        return False

    def _download(self, step: Step) -> dict[str, str]:
        with _open(self._url, self._access) as reply, self._blobs.writer() as writer:
            _copy(reply, writer, self._url, step)
            digest, _ = writer.commit()
            return {
                "digest": str(digest),
                "name": safe_name("", reply.header("Content-Disposition"), self._url),
                "mtime_s": str(parse_date(reply.header("Last-Modified"))),
                "etag": reply.header("ETag"),
                "last_modified": reply.header("Last-Modified"),
            }

    def _file(self, known: dict[str, str]) -> HttpFile:
        digest = Digest.parse(known["digest"])
        path = self._blobs.path(digest)
        name = safe_name(self._filename, "", self._url) if self._filename else known["name"]
        return HttpFile(
            digest=digest, size=path.stat().st_size, name=name, mtime_s=int(known["mtime_s"]), path=path
        )


def download(url: str, path: Path, *, step: Step, proxy_env: Pairs = ()) -> HttpFile:
    """Fetch a URL into a new file. Raises SourceUnavailable."""
    with _open(url, HttpAccess(proxy_env=proxy_env)) as reply, path.open("xb") as file:
        hashing = _HashingFile(file)
        _copy(reply, hashing, url, step)
        name = safe_name("", reply.header("Content-Disposition"), url)
        mtime_s = parse_date(reply.header("Last-Modified"))
    return HttpFile(
        digest=Digest("sha256", hashing.hash.hexdigest()),
        size=path.stat().st_size,
        name=name,
        mtime_s=mtime_s,
        path=path,
    )


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _HashingFile:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def write(self, data: bytes, /) -> None:
        self._file.write(data)
        self.hash.update(data)


@contextlib.contextmanager
def _open(url: str, access: HttpAccess, *, method: str = "GET", more: Pairs = ()) -> Iterator[Response]:
    """Send one request; a status that is no answer, or no answer at all, is SourceUnavailable."""
    from builder.registry.http import HttpClient, display_url

    bare, credentials = split_credentials(url)
    authorization = _authorization(urlsplit(bare).hostname or "", credentials, access)
    headers = tuple((key, value) for key, value in access.headers if key.lower() in {"accept", "user-agent"})
    proxies, no_proxy = _proxies(access.proxy_env)
    client = HttpClient(proxies=proxies, no_proxy=no_proxy)
    try:
        reply = client.open(method, bare, headers=(*headers, *more), authorization=authorization)
        with reply:
            if method == "GET" and not 200 <= reply.status < 400:
                raise SourceUnavailable(
                    f"invalid response status {reply.status}",
                    context=(display_url(bare),),
                    code="http-status",
                )
            yield reply
    except RegistryError as error:
        raise SourceUnavailable(error.message, context=error.context, hint=error.hint) from error
    finally:
        client.close()


def _copy(reply: Response, sink: _Sink, url: str, step: Step) -> None:
    from builder.registry.http import display_url

    name = f"downloading {display_url(url)}"
    total = reply.length or 0
    done = 0
    for chunk in reply.chunks():
        done += len(chunk)
        if done > MAX_BYTES:
            raise SourceUnavailable(
                f"{display_url(url)}: larger than {MAX_BYTES} bytes", code="file-too-large"
            )
        sink.write(chunk)
        step.status(name, done, total)
    if total and done != total:
        raise SourceUnavailable(f"{display_url(url)}: the transfer ended after {done} of {total} bytes")
    step.status(name, done, done, done=True)


def _authorization(host: str, credentials: str, access: HttpAccess) -> str:
    if header := access.secrets.get(f"HTTP_AUTH_HEADER_{host}"):
        return header.strip()
    if token := access.secrets.get(f"HTTP_AUTH_TOKEN_{host}"):
        return f"Bearer {token.strip()}"
    if credentials:
        import base64

        return "Basic " + base64.b64encode(unquote(credentials).encode()).decode()
    return ""


def _proxies(env: Pairs) -> tuple[Pairs, tuple[str, ...]]:
    """Proxy variables as the client takes them; lower-case names win."""
    values: dict[str, str] = {}
    for name, value in sorted(env):
        values[name.lower()] = value
    proxies = []
    for scheme in ("http", "https"):
        proxy = values.get(f"{scheme}_proxy") or values.get("all_proxy")
        if proxy:
            proxies.append((scheme, proxy))
    exceptions = tuple(part.strip() for part in values.get("no_proxy", "").split(",") if part.strip())
    return tuple(proxies), exceptions


def split_credentials(url: str) -> tuple[str, str]:
    """A URL without ``user:password@``, and that."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        from builder.llb.gitref import redacted

        raise SourceUnavailable(f"invalid URL {redacted(url)}: {error}", code="invalid-url") from error
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    return urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment)), userinfo


def safe_name(given: str, disposition: str, url: str) -> str:
    """One path element: as asked for, as the server says, as the URL ends, or a default (SHT-01)."""
    for candidate in (given, _disposition_name(disposition), unquote(urlsplit(url).path)):
        name = candidate.replace("\\", "/").rstrip("/").rpartition("/")[2].replace("\0", "")
        if name not in _DROPPED and _fits(name):
            return name
    return DEFAULT_NAME


def _fits(name: str) -> bool:
    """Can a file be called so?"""
    try:
        return len(os.fsencode(name)) <= 255
    except UnicodeEncodeError:
        return False


def _disposition_name(value: str) -> str:
    if not value:
        return ""
    from email.message import Message

    message = Message()
    message["Content-Disposition"] = value.replace("\r", " ").replace("\n", " ")
    return message.get_filename() or ""


def parse_date(value: str) -> int:
    """A ``Last-Modified`` as Unix seconds; 0 when there is none, or none that can be read."""
    if not value:
        return 0
    from email.utils import parsedate_to_datetime

    try:
        return max(0, int(parsedate_to_datetime(value).timestamp()))
    except (ValueError, TypeError, OverflowError):
        return 0
