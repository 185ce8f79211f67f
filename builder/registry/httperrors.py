"""The HTTP library's exceptions as RegistryError, made in one place."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from builder.errors import RegistryError


class translated:  # noqa: N801 - reads as a verb where it is used
    """Turns the library's exceptions into RegistryError, once, here."""

    __slots__ = ("_request",)

    def __init__(self, request: str) -> None:
        self._request = request

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, RegistryError):
            return
        import requests
        import urllib3.exceptions

        if isinstance(error, (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)):
            raise translate(error, self._request) from error


def translate(error: Exception, request: str) -> RegistryError:
    """The RegistryError for one of the library's exceptions or an OSError of the socket."""
    import requests
    import urllib3.exceptions as u3

    causes = list(_causes(error))

    def any_of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if any_of(requests.exceptions.SSLError, u3.SSLError):
        return RegistryError(
            f"{request}: TLS failed: {_reason(causes)}",
            request=request,
            hint="give the registry's CA certificate, or mark the host as insecure or plain http",
        )
    if any_of(u3.NameResolutionError):
        return RegistryError(
            f"{request}: host name cannot be resolved", request=request, hint="is the network up?"
        )
    if any_of(ConnectionRefusedError):
        return RegistryError(f"{request}: connection refused", request=request, hint="is the server running?")
    if any_of(requests.exceptions.Timeout, u3.TimeoutError, TimeoutError):
        return RegistryError(f"{request}: timed out", request=request, temporary=True)
    if any_of(
        requests.exceptions.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        u3.ProtocolError,
        ConnectionError,
    ):
        return RegistryError(
            f"{request}: connection lost: {_reason(causes)}", request=request, temporary=True
        )
    return RegistryError(f"{request}: {_reason(causes)}", request=request)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        reason = getattr(current, "reason", None)
        links = (current.__cause__, current.__context__, reason, *current.args)
        waiting.extend(link for link in links if isinstance(link, BaseException))


def _reason(causes: list[BaseException]) -> str:
    return str(causes[-1])[:300] or type(causes[-1]).__name__
