"""``--format`` for one value, as inspect, info and version have it."""

from __future__ import annotations

import json
from typing import Any

from cli.render.template_run import Struct, Template, to_json

_MAPS = frozenset(
    {
        "Annotations",
        "Data",
        "DriverOpts",
        "ExposedPorts",
        "Labels",
        "LogOpts",
        "Networks",
        "Options",
        "Ports",
        "PortBindings",
        "StorageOpt",
        "Sysctls",
        "Tmpfs",
        "Volumes",
        "VolumesRW",
    }
)


def structs(value: Any, *, is_map: bool = False) -> Any:
    """``value`` with every dict that docker holds as a struct made one; what is a map stays a dict."""
    if isinstance(value, dict):
        held = {key: structs(item, is_map=key in _MAPS) for key, item in value.items()}
        return held if is_map else Struct(held)
    if isinstance(value, (list, tuple)):
        return [structs(item) for item in value]
    return value


def formatted(form: str, value: Any) -> str:
    """``value`` in the form asked for: ``json`` or a template."""
    if form == "json":
        return to_json(structs(value))
    return Template(form).render(structs(value))


def pretty_json(value: Any) -> str:
    """Indented JSON, as inspect prints it."""
    return json.dumps(value, indent=4, ensure_ascii=False)
