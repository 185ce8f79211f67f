"""What a build tells of its end: metadata, warnings, images, and failures with the text they point at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from builder.build.memo import warn
from builder.build.request import BuildRequest, BuildWarning, Lines
from builder.errors import SolveError, StepFailed
from builder.exporter.types import BuiltImage, ExportResult
from builder.frontend.convert import Conversion
from builder.frontend.errors import DockerfileError
from builder.frontend.lint import LintWarning
from builder.frontend.parser import Dockerfile
from builder.oci.platform import Platform
from builder.solver.progress import OnEvent
from builder.sources.contexts import PreparedContext


def image_of(conversion: Conversion, platform: Platform, snapshot: str | None) -> BuiltImage:
    """What the exporters make an image of."""
    base = conversion.base_config
    return BuiltImage(
        platform=platform,
        config=conversion.config,
        snapshot=snapshot,
        base_history=len(base.history) if base is not None else 0,
    )


def metadata_of(results: list[ExportResult]) -> dict[str, Any]:
    """The content of ``--metadata-file`` (EXP-04)."""
    import base64
    import json

    out: dict[str, Any] = {}
    for result in results:
        for key, value in result.response:
            out[key] = json.loads(base64.b64decode(value)) if key == "containerimage.descriptor" else value
    return out


def warnings_of(conversions: list[Conversion]) -> tuple[BuildWarning, ...]:
    """What was found wrong with the file, each thing once for all platforms (LNT-02)."""
    return _told(dict.fromkeys(warning for conversion in conversions for warning in conversion.warnings))


def _told(found: Iterable[LintWarning]) -> tuple[BuildWarning, ...]:
    return tuple(
        BuildWarning(
            rule=warning.rule,
            message=warning.message,
            span=Lines(warning.span.filename, warning.span.start, warning.span.end),
            url=warning.url,
            detail=warning.detail,
            hint=warning.hint,
        )
        for warning in found
    )


def _source_lines(dockerfile: Dockerfile, request: BuildRequest, filename: str) -> tuple[str, ...]:
    if request.llb is None:
        return tuple(dockerfile.source.lines)
    from builder.build.llb import source_lines

    return source_lines(request, filename)


@contextmanager
def warned(emit: OnEvent, prepared: PreparedContext, request: BuildRequest) -> Iterator[None]:
    """What was found odd in a Dockerfile is told also when it cannot be built (DIA-05): a failure has it."""
    try:
        yield
    except DockerfileError as error:
        if not error.parsed:
            from builder.frontend.salvage import written_warnings

            error.warnings = written_warnings(
                prepared.dockerfile, prepared.dockerfile_name, error, dict(request.build_args)
            )
        warn(emit, _told(error.warnings))
        raise
    except SolveError as error:
        if error.warnings and isinstance(error.warnings[0], LintWarning):
            error.warnings = _told(error.warnings)
            warn(emit, error.warnings)
        raise


@contextmanager
def explained(conversions: list[Conversion]) -> Iterator[None]:
    """Say in a step's failure which variable of its line has no value there, and why (ARG-02, ARG-04).

    A command that ran tells its own story. The failure also has the warnings.
    """
    try:
        yield
    except SolveError as error:
        error.warnings = warnings_of(conversions)
        reasons = {(span.start, span.end): why for one in conversions for span, why in one.unset}
        for found in (error, *getattr(error, "failures", ())):
            why = reasons.get((found.first_line, found.last_line)) if isinstance(found, SolveError) else None
            if why and not isinstance(found, StepFailed):
                found.hint = f"{why}; {found.hint}" if found.hint else why
        raise


@contextmanager
def located(dockerfile: Dockerfile, request: BuildRequest) -> Iterator[None]:
    """Give a step's failure the text of the file that it points at, and the word in it."""
    try:
        yield
    except SolveError as error:
        for found in (error, *getattr(error, "failures", ())):
            if isinstance(found, SolveError) and found.filename and not found.source_lines:
                found.source_lines = _source_lines(dockerfile, request, found.filename)
                if request.llb is None:
                    from builder.frontend.failures import failed_range

                    found.range = failed_range(dockerfile, found)
        raise
