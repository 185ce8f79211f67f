"""Platforms: ``os[/arch[/variant]]`` parsing, normalising and match order (frontend rows PLT-01, PLT-02)."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass

from builder.errors import InvalidValue

_ARCH = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
}
_KNOWN_ARCH = frozenset(
    {
        "386",
        "amd64",
        "arm",
        "arm64",
        "loong64",
        "mips",
        "mipsle",
        "mips64",
        "mips64le",
        "ppc64",
        "ppc64le",
        "riscv64",
        "s390x",
        "wasm",
    }
)
_KNOWN_OS = frozenset(
    {
        "linux",
        "darwin",
        "windows",
        "freebsd",
        "netbsd",
        "openbsd",
        "dragonfly",
        "solaris",
        "illumos",
        "plan9",
        "aix",
        "android",
        "js",
        "wasip1",
    }
)


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and processor, in normal form."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/arm64/v8``, ``arm64`` or ``linux``; the missing part is the host's.

        Raises InvalidValue.
        """
        parts = text.strip().lower().split("/")
        if len(parts) > 3 or not _os_pattern().fullmatch(parts[0]) or not all(map(_plain, parts[1:])):
            raise InvalidValue(
                f"invalid platform {text!r}", hint="want os/arch or os/arch/variant, like linux/arm64"
            )
        os_name, version = parts[0], ""
        features: tuple[str, ...] = ()
        if "(" in os_name:
            os_name, _, rest = os_name.partition("(")
            version, *found = rest.rstrip(")").split("+")
            features = tuple(sorted(feature for feature in found if feature))
        os_name = {"macos": "darwin"}.get(os_name, os_name)
        host = host_platform()
        if len(parts) == 1:
            if os_name in _KNOWN_OS:
                return normalize(cls(os_name, host.architecture, host.variant, version, features))
            arch = _ARCH.get(os_name, os_name)
            if arch not in _KNOWN_ARCH:
                raise InvalidValue(
                    f"invalid platform {text!r}: unknown operating system or architecture",
                    hint="want os/arch or os/arch/variant, like linux/arm64",
                )
            return normalize(cls(host.os, os_name))
        variant = parts[2] if len(parts) == 3 else ""
        return normalize(cls(os_name, parts[1], variant, version, features))

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@functools.cache
def _os_pattern() -> re.Pattern[str]:
    return re.compile(r"[a-z0-9_.-]+(?:\([a-z0-9_.-]*(?:\+[a-z0-9_.-]+)*\))?")


def _plain(part: str) -> bool:
    return part.isascii() and part != "" and all(c.isalnum() or c in "_-." for c in part)


def normalize(platform: Platform) -> Platform:
    """The one spelling of a platform: aliases resolved, default variants dropped or filled (PLT-01)."""
    arch, variant = platform.architecture.lower(), platform.variant.lower()
    if arch == "armhf":
        arch, variant = "arm", variant or "v7"
    elif arch == "armel":
        arch, variant = "arm", variant or "v6"
    else:
        arch = _ARCH.get(arch, arch)
    if arch == "arm64" and variant in ("8", "v8"):
        variant = ""
    elif arch == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    elif arch == "amd64" and variant == "v1":
        variant = ""
    return Platform(platform.os.lower(), arch, variant, platform.os_version, platform.os_features)


@functools.cache
def host_platform() -> Platform:
    """The platform of this machine."""
    return normalize(Platform("linux", os.uname().machine))


def candidates(platform: Platform) -> tuple[Platform, ...]:
    """Platforms that can serve ``platform``, best first (PLT-02)."""
    name, arch, variant = platform.os, platform.architecture, platform.variant
    if arch == "amd64":
        level = _level(variant, 1)
        own = [Platform(name, arch, f"v{n}" if n > 1 else "") for n in range(level, 0, -1)]
        return (*own, Platform(name, "386"))
    if arch == "arm":
        level = _level(variant, 7)
        return tuple(Platform(name, arch, f"v{n}") for n in range(level, 4, -1)) or (platform,)
    if arch == "arm64":
        own = [Platform(name, arch, text) for text in _arm64_variants(variant)]
        return (*own, *(Platform(name, "arm", f"v{n}") for n in range(8, 4, -1)))
    return (platform,)


def _level(variant: str, default: int) -> int:
    """The number in ``v3``; one that no processor has counts as not said."""
    digits = variant[1:]
    return int(digits) if len(digits) == 1 and digits in "123456789" else default


def _arm64_variants(variant: str) -> list[str]:
    """``variant`` and what it can run, best first: v9.x includes v8.(x+5), v8.0 is written as no variant."""
    major, _, minor_text = variant.removeprefix("v").partition(".")
    minor = int(minor_text) if len(minor_text) == 1 and minor_text in "0123456789" else 0
    found: list[str] = []
    if major == "9":
        found = [f"v9.{n}" if n else "v9" for n in range(minor, -1, -1)]
        minor += 5
    elif major not in ("", "8"):
        return [variant, ""]
    return [*found, *(f"v8.{n}" if n else "" for n in range(minor, -1, -1))]


def best_match(wanted: Platform, offered: tuple[Platform, ...]) -> int | None:
    """Index of the platform in ``offered`` that serves ``wanted`` best, or None."""
    known = [normalize(p) for p in offered]
    for candidate in candidates(normalize(wanted)):
        for index, platform in enumerate(known):
            same = (platform.os, platform.architecture, platform.variant)
            if same == (candidate.os, candidate.architecture, candidate.variant):
                return index
    return None
