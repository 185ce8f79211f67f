"""What attestations a build is asked for (ATT-01, ATT-04, ATT-10).

A request is a CSV text, ``type=provenance,mode=max``; the build arguments ``BUILDKIT_ATTEST_PROVENANCE`` and
``BUILDKIT_ATTEST_SBOM`` hold the attributes alone, or a boolean. The last one of a type counts; an explicit
request counts more than a build argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from builder.csvline import csv_fields
from builder.errors import UsageError

Pairs = tuple[tuple[str, str], ...]
Mode = Literal["min", "max"]
Version = Literal["v1", "v0.2"]

BUILD_ARG_PREFIX = "BUILDKIT_ATTEST_"
DEFAULT_SCANNER = "docker/buildkit-syft-scanner:stable-1"
_TYPES = ("provenance", "sbom")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceOptions:
    """The attributes of ``type=provenance``."""

    mode: Mode = "max"
    version: Version = "v1"
    builder_id: str = ""
    filename: str = "provenance.json"
    inline_only: bool = False
    reproducible: bool = False
    capture_usage: bool = False
    complete_materials: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SbomOptions:
    """The attributes of ``type=sbom``; ``params`` go to the scanner."""

    generator: str = DEFAULT_SCANNER
    params: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestRequest:
    """What is wanted; None = not."""

    provenance: ProvenanceOptions | None = None
    sbom: SbomOptions | None = None


def is_attest_arg(name: str) -> bool:
    """Whether a build argument asks for attestations."""
    return name.startswith(BUILD_ARG_PREFIX)


def parse_request(asked: Iterable[str], build_args: Pairs = ()) -> AttestRequest | None:
    """What is asked for, None when nothing is. Raises UsageError."""
    wanted: dict[str, dict[str, str]] = {}
    for name, value in build_args:
        kind = name.removeprefix(BUILD_ARG_PREFIX).lower()
        if is_attest_arg(name) and kind:
            wanted[_known(kind)] = _attrs(value, value)
    for text in asked:
        attrs = _attrs(text, text)
        kind = attrs.pop("type", "")
        if not kind:
            raise UsageError(
                f"attestation type not specified in {text!r}", hint="like type=provenance,mode=min"
            )
        wanted[_known(kind)] = attrs
    live = {kind: attrs for kind, attrs in wanted.items() if not _boolean("disabled", attrs, missing=False)}
    if not live:
        return None
    return AttestRequest(
        provenance=_provenance(live["provenance"]) if "provenance" in live else None,
        sbom=_sbom(live["sbom"]) if "sbom" in live else None,
    )


def _known(kind: str) -> str:
    if kind not in _TYPES:
        raise UsageError(f'unknown attestation type "{kind[:80]}"', hint=" and ".join(_TYPES) + " are known")
    return kind


def _attrs(text: str, shown: str) -> dict[str, str]:
    """Attributes in CSV form; a boolean alone turns the attestation on or off."""
    if text in _TRUE or not text:
        return {}
    if text in _FALSE:
        return {"disabled": "true"}
    found: dict[str, str] = {}
    for item in csv_fields(text, "attestation"):
        key, equals, value = item.partition("=")
        if not equals and key.strip() in ("true", "false"):
            key, value = "disabled", "false" if key.strip() == "true" else "true"
        elif not equals:
            raise UsageError(
                f"invalid value {item!r} in attestation {shown!r}", hint="want key=value, like mode=min"
            )
        found[key.strip()] = value
    return found


def _provenance(attrs: dict[str, str]) -> ProvenanceOptions:
    known = {
        "mode", "version", "builder-id", "filename", "inline-only", "reproducible", "capture-usage",
        "complete-materials", "disabled",
    }  # fmt: skip
    if unknown := sorted(set(attrs) - known):
        raise UsageError(
            f"unexpected key {unknown[0]!r} in provenance", hint="known: " + ", ".join(sorted(known))
        )
    mode = attrs.get("mode", "max")
    if mode not in ("min", "max", "full"):
        raise UsageError(f'invalid mode "{mode[:80]}"', hint="min or max")
    version = attrs.get("version", "v1")
    if version not in ("v1", "v0.2"):
        raise UsageError(f"invalid provenance SLSA version: {version[:80]}", hint="v1 or v0.2")
    filename = attrs.get("filename") or "provenance.json"
    if "/" in filename or filename in (".", "..") or "\0" in filename or len(filename) > 255:
        raise UsageError(f"invalid filename {filename[:80]!r} of the provenance", hint="want a plain name")
    return ProvenanceOptions(
        mode="min" if mode == "min" else "max",
        version="v0.2" if version == "v0.2" else "v1",
        builder_id=attrs.get("builder-id", ""),
        filename=filename,
        inline_only=_boolean("inline-only", attrs),
        reproducible=_boolean("reproducible", attrs),
        capture_usage=_boolean("capture-usage", attrs),
        complete_materials=_boolean("complete-materials", attrs),
    )


def _sbom(attrs: dict[str, str]) -> SbomOptions:
    params = tuple(sorted((k, v) for k, v in attrs.items() if k not in ("generator", "disabled")))
    for key, value in params:
        if not key or not key.isascii() or any(c in key for c in "=\0") or "\0" in value:
            raise UsageError(f"invalid key {key[:80]!r} in sbom")
    return SbomOptions(generator=attrs.get("generator") or DEFAULT_SCANNER, params=params)


def _boolean(key: str, attrs: dict[str, str], *, missing: bool = False) -> bool:
    value = attrs.get(key)
    if value is None:
        return missing
    if value in _TRUE or not value:
        return True
    if value in _FALSE:
        return False
    raise UsageError(f'failed to parse {key} flag "{value[:80]}"', hint="true or false")
