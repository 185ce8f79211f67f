"""Attributes of caches that are more than a text (RCH-10…RCH-12)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from builder.errors import PybuildError, UsageError
from builder.registry.http import display_url
from builder.remotecache.spec import CacheSpec


def names(spec: CacheSpec) -> tuple[str, ...]:
    """``name``: several are separated by ``;``. Raises UsageError."""
    found = tuple(name for name in spec.attr("name", "buildkit").split(";") if name)
    if not found:
        raise UsageError(f"{spec.type} cache: name is empty")
    return found


def path_part(spec: CacheSpec, key: str, default: str = "") -> str:
    """A part of a name in a service. Raises UsageError for what servers would take for another name."""
    value = dict(spec.attrs).get(key, default)
    return checked_name(value, f"{spec.type} cache: {key}")


def checked_name(value: str, what: str) -> str:
    """See ``path_part``."""
    if any(part in (".", "..") for part in value.split("/")) or not value.isprintable():
        raise UsageError(f"{what} {value!r:.80} cannot be part of a name", hint="no . or .. between slashes")
    return value


def seconds(spec: CacheSpec, key: str, default: float) -> float:
    """A duration. Raises UsageError."""
    text = spec.attr(key)
    if not text:
        return default
    from builder.frontend.durations import parse_duration

    try:
        found = parse_duration(text) / 1e9
    except PybuildError as error:
        raise UsageError(f"failed to parse {key} for {spec.type} cache: {error.message}") from error
    if found < 0:
        raise UsageError(f"{key} for {spec.type} cache is negative")
    return found


def positive(spec: CacheSpec, key: str, default: int) -> int:
    """A whole number above 0. Raises UsageError."""
    text = spec.attr(key)
    if not text:
        return default
    if re.fullmatch(r"0*[1-9][0-9]{0,5}", text) is None:
        raise UsageError(f"{key} must be a positive integer", hint=f"it is {text!r:.40}")
    return int(text)


def base_url(spec: CacheSpec, key: str, text: str) -> str:
    """An address of a service without a slash at its end. Raises UsageError."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise UsageError(f"{spec.type} cache: {key} is not an address") from None
    if not good:
        raise UsageError(
            f"{spec.type} cache: {key} is not an address: {display_url(text)!r:.200}", hint="https://…"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            f"{spec.type} cache: {key} has more than scheme, host and path",
            hint="credentials are attributes of their own",
        )
    return text.rstrip("/")
