"""When and how long to wait before asking again (REG-05)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from builder import cancelling
from builder.errors import RateLimited, RegistryError

T = TypeVar("T")
MAX_RETRY_AFTER_S = 120.0


class Temporary(RegistryError):
    """A failure that may pass; ``retry_after_s`` is what the server asked for."""

    def __init__(
        self, message: str, *, request: str = "", status: int | None = None, retry_after_s: float = 0
    ) -> None:
        super().__init__(message, request=request, status=status, temporary=True)
        self.retry_after_s = retry_after_s


class TooManyRequests(RateLimited):
    """The registry's limit is reached; ``retry_after_s`` is what it asked for."""

    def __init__(
        self, message: str, *, request: str = "", retry_after_s: float = 0, hint: str | None = None
    ) -> None:
        super().__init__(message, request=request, status=429, temporary=True, hint=hint)
        self.retry_after_s = retry_after_s


class Retrier:
    """Runs a call again after temporary failures: one more try per entry of ``waits_s``.

    A server's Retry-After replaces the wait when it is longer, up to two minutes; beyond that we give up, so
    that a hostile server cannot park a build. A cancelled build does not wait.
    """

    def __init__(
        self,
        waits_s: tuple[float, ...],
        *,
        sleep: Callable[[float], None] = cancelling.pause,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        self._waits = waits_s
        self._sleep = sleep
        self._on_retry = on_retry

    def run(self, call: Callable[[], T]) -> T:
        """``call()``, again after each temporary RegistryError; the last one is raised."""
        for wait in self._waits:
            try:
                return call()
            except RegistryError as error:
                self.pause(error, wait)
        return call()

    def attempts(self) -> tuple[float, ...]:
        """The waits, for callers that keep their own place (resumed downloads)."""
        return self._waits

    def pause(self, error: RegistryError, wait_s: float) -> None:
        """Sleep before the next try, or raise ``error`` when it is not temporary."""
        if not error.temporary:
            raise error
        asked = getattr(error, "retry_after_s", 0.0)
        if asked > MAX_RETRY_AFTER_S:
            raise error
        delay = max(wait_s, asked)
        if self._on_retry is not None:
            self._on_retry(f"error: {error.message}; retrying in {delay:g}s")
        self._sleep(delay)


def retry_after_s(value: str, now: float | None = None) -> float:
    """Seconds of a Retry-After header: a number or an HTTP date; 0 when it says nothing useful."""
    text = value.strip()
    if not text:
        return 0.0
    if text.isascii() and text.isdigit():
        return float(text[:9])
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, when - (time.time() if now is None else now))
