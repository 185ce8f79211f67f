"""Reading replies: errors into exceptions, a few headers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from builder.errors import NotFoundInRegistry, RegistryError, Unauthorized
from builder.registry.hosts import Endpoint
from builder.registry.http import Response
from builder.registry.retry import Temporary, TooManyRequests, retry_after_s

MAX_ERROR_BYTES = 64 * 1024


def failure(response: Response, place: Endpoint | None) -> RegistryError:
    """The error for a reply that is not what was asked for; reads the (bounded) body for the server's
    words."""
    status, request = response.status, response.request
    detail = _server_message(response)
    message = f"{request}: status {status}" + (f": {detail}" if detail else "")
    if status in (401, 403):
        where = place.registry if place is not None else "server"
        return Unauthorized(
            f"access to {place.repository if place else 'blob'} on {where} is denied ({message})",
            request=request,
            status=status,
            hint="the repository may not exist, or needs a login: pybuild login",
        )
    if status == 404:
        return NotFoundInRegistry(message, request=request, status=status)
    wait = retry_after_s(response.header("Retry-After"))
    if status == 429:
        return TooManyRequests(
            message, request=request, retry_after_s=wait, hint="log in for a higher limit, or wait"
        )
    if status in (408, 425) or status >= 500:
        return Temporary(message, request=request, status=status, retry_after_s=wait)
    return RegistryError(message, request=request, status=status)


def _server_message(response: Response) -> str:
    try:
        data = b"".join(_some(response, MAX_ERROR_BYTES))
        value = json.loads(data)
        errors = value.get("errors") or []
        texts = [f"{e.get('code', '')}: {e.get('message', '')}".strip(": ") for e in errors[:5]]
        return _printable("; ".join(text for text in texts if text))
    except RegistryError:
        return ""
    except (ValueError, AttributeError, TypeError, RecursionError):
        return ""


def _some(response: Response, limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in response.chunks(4096):
        total += len(chunk)
        yield chunk
        if total >= limit:
            return


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:500])


def media_type(response: Response) -> str:
    """The Content-Type without parameters."""
    return response.header("Content-Type").partition(";")[0].strip()


def next_link(header: str) -> str:
    """The address of the next page in a Link header, or ""."""
    for part in header.split(","):
        target, _, params = part.partition(";")
        if 'rel="next"' in params.replace("'", '"') or "rel=next" in params:
            return target.strip().strip("<>")
    return ""
