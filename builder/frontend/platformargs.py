"""The predefined build arguments (rows ARG-09…12)."""

from __future__ import annotations

from builder.oci.platform import Platform

PROXY_ARGS = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")

NON_ENV_ARGS = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
"""Declared like others but never part of a command's environment (ARG-11)."""

FRONTEND_ARGS = frozenset(
    {
        "BUILDKIT_SYNTAX",
        "BUILDKIT_DOCKERFILE_CHECK",
        "BUILDKIT_CACHE_MOUNT_NS",
        "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
        "BUILDKIT_MULTI_PLATFORM",
        "BUILDKIT_SANDBOX_HOSTNAME",
        "BUILDKIT_INLINE_CACHE",
        "BUILDKIT_BUILD_NAME",
        "SOURCE_DATE_EPOCH",
        *NON_ENV_ARGS,
    }
)
"""Build arguments that mean something without being declared (ARG-12)."""

_SUFFIXES = ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")
PLATFORM_ARGS = frozenset(
    [prefix + suffix for prefix in ("BUILD", "TARGET") for suffix in _SUFFIXES] + ["TARGETSTAGE"]
)


def platform_args(build: Platform, target: Platform, target_stage: str) -> dict[str, str]:
    """BUILD*, TARGET* and TARGETSTAGE in global scope."""
    found: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[prefix + "PLATFORM"] = str(platform)
        found[prefix + "OS"] = platform.os
        found[prefix + "OSVERSION"] = platform.os_version
        found[prefix + "ARCH"] = platform.architecture
        found[prefix + "VARIANT"] = platform.variant
    found["TARGETSTAGE"] = target_stage or "default"
    return found


def proxy_env(build_args: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The proxy settings among ``build_args``, each under both spellings (ARG-10)."""
    pairs: list[tuple[str, str]] = []
    for name in PROXY_ARGS:
        value = build_args.get(name, build_args.get(name.lower()))
        if value is not None:
            pairs += [(name, value), (name.lower(), value)]
    return tuple(pairs)


def needs_no_declaration(name: str) -> bool:
    """Whether a build argument is of use although no ARG declares it."""
    return name.upper() in PROXY_ARGS or name in FRONTEND_ARGS or name in PLATFORM_ARGS
