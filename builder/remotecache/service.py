"""Requests to services that keep caches: bounded, tried again, silent about what signs them.

What carries credentials follows no redirect: a service that moved says so in its error. Texts of servers and
libraries lose everything that is secret before they become messages.
"""

from __future__ import annotations

import html
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from builder import cancelling
from builder.errors import NotFoundInRegistry, RegistryError, Unauthorized
from builder.oci.descriptor import Descriptor
from builder.registry.announce import announced
from builder.registry.download import Download, range_header
from builder.registry.hosts import RegistryConfig, endpoints
from builder.registry.http import Body, HttpClient, Pairs, Response
from builder.registry.retry import Retrier, Temporary, TooManyRequests, retry_after_s
from builder.remotecache.backend import OnBytes, Sink

T = TypeVar("T")
MAX_REPLY_BYTES = 256 * 1024
_MAX_WAIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request; ``authorization`` goes to the host of ``url`` only."""

    method: str
    url: str
    headers: Pairs = ()
    authorization: str = ""
    body: bytes | Body | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply with its whole body."""

    status: int
    data: bytes
    header: Callable[[str], str]

    @property
    def code(self) -> str:
        """The service's name for an error; "" when there is none."""
        return _printable(self.header("x-ms-error-code") or _said(self.data)[0])


class Service:
    """One service, for many threads.

    ``attempts`` counts the first one in; ``deadline_s`` is how long one operation may be tried again;
    ``secrets`` never appear in messages; with ``adaptive`` a service that is too busy slows down all threads.
    """

    def __init__(
        self,
        config: RegistryConfig,
        *,
        attempts: int = 3,
        deadline_s: float = 600.0,
        secrets: tuple[str, ...] = (),
        adaptive: bool = False,
        hint: str = "",
    ) -> None:
        self._config = config
        self._http = HttpClient(
            user_agent=config.user_agent,
            timeout_s=min(config.timeout_s, deadline_s),
            proxies=config.proxies,
            no_proxy=config.no_proxy,
        )
        first = config.retry_waits_s[0] if config.retry_waits_s else 0.0
        self._waits = tuple(min(first * 2**number, _MAX_WAIT_S) for number in range(min(attempts, 100) - 1))
        self._deadline_s = deadline_s
        self._secrets = tuple(secret for secret in secrets if secret)
        self._adaptive = adaptive
        self._hint = hint
        self._lock = threading.Lock()
        self._resume_at = 0.0

    def ask(
        self,
        call: Callable[[], Call],
        *,
        ok: tuple[int, ...] = (200,),
        limit: int = MAX_REPLY_BYTES,
        late_errors: bool = False,
    ) -> Reply:
        """Send what ``call`` gives (made anew for each try: signatures have a time) and read the reply.

        With ``late_errors`` the body of a good status may be an error, as with S3. Raises RegistryError.
        """

        def once() -> Reply:
            with self._open(call()) as response:
                if response.status not in ok:
                    raise self._failure(response)
                data = response.read(limit)
                if late_errors and response.status == 200 and b"<Error>" in data:
                    detail = self._detail(data, response)
                    raise Temporary(f"{response.request}: {detail}", request=response.request)
                return Reply(status=response.status, data=data, header=response.header)

        return self._tried(once, call)

    def fetch(self, call: Callable[[Pairs], Call], blob: Descriptor, sink: Sink, on_bytes: OnBytes) -> None:
        """Bring a blob, going on where a connection broke; never more bytes than its descriptor says.

        ``call`` takes the headers that ask for the rest. Raises RegistryError, DigestMismatch.
        """
        download = Download(blob, sink, on_bytes, verify=False)

        def once() -> None:
            with self._open(call(range_header(download.done))) as response:
                if response.status not in (200, 206):
                    raise self._failure(response)
                download.take(response)

        self._tried(once, lambda: call(()))

    def _open(self, call: Call) -> Response:
        url = urlsplit(call.url)
        place = endpoints(self._config, url.netloc, "")[-1]
        return self._http.open(
            call.method,
            call.url,
            headers=call.headers,
            authorization=call.authorization,
            body=call.body,
            tls=place.tls,
            allow_http=url.scheme == "http",
            follow=call.follow,
        )

    # --- trying again

    def _tried(self, once: Callable[[], T], call: Callable[[], Call]) -> T:
        until = time.monotonic() + self._deadline_s
        retrier = Retrier((), sleep=cancelling.pause)
        for wait in (*self._waits, None):
            self._hold_back()
            try:
                return once()
            except RegistryError as error:
                self._clean(error, call)
                asked = getattr(error, "retry_after_s", 0.0)
                if wait is None or not error.temporary or time.monotonic() + max(wait, asked) > until:
                    raise
                if self._adaptive and error.status in (429, 503):
                    with self._lock:
                        self._resume_at = max(self._resume_at, time.monotonic() + wait)
                with announced(f"[cache] error: {error.message}; trying again"):
                    retrier.pause(error, wait)
        raise AssertionError("not reached")

    def _hold_back(self) -> None:
        wait = self._resume_at - time.monotonic() if self._adaptive else 0.0
        if wait > 0:
            cancelling.pause(wait)

    # --- what went wrong

    def _clean(self, error: RegistryError, call: Callable[[], Call]) -> None:
        """Take everything secret out of an error: keys and tokens, and the queries of signed addresses."""
        error.message = self._hidden(error.message, call().url)
        error.args = (error.message,)
        error.__cause__ = None  # the library's own words have the whole address in them
        error.__suppress_context__ = True

    def _hidden(self, text: str, url: str) -> str:
        query = urlsplit(url).query
        for secret in (*self._secrets, query) if len(query) > 20 else self._secrets:
            text = text.replace(secret, "***")
        return text

    def _detail(self, data: bytes, response: Response) -> str:
        """What a server says of an error; secrets go before the text is cut: no piece of one stays."""
        code, text = _said(data)
        parts = (code or response.header("x-ms-error-code"), text)
        return ": ".join(_printable(self._hidden(part, response.url)) for part in parts if part)

    def _failure(self, response: Response) -> RegistryError:
        try:
            data = response.read(MAX_REPLY_BYTES)
        except RegistryError:
            data = b""
        status, request = response.status, response.request
        detail = self._detail(data, response)
        message = f"{request}: status {status}" + (f": {detail}" if detail else "")
        region = response.header("x-amz-bucket-region")
        if region and (300 <= status < 400 or status == 400):
            hint = f"the bucket is in region {_printable(region)}"
            return RegistryError(message, request=request, status=status, hint=hint)
        if 300 <= status < 400:
            return RegistryError(f"{message}: redirects are not followed", request=request, status=status)
        if status in (401, 403):
            return Unauthorized(
                f"access is denied: {message}", request=request, status=status, hint=self._hint or None
            )
        if status == 404:
            return NotFoundInRegistry(message, request=request, status=status)
        wait = retry_after_s(response.header("Retry-After"))
        if status == 429:
            return TooManyRequests(message, request=request, retry_after_s=wait)
        if status in (408, 425) or status >= 500:
            return Temporary(message, request=request, status=status, retry_after_s=wait)
        return RegistryError(message, request=request, status=status)


def tag(data: bytes, name: str) -> str:
    """The text of the first element of this name in a small XML document; "" when there is none.

    Not a parser: entities that a document declares mean nothing here.
    """
    found = re.search(rf"<{name}>([^<]{{0,4000}})</{name}>", data.decode("utf-8", "replace"))
    return html.unescape(found[1]).strip() if found else ""


def _said(data: bytes) -> tuple[str, str]:
    """Code and text of an error, from XML or JSON."""
    if data.lstrip()[:1] == b"{" or data.startswith(b"\xef\xbb\xbf{"):
        try:
            value = json.loads(data.decode("utf-8-sig"))
            code = value.get("typeKey") or value.get("code") or ""
            text = value.get("message") or value.get("msg") or ""
        except (ValueError, RecursionError, AttributeError):
            return "", ""
        return str(code), str(text)
    return tag(data, "Code"), tag(data, "Message").partition("\n")[0]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:300])
