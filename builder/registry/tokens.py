"""Answers to 401: challenges read, bearer tokens fetched and kept until they expire (REG-01, REG-02)."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from builder.errors import RegistryError, Unauthorized
from builder.registry.announce import announced, step_name
from builder.registry.auth import Credentials
from builder.registry.http import HttpClient, TlsOptions, display_url, origin

MAX_TOKEN_BYTES = 1024 * 1024
DEFAULT_LIFETIME_S = 60
EXPIRY_MARGIN_S = 5
_PARAM = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One WWW-Authenticate challenge; scheme in lower case."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""
    error: str = ""


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Read a WWW-Authenticate header; what is not understood is left out."""
    found: list[Challenge] = []
    pieces = re.split(
        r"(?:^|,)\s*(?=(?:bearer|basic|negotiate|digest)\b)", header[:8192], flags=re.IGNORECASE
    )
    for piece in pieces:
        scheme, _, rest = piece.strip().partition(" ")
        if not scheme:
            continue
        values = {
            key.lower(): (quoted or bare).replace('\\"', '"') for key, quoted, bare in _PARAM.findall(rest)
        }
        found.append(
            Challenge(
                scheme=scheme.lower(),
                realm=values.get("realm", ""),
                service=values.get("service", ""),
                scope=values.get("scope", ""),
                error=values.get("error", ""),
            )
        )
    return tuple(found)


class TokenCache:
    """``Authorization`` values per origin and scopes, each until it expires; safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[tuple[object, ...], tuple[str, float]] = {}

    def get(self, where: tuple[str, str, int], scopes: tuple[str, ...]) -> str:
        """The header value to send at once, or ""."""
        with self._lock:
            for key in ((where, scopes), (where, ())):
                value = self._values.get(key)
                if value is not None and value[1] > self._clock():
                    return value[0]
        return ""

    def put(
        self, where: tuple[str, str, int], scopes: tuple[str, ...], value: str, lifetime_s: float
    ) -> None:
        """Keep a value; Basic answers use empty scopes and live as long as the cache."""
        with self._lock:
            self._values[where, scopes] = (value, self._clock() + lifetime_s)

    def drop(self, where: tuple[str, str, int], scopes: tuple[str, ...]) -> None:
        """Forget a value that was refused."""
        with self._lock:
            self._values.pop((where, scopes), None)
            self._values.pop((where, ()), None)


class Authenticator:
    """Turns a challenge and credentials into an ``Authorization`` value."""

    def __init__(self, http: HttpClient, cache: TokenCache | None = None) -> None:
        self._http = http
        self._cache = cache or TokenCache()
        self._asking = threading.Lock()

    def known(self, url: str, scopes: tuple[str, ...]) -> str:
        """What to send with the first try."""
        return self._cache.get(origin(url), scopes)

    def answer(
        self,
        url: str,
        header: str,
        scopes: tuple[str, ...],
        credentials: Credentials | None,
        *,
        refused: str,
        tls: TlsOptions,
    ) -> str:
        """The value for the next try after a 401; ``refused`` is what was sent. Raises Unauthorized.

        Threads that meet the same 401 ask the token server once: the first one asks, the others find its
        token.
        """
        where, place = origin(url), urlsplit(url).netloc
        with self._asking:
            known = self._cache.get(where, scopes)
            if known and known != refused:
                return known
            self._cache.drop(where, scopes)
            challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
            bearer = challenges.get("bearer")
            if bearer is not None and bearer.realm:
                with announced(step_name(scopes, place)):
                    value, lifetime = self._bearer(url, bearer, scopes, credentials, tls)
                self._cache.put(where, scopes, value, lifetime)
                return value
            if "basic" in challenges:
                if credentials is None or not credentials.username:
                    raise Unauthorized(f"{place} wants a user name and password", status=401, hint=_LOGIN)
                if refused == credentials.basic:
                    raise Unauthorized(f"{place} refuses the user name or password", status=401, hint=_LOGIN)
                self._cache.put(where, (), credentials.basic, 3600.0)
                return credentials.basic
        raise Unauthorized(f"{place} asks for a login in no way that is known", status=401)

    def _bearer(
        self,
        url: str,
        challenge: Challenge,
        scopes: tuple[str, ...],
        credentials: Credentials | None,
        tls: TlsOptions,
    ) -> tuple[str, float]:
        realm = challenge.realm
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unauthorized(f"token server {realm[:200]!r} is not a web address", status=401)
        if parts.scheme == "http" and url.startswith("https:"):
            raise Unauthorized(
                f"token server {display_url(realm)} does not use TLS while the registry does", status=401
            )
        wanted = sorted({*scopes, *challenge.scope.split()})
        if origin(realm)[1] != origin(url)[1]:
            tls = TlsOptions(verify=tls.verify)
        if credentials is not None and credentials.identity_token:
            return self._refresh(realm, challenge.service, wanted, credentials, tls)
        query = [("service", challenge.service)] if challenge.service else []
        query += [("scope", scope) for scope in wanted]
        basic = ""
        if credentials is not None and credentials.username:
            query.append(("account", credentials.username))
            basic = credentials.basic
        separator = "&" if parts.query else "?"
        with self._http.open(
            "GET", f"{realm}{separator}{urlencode(query)}", authorization=basic, tls=tls, allow_http=False
        ) as response:
            return _token(response.status, response.read(MAX_TOKEN_BYTES), realm)

    def _refresh(
        self, realm: str, service: str, scopes: list[str], credentials: Credentials, tls: TlsOptions
    ) -> tuple[str, float]:
        """OAuth2 with an identity token as the refresh token."""
        form = urlencode(
            {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "pybuild",
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity_token,
            }
        ).encode()
        headers = (("Content-Type", "application/x-www-form-urlencoded"),)
        # The token is in the body, so a redirect is not followed.
        with self._http.open("POST", realm, headers=headers, body=form, tls=tls, follow=False) as response:
            return _token(response.status, response.read(MAX_TOKEN_BYTES), realm)


_LOGIN = "log in first: pybuild login"


def _token(status: int, body: bytes, realm: str) -> tuple[str, float]:
    where = display_url(realm)
    if status in (400, 401, 403):
        raise Unauthorized(f"token server {where} refuses these credentials", status=status, hint=_LOGIN)
    if status != 200:
        raise RegistryError(
            f"token server {where} answered with status {status}", status=status, temporary=status >= 500
        )
    try:
        value = json.loads(body)
        token = value.get("token") or value.get("access_token")
        lifetime = float(value.get("expires_in") or DEFAULT_LIFETIME_S)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(f"token server {where} gave no valid reply") from error
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise RegistryError(f"token server {where} gave no token")
    return f"Bearer {token}", max(1.0, min(lifetime, 86400.0) - EXPIRY_MARGIN_S)
