"""pybuild as a library: build, run and ship container images from Python.

``build`` makes one image; ``Client`` keeps a state directory open for builds, images and containers. Every
expected failure is a ``PybuildError``. Names are looked up on first use, so that the import costs nothing.
"""

from __future__ import annotations

from builder import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builder.build.report import BuildReport, StepReport
    from builder.build.request import BuildResult
    from builder.cache.limits import SpaceLimits
    from builder.errors import (
        Cancelled,
        NoSuchImage,
        RegistryError,
        SolveError,
        StepFailed,
        StoreError,
        UsageError,
    )
    from builder.exporter.types import OutputSpec
    from builder.registry.hosts import RegistryConfig
    from builder.solver.cancel import Cancel
    from builder.solver.causes import Cause
    from builder.solver.progress import LogEvent, StatusEvent, VertexEvent, WarningEvent
    from pybuild._build import build
    from pybuild._client import Client
    from pybuild._container import Container, Finished
    from runtime.errors import ContainerError, NoSuchContainer, NotPermitted, PybuildError

_HOMES = {
    "builder.build.report": ("BuildReport", "StepReport"),
    "builder.build.request": ("BuildResult",),
    "builder.cache.limits": ("SpaceLimits",),
    "builder.errors": (
        *(
            "Cancelled",
            "NoSuchImage",
            "RegistryError",
            "SolveError",
            "StepFailed",
            "StoreError",
            "UsageError",
        ),
    ),
    "builder.exporter.types": ("OutputSpec",),
    "builder.registry.hosts": ("RegistryConfig",),
    "builder.solver.cancel": ("Cancel",),
    "builder.solver.causes": ("Cause",),
    "builder.solver.progress": ("LogEvent", "StatusEvent", "VertexEvent", "WarningEvent"),
    "pybuild._build": ("build",),
    "pybuild._client": ("Client",),
    "pybuild._container": ("Container", "Finished"),
    "runtime.errors": ("ContainerError", "NoSuchContainer", "NotPermitted", "PybuildError"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BuildReport",
    "BuildResult",
    "Cancel",
    "Cancelled",
    "Cause",
    "Client",
    "Container",
    "ContainerError",
    "Finished",
    "LogEvent",
    "NoSuchContainer",
    "NoSuchImage",
    "NotPermitted",
    "OutputSpec",
    "PybuildError",
    "RegistryConfig",
    "RegistryError",
    "SolveError",
    "SpaceLimits",
    "StatusEvent",
    "StepFailed",
    "StepReport",
    "StoreError",
    "UsageError",
    "VertexEvent",
    "WarningEvent",
    "build",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
