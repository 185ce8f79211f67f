"""Limits on the build cache: flags, then PYBUILD_MAX_USED, PYBUILD_MIN_FREE and PYBUILD_RESERVED, then the
configuration's table ``gc`` (GC-08).
"""

from __future__ import annotations

import os

from builder.errors import UsageError
from cli.filters import usage_filter
from cli.flags import Args, text
from cli.units import size_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.limits import Policy, SpaceLimits
    from cli.settings import Settings

FLAGS = (
    text(
        "max-used",
        "",
        "Stop rather than let the build cache exceed this",
        metavar="size|percent",
        aliases=("max-used-space",),
    ),
    text(
        "min-free",
        "",
        "Stop rather than leave less of the disk free",
        metavar="size|percent",
        aliases=("min-free-space",),
    ),
    text(
        "reserved",
        "",
        "What the build cache may take even on a short disk",
        metavar="size|percent",
        aliases=("reserved-space",),
    ),
)
_NAMES = ("max-used", "min-free", "reserved")


def space_limits(args: Args, settings: Settings) -> SpaceLimits | None:
    """The limits that a build is to keep; None when nobody said anything. Raises UsageError."""
    config = settings.config
    said: dict[str, int] = {}
    for name in _NAMES:
        variable = f"PYBUILD_{name.replace('-', '_').upper()}"
        value, source = args.text(name), f"--{name}"
        if not value:
            value, source = settings.env(variable) or "", variable
        if not value and config is not None:
            value, source = getattr(config.gc, name.replace("-", "_")), f"gc.{name}"
        if value:
            said[name] = space_bytes(value, source, settings)
    if not said:
        return None
    from builder.cache.limits import SpaceLimits

    return SpaceLimits(
        max_used=said.get("max-used", 0), min_free=said.get("min-free", 0), reserved=said.get("reserved", 0)
    )


def gc_policies(settings: Settings) -> tuple[Policy, ...] | None:
    """The clean-up rules of the configuration; None = the usual ones, empty = none."""
    config = settings.config
    if config is None or (config.gc.enabled and not config.gc.policies):
        return None
    if not config.gc.enabled:
        return ()
    from builder.cache.limits import Policy

    found = []
    for rule in config.gc.policies:
        usage_filter(rule.filters, "gc.policies: ")
        sizes = {
            name: space_bytes(value, f"gc.policies.{name}", settings) if value else 0
            for name, value in zip(_NAMES, (rule.max_used, rule.min_free, rule.reserved), strict=True)
        }
        found.append(
            Policy(
                filters=rule.filters,
                everything=rule.all,
                keep_duration_s=rule.keep_duration_s,
                max_used=sizes["max-used"],
                min_free=sizes["min-free"],
                reserved=sizes["reserved"],
            )
        )
    return tuple(found)


def space_bytes(value: str, what: str, settings: Settings, *, unit: int = 1) -> int:
    """A size, or a percentage of the state directory's disk in whole gigabytes, rounded up (GC-08).

    ``unit``: what a bare number counts. Raises UsageError.
    """
    value = value.strip()
    if value.isdigit():
        return size_bytes(str(int(value) * unit), what)
    if not value.endswith("%"):
        return size_bytes(value, what)
    try:
        percent = float(value[:-1])
    except ValueError:
        percent = -1
    if not 0 <= percent <= 100:
        raise UsageError(f"invalid {what}: {value!r}", hint="a percentage of the disk from 0% to 100%")
    from builder.cache.limits import disk, share

    return share(disk(_existing(str(settings.root)))[0], percent)


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


__all__ = ["FLAGS", "gc_policies", "space_bytes", "space_limits"]
