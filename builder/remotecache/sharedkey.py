"""Azure Storage's Shared Key signature of requests to the blob service. Pure."""

from __future__ import annotations

import base64
import hmac
from datetime import datetime
from urllib.parse import parse_qsl, urlsplit

Pairs = tuple[tuple[str, str], ...]
VERSION = "2021-08-06"
_STANDARD = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def dated(headers: Pairs, now: datetime) -> Pairs:
    """``headers`` with the version of the API and the time (UTC), which every request names."""
    day = f"{_DAYS[now.weekday()]}, {now.day:02} {_MONTHS[now.month - 1]} {now.year:04}"
    return (*headers, ("x-ms-date", f"{day} {now:%H:%M:%S} GMT"), ("x-ms-version", VERSION))


def authorization(method: str, url: str, headers: Pairs, *, size: int, account: str, key: bytes) -> str:
    """The value of Authorization for a request with a body of ``size`` bytes and these headers."""
    known = {name.lower(): " ".join(value.split()) for name, value in headers}
    known["content-length"] = str(size) if size else ""
    own = sorted((name, value) for name, value in known.items() if name.startswith("x-ms-"))
    text = "\n".join(
        (
            method,
            *(known.get(name, "") for name in _STANDARD),
            *(f"{name}:{value}" for name, value in own),
            _resource(url, account),
        )
    )
    signature = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
    return f"SharedKey {account}:{signature}"


def _resource(url: str, account: str) -> str:
    parts = urlsplit(url)
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        values.setdefault(name.lower(), []).append(value)
    lines = [f"/{account}{parts.path or '/'}"]
    lines += [f"{name}:{','.join(sorted(found))}" for name, found in sorted(values.items())]
    return "\n".join(lines)
