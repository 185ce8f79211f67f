"""The builder's expected failures (see ``runtime.errors`` for the root class)."""

from __future__ import annotations

from runtime.errors import PybuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "BlobMissing",
    "Cancelled",
    "DigestMismatch",
    "ExportError",
    "GraphError",
    "InvalidValue",
    "NoSuchImage",
    "NotFoundInRegistry",
    "PathNotFound",
    "PybuildError",
    "RateLimited",
    "RegistryError",
    "SeveralFailed",
    "SolveError",
    "SourceUnavailable",
    "StepFailed",
    "StepTimedOut",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "Unauthorized",
    "UsageError",
]


class UsageError(PybuildError):
    """A flag, setting or argument is wrong (exit 2)."""

    code = "usage"
    exit_status = 2


class InvalidValue(PybuildError):
    """A text does not follow the grammar of what it should name: digest, reference, platform, media type."""

    code = "invalid-value"


class GraphError(PybuildError):
    """A definition breaks its own rules."""

    code = "invalid-definition"


class Cancelled(PybuildError):
    """The build was cancelled; an outcome more than a failure (exit 130)."""

    code = "cancelled"
    exit_status = 130


class SolveError(PybuildError):
    """A vertex could not be solved; chained from its cause.

    ``vertex_name`` is the step's display name; ``filename``, ``first_line`` and ``last_line`` (1-based) say
    where in the Dockerfile it stands and ``source_lines`` holds that file, once ``builder.build`` has filled
    them in; ``range`` is the word that the failure is about, to line and column, if it is about one.
    ``warnings`` are what was found odd in that file.
    """

    code = "solve-failed"
    filename: str = ""
    first_line: int = 0
    last_line: int = 0
    source_lines: tuple[str, ...] = ()
    range: Any = None
    warnings: tuple[Any, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        vertex_name: str = "",
        vertex_digest: str = "",
        context: tuple[str, ...] = (),
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, context=context, hint=hint, code=code)
        self.vertex_name = vertex_name
        self.vertex_digest = vertex_digest


class StepFailed(SolveError):
    """The command of a RUN step ended with a status that is not accepted."""

    code = "step-failed"

    def __init__(
        self, message: str, *, exit_code: int, log_tail: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.log_tail = log_tail


class StepTimedOut(StepFailed):
    """The command of a RUN step took longer than it may."""

    code = "step-timeout"


class SeveralFailed(SolveError):
    """Several steps failed that do not need each other; ``failures`` are in the order in which they did."""

    code = "several-steps-failed"

    def __init__(self, failures: tuple[PybuildError, ...]) -> None:
        super().__init__(f"{len(failures)} steps failed")
        self.failures = failures


class SourceUnavailable(SolveError):
    """A base image, git repository, URL or context could not be had."""

    code = "source-unavailable"


class PathNotFound(SolveError):
    """A path does not exist (``path`` is as the user may recognise it); ``selected`` if it was looked for in
    what a step copies from.
    """

    code = "path-not-found"
    selected = False

    def __init__(self, message: str, *, path: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path

    def name_ref(self, ref: str) -> None:
        """Say that the path was missing while the content of ``ref`` was looked at (CPY-04, CHK-08)."""
        lead = "failed to compute cache key: failed to calculate checksum of ref"
        if not self.message.startswith(lead):
            self.message = f"{lead} {ref}: {self.message}"
            self.args = (self.message,)


class StoreError(PybuildError):
    """The state directory refused or lacks something."""

    code = "store-error"


class DigestMismatch(StoreError):
    """Bytes do not have the digest or size that names them."""

    code = "digest-mismatch"


class BlobMissing(StoreError):
    """A blob is named but not present."""

    code = "blob-missing"


class NoSuchImage(StoreError):
    """No image has that name or id."""

    code = "no-such-image"


class StoreBusy(StoreError):
    """Another process holds what is needed for longer than we wait."""

    code = "store-busy"


class StoreFull(StoreError):
    """The disk, or its limit, is full."""

    code = "store-full"


class RegistryError(PybuildError):
    """A registry answered with an error or not at all."""

    code = "registry-error"

    def __init__(
        self,
        message: str,
        *,
        request: str = "",
        status: int | None = None,
        temporary: bool = False,
        context: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, context=context, hint=hint)
        self.request = request
        self.status = status
        self.temporary = temporary


class Unauthorized(RegistryError):
    """The registry refuses these credentials, or any anonymous access."""

    code = "registry-unauthorized"


class NotFoundInRegistry(RegistryError):
    """The registry has no such repository, tag or digest."""

    code = "registry-not-found"


class RateLimited(RegistryError):
    """The registry asks to come back later."""

    code = "registry-rate-limited"


class ExportError(PybuildError):
    """A result could not be written to its destination."""

    code = "export-failed"
