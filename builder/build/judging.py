"""What else a source policy is asked about: the Dockerfile itself, its frontend, imported caches (POL-03)."""

from __future__ import annotations

import os
from dataclasses import replace

from builder.build.policy import SourceGate
from builder.build.request import BuildRequest
from builder.errors import InvalidValue
from builder.frontend.parser import Dockerfile
from builder.frontend.source import Span
from builder.frontend.syntax import BUILT_IN, is_ours, requested
from builder.oci.reference import Reference
from builder.remotecache.spec import CacheSpec
from builder.sources.policy import SourceDenied

_IMAGE = "docker-image://"
DOCKERFILE = "local://dockerfile"


def judge_dockerfile(gate: SourceGate, request: BuildRequest) -> None:
    """The Dockerfile of a build from a directory is an input, too. Raises SourceDenied, InvalidValue."""
    if gate.open or request.llb is not None or not os.path.isdir(request.context):
        return
    found, _ = gate.passed(DOCKERFILE)
    if found != DOCKERFILE:
        raise InvalidValue(
            f"policy converts {DOCKERFILE} to {found}, but the Dockerfile is that of the build",
            hint="name another one with -f",
        )


def judged_frontend(gate: SourceGate, dockerfile: Dockerfile, build_args: dict[str, str]) -> str:
    """The frontend that the policy puts in the place of one that is not ours; "" = none.

    No frontend is ever fetched, so what ours is replaced by (a mirror's) does not matter. One that is denied
    is denied all the same. Raises SourceDenied.
    """
    if gate.open:
        return ""
    text, line = requested(dockerfile.source, build_args)
    name = text.split(None, 1)[0] if text.strip() else ""
    if name in BUILT_IN:
        return ""
    identifier = _identifier(name)
    if identifier is None:
        return ""
    try:
        found, _ = gate.passed(identifier)
    except SourceDenied as error:
        _locate(error, dockerfile.source.span(line, line) if line else None)
        raise
    return "" if found == identifier or is_ours(name) else found.removeprefix(_IMAGE)


def judged_imports(gate: SourceGate, specs: tuple[CacheSpec, ...]) -> tuple[CacheSpec, ...]:
    """Imported caches with their references as the policy wants them; those without one are no sources.

    Raises SourceDenied, and InvalidValue for one that is to be something else than an image's reference.
    """
    return specs if gate.open else tuple(_judged_import(gate, spec) for spec in specs)


def _judged_import(gate: SourceGate, spec: CacheSpec) -> CacheSpec:
    identifier = _identifier(spec.attr("ref")) if spec.type == "registry" else None
    if identifier is None:
        return spec
    found, _ = gate.passed(identifier)
    if found == identifier:
        return spec
    if not found.startswith(_IMAGE):
        raise InvalidValue(
            f"policy converts the imported cache {identifier} to {found}, which is no image",
            hint="want docker-image://…",
        )
    ref = found.removeprefix(_IMAGE)
    return replace(spec, attrs=tuple((k, ref if k == "ref" else v) for k, v in spec.attrs))


def _identifier(ref: str) -> str | None:
    """How policies see a reference; None for one that is not valid, which others refuse."""
    try:
        return f"{_IMAGE}{Reference.parse(ref).with_default_tag()}"
    except InvalidValue:
        return None


def _locate(error: SourceDenied, span: Span | None) -> None:
    if span is not None:
        error.filename, error.first_line, error.last_line = span.filename, span.start, span.end
