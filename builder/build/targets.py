"""Where a build goes: its platforms and its outputs."""

from __future__ import annotations

from dataclasses import replace

from builder.build.export import TREE_OUTPUTS
from builder.build.memo import full_names
from builder.build.request import BuildRequest
from builder.errors import InvalidValue, UsageError
from builder.exporter.types import OutputSpec
from builder.oci.platform import Platform


def platforms_of(request: BuildRequest) -> tuple[Platform, ...]:
    """The platforms asked for, each once. Raises UsageError."""
    try:
        return tuple(dict.fromkeys(map(Platform.parse, request.platforms)))
    except InvalidValue as error:
        raise UsageError(error.message, hint=error.hint) from error


def multi_platform(request: BuildRequest) -> bool:
    """Whether the result is an index: for several platforms, or asked for (ARG-12, OPT-08)."""
    several = len(platforms_of(request)) > 1
    text = dict(request.build_args).get("BUILDKIT_MULTI_PLATFORM", "").lower()
    if text in ("1", "t", "true"):
        return True
    if text not in ("", "0", "f", "false"):
        raise UsageError(f"invalid boolean value for multi-platform: {text[:80]}")
    if text and several:
        raise UsageError("conflicting config: returning multiple target platforms is not allowed")
    return several


def outputs_of(request: BuildRequest) -> tuple[OutputSpec, ...]:
    """The outputs with the names of ``-t``; without any output the image goes into the store."""
    names = full_names(request.tags)
    asked = request.outputs or (OutputSpec(type="image"),)
    if multi_platform(request):
        asked = tuple(replace(spec, indexed=True) for spec in asked)
    return tuple(
        spec if spec.type in TREE_OUTPUTS else replace(spec, names=_names(spec, names)) for spec in asked
    )


def _names(spec: OutputSpec, tags: tuple[str, ...]) -> tuple[str, ...]:
    """An output's own names; ``*`` among them stands for those of ``-t`` (EXP-03)."""
    own = tuple(name for name in spec.names if name != "*")
    return own if own == spec.names and own else (*own, *tags)
