"""HTTP for registries and sources: the only door to requests, imported by the first byte that leaves the
machine.

Redirects are followed here and not by the library, because credentials may never follow to another host
(CVE-2020-15157), a redirect may not fall from https to http, and every reply is read with a bound.
Environment variables, netrc files and cookies are not read: proxies and certificates come in as values.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit

from builder import cancelling
from builder.errors import RegistryError
from builder.registry.httperrors import translated

if TYPE_CHECKING:
    import requests

Pairs = tuple[tuple[str, str], ...]
MAX_REDIRECTS = 10
CHUNK_BYTES = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """How to trust one host: an own CA file, a client certificate, or (``verify=False``) nothing at all."""

    verify: bool = True
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request body that can be sent again: ``open`` gives a new reader positioned at its start."""

    open: Callable[[], BinaryIO]
    size: int
    on_sent: Callable[[int], None] | None = None


_DEFAULT_TLS = TlsOptions()


class Response:
    """A reply whose body is still on the wire; use as a context manager."""

    def __init__(self, reply: requests.Response, request: str) -> None:
        self._reply = reply
        self.request = request
        self.status: int = reply.status_code
        self.url: str = reply.url or ""
        self._cancel = cancelling.current()
        self._forget = self._cancel.on_set(self._cut) if self._cancel is not None else None

    def header(self, name: str, default: str = "") -> str:
        """One header's value, by name in any case, without the blanks that may stand around it."""
        return str(self._reply.headers.get(name, default)).strip()

    @property
    def length(self) -> int | None:
        """How long the server says that the body is, in bytes; None when it does not, or makes no sense."""
        text = self.header("Content-Length")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

    def chunks(self, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The body as sent, in pieces; a broken connection is a temporary RegistryError.

        Cancelled as soon as the build that asked is.
        """
        while True:
            data = self._next(size)
            if not data:
                return
            yield data

    def _next(self, size: int) -> bytes:
        try:
            with translated(self.request):
                data: bytes = self._reply.raw.read(size, decode_content=False)
        except RegistryError:
            self._check_cancelled()
            raise
        self._check_cancelled()
        return data

    def _check_cancelled(self) -> None:
        if self._cancel is not None:
            self._cancel.check()

    def _cut(self) -> None:
        """Wake whoever reads: the other side has nothing more to say."""
        try:
            with socket.socket(fileno=os.dup(self._reply.raw.fileno())) as connection:
                connection.shutdown(socket.SHUT_RDWR)
        except (OSError, ValueError, AttributeError):
            return  # it was read to its end

    def read(self, limit: int) -> bytes:
        """The whole body; RegistryError when it is longer than ``limit`` (CVE-2023-25153)."""
        parts: list[bytes] = []
        total = 0
        for chunk in self.chunks(min(CHUNK_BYTES, limit + 1)):
            total += len(chunk)
            if total > limit:
                self.close()
                raise RegistryError(
                    f"{self.request}: reply is larger than {limit} bytes", request=self.request
                )
            parts.append(chunk)
        return b"".join(parts)

    def drain(self) -> None:
        """Read a short rest so that the connection can be used again, then let go."""
        try:
            for count, _ in enumerate(self.chunks()):
                if count > 4:
                    break
        except RegistryError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._forget is not None:
            self._forget()
        self._reply.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.drain()
        else:
            self.close()


class HttpClient:
    """A pool of connections; safe for many threads."""

    def __init__(
        self,
        *,
        user_agent: str = "pybuild",
        timeout_s: float = 60.0,
        connect_timeout_s: float = 15.0,
        proxies: Pairs = (),
        no_proxy: tuple[str, ...] = (),
    ) -> None:
        self._agent = user_agent
        self._timeout = (connect_timeout_s, timeout_s)
        self._proxies = dict(proxies)
        self._no_proxy = no_proxy
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Pairs = (),
        authorization: str = "",
        body: bytes | Body | None = None,
        tls: TlsOptions = _DEFAULT_TLS,
        allow_http: bool = True,
        follow: bool = True,
    ) -> Response:
        """Send one request and return the reply, whatever its status; redirects are followed when ``follow``.

        ``authorization`` is sent to the origin of ``url`` only. ``allow_http`` False refuses a redirect that
        leaves TLS. Raises RegistryError, ``temporary`` when the same request may work later.
        """
        sent = dict(headers)
        auth = authorization
        for _ in range(MAX_REDIRECTS):
            response = self._send(method, url, sent, auth, body, tls)
            target = response.header("Location")
            if not follow or response.status not in _REDIRECTS or not target:
                return response
            response.drain()
            nexturl = redirected(url, target, allow_http=allow_http)
            if origin(nexturl) != origin(url):
                auth = ""
                tls = TlsOptions(verify=tls.verify, ca_file=tls.ca_file)
            if response.status == 303 or (response.status in (301, 302) and method == "POST"):
                method, body = ("HEAD" if method == "HEAD" else "GET"), None
            url = nexturl
        raise RegistryError(
            f"{method} {display_url(url)}: too many redirects", request=f"{method} {display_url(url)}"
        )

    def close(self) -> None:
        """Close pooled connections; the client may be used again."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        authorization: str,
        body: bytes | Body | None,
        tls: TlsOptions,
    ) -> Response:
        import requests

        session = self._opened()
        name = f"{method} {display_url(url)}"
        fields = {"User-Agent": self._agent, "Accept-Encoding": "identity", **headers}
        if authorization:
            fields["Authorization"] = authorization
        payload, stream = _payload(body)
        try:
            with translated(name):
                prepared = session.prepare_request(
                    requests.Request(method, url, headers=fields, data=payload)
                )
                if payload is None and method in ("POST", "PUT", "PATCH"):
                    prepared.headers["Content-Length"] = "0"
                reply = cancelling.interruptible(
                    lambda: session.send(
                        prepared,
                        stream=True,
                        timeout=self._timeout,
                        allow_redirects=False,
                        verify=(tls.ca_file or True) if tls.verify else False,
                        cert=_client_cert(tls),
                        proxies=self._proxies_for(url),
                    ),
                    late=lambda reply: reply.close(),
                )
        finally:
            if stream is not None:
                stream.close()
        return Response(reply, name)

    def _opened(self) -> requests.Session:
        with self._lock:
            if self._session is None:
                self._session = _new_session()
            return self._session

    def _proxies_for(self, url: str) -> dict[str, str]:
        host = (urlsplit(url).hostname or "").lower()
        if not self._proxies or host in ("localhost", "127.0.0.1", "::1"):
            return {}
        for entry in self._no_proxy:
            suffix = entry.lower().lstrip("*").lstrip(".")
            if entry == "*" or host == suffix or (suffix and host.endswith("." + suffix)):
                return {}
        return self._proxies


class _Upload:
    """A body as the library wants it: length known, readable, iterable; tells how much has gone out."""

    def __init__(self, body: Body) -> None:
        self._file = body.open()
        self._size = body.size
        self._on_sent = body.on_sent
        self._sent = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(CHUNK_BYTES):
            yield data

    def read(self, size: int = -1) -> bytes:
        cancelling.check()
        want = self._size - self._sent if size < 0 else min(max(size, CHUNK_BYTES), self._size - self._sent)
        data = self._file.read(want) if want else b""
        self._sent += len(data)
        if data and self._on_sent is not None:
            self._on_sent(self._sent)
        return data

    def close(self) -> None:
        self._file.close()


def _payload(body: bytes | Body | None) -> tuple[Any, _Upload | None]:
    if not isinstance(body, Body):
        return body or None, None
    if body.size == 0:
        return None, None
    upload = _Upload(body)
    return upload, upload


def _client_cert(tls: TlsOptions) -> tuple[str, str] | str | None:
    if tls.client_cert and tls.client_key:
        return (tls.client_cert, tls.client_key)
    return tls.client_cert or None


def _new_session() -> requests.Session:
    import warnings
    from http.cookiejar import DefaultCookiePolicy

    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import InsecureRequestWarning

    warnings.simplefilter(
        "ignore", InsecureRequestWarning
    )  # the user asked for it per host; we say so ourselves
    session = requests.Session()
    session.trust_env = False
    session.get_redirect_target = lambda _: None  # type: ignore[assignment, method-assign]
    session.headers.clear()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=16, pool_maxsize=16, max_retries=0))
    return session


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are bound to."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme == "https" else 80),
    )


def display_url(url: str) -> str:
    """The URL without user, password and query, fit for messages: queries of signed URLs are secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def redirected(url: str, target: str, *, allow_http: bool) -> str:
    """Where the ``Location`` that came with ``url`` leads; RegistryError unless it may send us there."""
    try:
        nexturl = urljoin(url, quote(target.encode("latin-1"), safe=_URL_CHARACTERS))
        scheme, host, _ = origin(nexturl)
    except ValueError:
        nexturl = scheme = host = ""
    if scheme not in ("http", "https") or not host:
        raise RegistryError(f"{display_url(url)}: redirect to {target[:200]!r} is not followed")
    if not allow_http and scheme == "http" and url.startswith("https:"):
        raise RegistryError(f"{display_url(url)}: redirect from https to http is not followed")
    return nexturl
