"""Trying again what a network may have broken: ``--retry`` for RUN steps and for sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from builder import cancelling
from builder.cancelling import Cancel
from builder.errors import Cancelled, PybuildError, RegistryError, SourceUnavailable, StepFailed

T = TypeVar("T")
MAX_WAIT_S = 30.0
_FINAL = frozenset(
    {
        *("checksum-mismatch", "digest-mismatch", "registry-not-found", "registry-unauthorized"),
        *("git-missing", "git-no-such-ref", "git-no-such-subdir", "git-refused", "bad-archive"),
        *("file-too-large", "context-not-found", "no-such-image", "invalid-value"),
    }
)


def retrying(
    call: Callable[[bool], T],
    retries: int,
    *,
    say: Callable[[str], object],
    cancel: Cancel | None = None,
    first_wait_s: float = 1.0,
) -> T:
    """``call(last)``, up to ``retries`` times more after failures that may pass.

    ``say`` gets a line about each. The wait doubles each time, up to half a minute. A build that was
    cancelled is never tried again.
    """
    stop = cancel or cancelling.current() or Cancel()
    wait_s = first_wait_s
    for attempt in range(1, retries + 1):
        try:
            return call(False)
        except PybuildError as error:
            stop.check()
            if not may_pass(error):
                raise
            say(f"attempt {attempt} of {retries + 1} failed: {error.message}; trying again in {wait_s:g}s\n")
        stop.pause(wait_s)
        wait_s = min(2 * wait_s, MAX_WAIT_S)
    return call(True)


def may_pass(error: BaseException) -> bool:
    """Whether the same may work later: a command failed, or a source could not be had."""
    if isinstance(error, (StepFailed, RegistryError, SourceUnavailable)):
        links: list[BaseException] = [error]
        while links[-1].__cause__ is not None and len(links) < 10:
            links.append(links[-1].__cause__)
        return not any(isinstance(link, Cancelled) or getattr(link, "code", "") in _FINAL for link in links)
    return False
