"""What a build tells of its end: metadata, warnings, images, and failures with the text they point at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from builder.build.request import BuildRequest, BuildWarning, Lines
from builder.errors import SolveError
from builder.exporter.types import BuiltImage, ExportResult
from builder.frontend.convert import Conversion
from builder.frontend.parser import Dockerfile
from builder.oci.platform import Platform


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
    found = dict.fromkeys(warning for conversion in conversions for warning in conversion.warnings)
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
def located(dockerfile: Dockerfile, request: BuildRequest) -> Iterator[None]:
    """Give a step's failure the text of the file that it points at."""
    try:
        yield
    except SolveError as error:
        for found in (error, *getattr(error, "failures", ())):
            if isinstance(found, SolveError) and found.filename and not found.source_lines:
                found.source_lines = _source_lines(dockerfile, request, found.filename)
        raise
