"""Platforms: ``os[/arch[/variant]]`` parsing, normalising and match order (frontend rows PLT-01, PLT-02)."""

from __future__ import annotations

import functools
import os
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
        if not text.strip() or len(parts) > 3 or not all(_plain(part) for part in parts):
            raise InvalidValue(
                f"invalid platform {text!r}", hint="want os/arch or os/arch/variant, like linux/arm64"
            )
        os_name, version = parts[0], ""
        if "(" in os_name:
            os_name, _, rest = os_name.partition("(")
            version = rest.rstrip(")").split("+")[0]
        os_name = {"macos": "darwin"}.get(os_name, os_name)
        host = host_platform()
        if len(parts) == 1:
            if os_name in _KNOWN_OS:
                return normalize(cls(os_name, host.architecture, host.variant, version))
            arch = _ARCH.get(os_name, os_name)
            if arch not in _KNOWN_ARCH:
                raise InvalidValue(f"{text!r}: unknown operating system or architecture")
            return normalize(cls(host.os, os_name))
        return normalize(cls(os_name, parts[1], parts[2] if len(parts) == 3 else "", version))

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def _plain(part: str) -> bool:
    return bool(part) and all(c.isalnum() or c in "_-.()+" for c in part)


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
        level = int(variant[1:]) if variant[1:].isdigit() else 1
        own = [Platform(name, arch, f"v{n}" if n > 1 else "") for n in range(level, 0, -1)]
        return (*own, Platform(name, "386"))
    if arch == "arm":
        level = int(variant[1:]) if variant[1:].isdigit() else 7
        return tuple(Platform(name, arch, f"v{n}") for n in range(level, 4, -1))
    if arch == "arm64":
        own = [platform] if variant else []
        return (*own, Platform(name, arch), *(Platform(name, "arm", f"v{n}") for n in range(8, 4, -1)))
    return (platform,)


def best_match(wanted: Platform, offered: tuple[Platform, ...]) -> int | None:
    """Index of the platform in ``offered`` that serves ``wanted`` best, or None."""
    known = [normalize(p) for p in offered]
    for candidate in candidates(normalize(wanted)):
        for index, platform in enumerate(known):
            same = (platform.os, platform.architecture, platform.variant)
            if same == (candidate.os, candidate.architecture, candidate.variant):
                return index
    return None
