"""What a container is told by keywords, and the same as a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from builder import containers as cases
from builder.errors import UsageError
from pybuild._checks import CONTAINER, check_kinds, check_names
from runtime.spec import Limits

Words = str | Sequence[str]


class ContainerOptions(TypedDict, total=False):
    """What ``create`` and ``run`` can be told; the flags of those names say more.

    ``volumes`` are ``SOURCE:TARGET[:ro]``, a directory of this machine or a volume's name; ``ports`` give
    the host's port for the container's (``80`` or ``"53/udp"``), 0 = any free one.
    """

    name: str
    entrypoint: Words | None
    env: Mapping[str, str]
    labels: Mapping[str, str]
    workdir: str
    user: str
    hostname: str
    network: str
    volumes: Sequence[str]
    ports: Mapping[int | str, int]
    extra_hosts: Mapping[str, str]
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    security_opt: Sequence[str]
    privileged: bool
    readonly_root: bool
    stop_signal: str
    stop_timeout_s: int
    shm_size: int
    limits: Limits


def fields(options: ContainerOptions) -> dict[str, Any]:
    """The options as fields of a ``CreateRequest``. Raises UsageError."""
    check_names(ContainerOptions.__annotations__, options)
    check_kinds(CONTAINER, options)
    out: dict[str, Any] = {}
    for key, value in options.items():
        if value is None:
            continue
        match key:
            case "env":
                out[key] = env_entries(options["env"])
            case "labels":
                out[key] = tuple(options["labels"].items())
            case "extra_hosts":
                out[key] = tuple(f"{host}:{address}" for host, address in options["extra_hosts"].items())
            case "ports":
                out[key] = tuple(_port(port, host) for port, host in options["ports"].items())
            case "volumes":
                out[key] = tuple(map(_volume, options["volumes"]))
            case "entrypoint":
                out[key] = words(value)  # type: ignore[arg-type]
            case "cap_add" | "cap_drop" | "security_opt":
                out[key] = tuple(value)  # type: ignore[arg-type]
            case _:
                out[key] = value
    return out


def words(command: Words) -> tuple[str, ...]:
    """A command as words; a text is one word."""
    return (command,) if isinstance(command, str) else tuple(map(str, command))


def env_entries(env: Mapping[str, str]) -> tuple[str, ...]:
    """As ``NAME=VALUE``."""
    return tuple(f"{name}={value}" for name, value in env.items())


def _port(port: int | str, host: int) -> cases.PortRequest:
    number, _, protocol = str(port).partition("/")
    if not number.isdigit() or protocol not in ("", "tcp", "udp"):
        raise UsageError(f"invalid port {port!r}", hint='a number, or such as "53/udp"')
    return cases.PortRequest(
        container_port=int(number), protocol="udp" if protocol == "udp" else "tcp", host_port=host
    )


def _volume(text: str) -> cases.VolumeRequest:
    from builder.containers.options import volume

    return volume(text)
