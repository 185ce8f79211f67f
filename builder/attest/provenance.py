"""SLSA provenance, v1 and v0.2, in the shape that BuildKit gives it (ATT-04…ATT-09).

``Facts`` are what happened; the predicate is what the options let out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.attest.buildconfig import Usage, build_config, layer_map, source_map
from builder.attest.materials import Captured, Material
from builder.attest.request import ProvenanceOptions, is_attest_arg
from builder.frontend.redact import redact
from builder.llb.definition import Definition
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest

Pairs = tuple[tuple[str, str], ...]

BUILD_TYPE = "urn:pybuild:dockerfile:v1"
BUILDER_ID = "urn:pybuild:builder"
FRONTEND = "dockerfile.v0"
_HOST_SPECIFIC = frozenset({"cgroup-parent", "image-resolve-mode", "platform", "cache-imports"})
_MAX_ONLY = ("build-arg:", "label:")
_V02 = "https://mobyproject.org/buildkit@v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One platform's build. Times are RFC 3339; ``origin`` is the source that the Dockerfile came from.

    ``args`` are the frontend's options by their names in the protocol (``build-arg:A``); ``context`` is where
    the Dockerfile came from unless that was this machine. ``depths`` says of how many layers a step's outputs
    are made. ``usage`` are samples of the machine, ``step_usage`` of steps that ran.
    """

    definition: Definition
    captured: Captured
    args: Pairs
    context: Material | None
    path: str
    dockerfile: bytes = field(repr=False)
    dockerfile_version: str
    origin: str
    platform: str
    invocation_id: str
    started: str
    finished: str
    vcs: Pairs = ()
    depths: Mapping[Digest, Mapping[int, int]] = field(default_factory=dict)
    usage: tuple[Mapping[str, Any], ...] = ()
    step_usage: Usage = field(default_factory=dict)


def predicate(facts: Facts, options: ProvenanceOptions, layers: Sequence[Descriptor]) -> dict[str, Any]:
    """The provenance of an image with these ``layers``, lowest first; () when it has none to name."""
    return (_v1 if options.version == "v1" else _v02)(facts, options, layers)


def filter_args(args: Pairs) -> dict[str, str]:
    """Without what is of this machine only or asks for attestations; credentials masked (ATT-09)."""
    found: dict[str, str] = {}
    for key, value in args:
        name = key.removeprefix("build-arg:")
        if key in _HOST_SPECIFIC or key.startswith(("attest:", "vcs:")) or is_attest_arg(name):
            continue
        found[key] = redact(value)
    return dict(sorted(found.items()))


def _request(facts: Facts, options: ProvenanceOptions) -> tuple[dict[str, Any], bool]:
    """The parameters, and whether they are all there."""
    args, captured = filter_args(facts.args), facts.captured
    out: dict[str, Any] = {"frontend": FRONTEND}
    complete = True
    if options.mode == "min":
        shown = {key: value for key, value in args.items() if not key.startswith(_MAX_ONLY)}
        complete = len(shown) == len(args)
        args = shown
    if args:
        out["args"] = args
    if options.mode == "max":
        if captured.secrets:
            out["secrets"] = [item.to_json() for item in captured.secrets]
        if captured.ssh:
            out["ssh"] = [item.to_json() for item in captured.ssh]
    elif captured.secrets or captured.ssh:
        complete = False
    if captured.locals:
        out["locals"] = [{"name": name} for name in captured.locals]
    return out, complete


def _config_source(facts: Facts, path_key: str) -> dict[str, Any]:
    source = facts.context.to_json() if facts.context is not None else {}
    return {**source, **({path_key: redact(facts.path)} if facts.path else {})}


def _metadata(facts: Facts, options: ProvenanceOptions, layers: Sequence[Descriptor]) -> dict[str, Any]:
    """What only BuildKit's documents have."""
    out: dict[str, Any] = {}
    if facts.vcs:
        out["vcs"] = {key: redact(value) for key, value in facts.vcs}
    if options.mode == "max":
        out["source"] = source_map(facts.definition, facts.path, facts.dockerfile, facts.origin)
        found = layer_map(facts.definition, facts.depths, layers)
        if found:
            out["layers"] = found
    if options.capture_usage and facts.usage:
        out["sysUsage"] = [dict(sample) for sample in facts.usage]
    return out


def _is_hermetic(facts: Facts) -> bool:
    return facts.captured.complete and not facts.captured.network


def _v1(facts: Facts, options: ProvenanceOptions, layers: Sequence[Descriptor]) -> dict[str, Any]:
    request, complete = _request(facts, options)
    internal: dict[str, Any] = {}
    if options.mode == "max":
        internal["buildConfig"] = build_config(facts.definition, facts.step_usage)
    internal["builderPlatform"] = facts.platform
    if facts.dockerfile_version:
        internal["dockerfileVersion"] = facts.dockerfile_version
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"configSource": _config_source(facts, "path"), "request": request},
            "internalParameters": internal,
            "resolvedDependencies": [item.to_json() for item in facts.captured.materials],
        },
        "runDetails": {
            "builder": {"id": options.builder_id or BUILDER_ID},
            "metadata": {
                "invocationID": facts.invocation_id,
                "startedOn": facts.started,
                "finishedOn": facts.finished,
                "buildkit_metadata": _metadata(facts, options, layers),
                "buildkit_hermetic": _is_hermetic(facts),
                "buildkit_completeness": {
                    "request": complete,
                    "resolvedDependencies": facts.captured.complete,
                },
                "buildkit_reproducible": options.reproducible,
            },
        },
    }


def _v02(facts: Facts, options: ProvenanceOptions, layers: Sequence[Descriptor]) -> dict[str, Any]:
    request, complete = _request(facts, options)
    return {
        "builder": {"id": options.builder_id or BUILDER_ID},
        "buildType": BUILD_TYPE,
        "materials": [item.to_json() for item in facts.captured.materials],
        "invocation": {
            "configSource": _config_source(facts, "entryPoint"),
            "parameters": request,
            "environment": {"platform": facts.platform},
        },
        **(
            {"buildConfig": build_config(facts.definition, facts.step_usage)} if options.mode == "max" else {}
        ),
        "metadata": {
            "buildInvocationID": facts.invocation_id,
            "buildStartedOn": facts.started,
            "buildFinishedOn": facts.finished,
            "completeness": {
                "parameters": complete,
                "environment": True,
                "materials": facts.captured.complete,
            },
            "reproducible": options.reproducible,
            f"{_V02}#hermetic": _is_hermetic(facts),
            f"{_V02}#metadata": _metadata(facts, options, layers),
        },
    }
