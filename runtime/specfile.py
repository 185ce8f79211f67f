"""A ContainerSpec and the monitor's options as JSON: the file ``spec.json`` of a container directory.

An object carries the name of its class under ``""`` and only the fields that differ from nothing; bytes
travel as base64. The two directions live here and invert each other; the classes know nothing of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runtime import spec as spec_module
from runtime.errors import ContainerError
from runtime.spec import ContainerSpec
from runtime.state import SPEC_FILE, PortState, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

_CLASS = ""
_BYTES = "base64"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When a container is started again by its monitor (RUN-32); ``maximum`` 0 = no bound."""

    name: Literal["no", "on-failure", "always", "unless-stopped"] = "no"
    maximum: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Where output goes: the json file, rotated at ``max_size`` bytes when set, or nowhere."""

    driver: Literal["json-file", "none"] = "json-file"
    max_size: int = 0
    max_files: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions:
    """How a container is looked after.

    With ``bridge`` the monitor makes a network namespace and the starter connects it; otherwise the
    specification says it all. ``network_mode`` is the name that state and inspection show. ``on_exit``
    is the command that removes an auto-remove container when the starter is not there to do it; empty = not
    auto-remove.
    """

    stdin: bool = False
    stdin_once: bool = False
    restart: RestartPolicy = RestartPolicy()
    log: LogOptions = LogOptions()
    stop_signal: int = 15
    bridge: bool = False
    network_mode: str = "none"
    ports: tuple[PortState, ...] = ()
    on_exit: tuple[str, ...] = ()

    def to_request(self, spec: ContainerSpec) -> dict[str, Any]:
        """What the monitor is told, as plain values."""
        return {
            "tty": spec.terminal,
            "stdin": self.stdin,
            "stdin_once": self.stdin_once,
            "restart": [self.restart.name, self.restart.maximum],
            "log": {
                "driver": self.log.driver,
                "max_size": self.log.max_size,
                "max_files": self.log.max_files,
            },
            "stop_signal": self.stop_signal,
            "bridge": self.bridge,
            "network_mode": self.network_mode,
            "netns_path": spec.network.path if spec.network.mode == "path" and not self.bridge else "",
            "ports": [[p.container_port, p.protocol, p.host_ip, p.host_port] for p in self.ports],
            "on_exit": list(self.on_exit),
        }


_CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        *(getattr(spec_module, name) for name in ("OverlayRoot", "DirRoot", "BindMount", "OverlayMount")),
        *(getattr(spec_module, name) for name in ("TmpfsMount", "FileMount", "Limits", "Rlimit", "Device")),
        *(spec_module.Network, ContainerSpec, RestartPolicy, LogOptions, MonitorOptions, PortState),
    )
}


def write(directory: Path, spec: ContainerSpec, options: MonitorOptions) -> None:
    """Write ``spec.json``."""
    document = {"spec": encode(spec), "options": encode(options)}
    write_file(directory, SPEC_FILE, json.dumps(document, separators=(",", ":")).encode())


def read(directory: Path) -> tuple[ContainerSpec, MonitorOptions]:
    """Read it back; ContainerError when it is missing or not ours."""
    try:
        document = json.loads((directory / SPEC_FILE).read_bytes())
        spec, options = decode(document["spec"]), decode(document["options"])
        if not isinstance(spec, ContainerSpec) or not isinstance(options, MonitorOptions):
            raise TypeError("not a container specification")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContainerError(
            f"cannot read the specification of container {directory.name[:12]}",
            context=(str(error),),
            code="container-spec-damaged",
        ) from error
    return spec, options


def encode(value: Any) -> Any:
    """The JSON form of a value made of our classes, tuples and plain values."""
    if type(value).__name__ in _CLASSES:
        out = {_CLASS: type(value).__name__}
        for name in value.__slots__:
            field = getattr(value, name)
            if field is not None and field != ():
                out[name] = encode(field)
        return out
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, bytes):
        import base64

        return {_BYTES: base64.b64encode(value).decode("ascii")}
    return value


def decode(value: Any) -> Any:
    """The value of a JSON form; TypeError or KeyError on anything that ``encode`` does not make."""
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if _BYTES in value:
        import base64

        return base64.b64decode(value[_BYTES])
    return _CLASSES[value[_CLASS]](**{name: decode(item) for name, item in value.items() if name != _CLASS})
