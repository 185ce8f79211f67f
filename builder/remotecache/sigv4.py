"""AWS Signature Version 4 of requests, in the form that S3 takes. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

Pairs = tuple[tuple[str, str], ...]
ALGORITHM = "AWS4-HMAC-SHA256"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """An access key; ``session_token`` for those that do not last."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def signed(
    method: str,
    url: str,
    headers: Pairs,
    *,
    payload_sha256: str,
    keys: Keys,
    region: str,
    now: datetime,
    service: str = "s3",
) -> tuple[Pairs, str]:
    """``headers`` with those that a signed request needs, and the value of Authorization.

    ``url`` has its path and query percent-encoded already, each query parameter with a ``=``; ``now`` is in
    UTC. The Host header is what an HTTP client sends for ``url``.
    """
    time = now.strftime("%Y%m%dT%H%M%SZ")
    sent = [*headers, ("x-amz-content-sha256", payload_sha256), ("x-amz-date", time)]
    if keys.session_token:
        sent.append(("x-amz-security-token", keys.session_token))
    fields = sorted(
        (name.lower(), " ".join(value.split())) for name, value in (*sent, ("host", host_of(url)))
    )
    names = ";".join(name for name, _ in fields)
    parts = urlsplit(url)
    request = "\n".join(
        (
            method,
            parts.path or "/",
            "&".join(sorted(parts.query.split("&"))) if parts.query else "",
            *(f"{name}:{value}" for name, value in fields),
            "",
            names,
            payload_sha256,
        )
    )
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    text = "\n".join((ALGORITHM, time, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    authorization = (
        f"{ALGORITHM} Credential={keys.access_key_id}/{scope},SignedHeaders={names},"
        f"Signature={_hmac(key, text).hex()}"
    )
    return tuple(sent), authorization


def host_of(url: str) -> str:
    """The Host header for ``url``: the port stands there unless it is the scheme's own."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    port = parts.port
    if port is not None and port == _PORTS.get(parts.scheme):
        host = host.rpartition(":")[0]
    return host


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
