"""Port specifications of EXPOSE (rows MET-06, MET-07)."""

from __future__ import annotations

from builder.frontend.errors import suggestion
from builder.frontend.instructions import Origin
from builder.frontend.lint import Linter
from builder.frontend.parts import Part

MAX_PORT = 65535
PROTOCOLS = ("tcp", "udp", "sctp")


def container_ports(text: str, linter: Linter, at: Origin, part: Part) -> list[str]:
    """The ``port/proto`` keys that ``[[ip:]host:]port[-range][/proto]`` stands for; raises ValueError.

    Lint findings are about ``part`` of the instruction.
    """
    rest, _, proto = text.partition("/")
    lowered = proto.lower() or "tcp"
    if proto != proto.lower():
        message = f"Defined protocol '{proto}' in EXPOSE instruction should be lowercase"
        linter.report("ExposeProtoCasing", at, message, part=part)
    address, host, container = _split(rest)
    if not container:
        raise ValueError(f'invalid port: "{text}": no port specified')
    if lowered not in PROTOCOLS:
        raise ValueError(f'invalid port: "{text}": invalid proto: {proto}{suggestion(proto, PROTOCOLS)}')
    if address and not _is_address(address):
        raise ValueError(f'invalid port: "{text}": invalid IP address: {address}')
    first, last = _range(container, text, "containerPort")
    if host:
        low, high = _range(host, text, "hostPort")
        if high - low != last - first and first != last:
            raise ValueError(
                f'invalid port: "{text}": invalid ranges specified for container and host Ports: '
                f"{container} and {host}"
            )
    if address or host:
        message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
        linter.report("ExposeInvalidFormat", at, message, part=part)
    return [f"{port}/{lowered}" for port in range(first, last + 1)]


def _split(text: str) -> tuple[str, str, str]:
    """``ip:host:container`` from the right; an IPv6 address may stand in brackets."""
    before, _, container = text.rpartition(":")
    address, _, host = before.rpartition(":")
    return address, host, container


def _is_address(text: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _range(text: str, whole: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first, first]
    if not all(n.isascii() and n.isdigit() and len(n) <= 5 and int(n) <= MAX_PORT for n in numbers):
        raise ValueError(f'invalid port: "{whole}": invalid {what}: {text}')
    low, high = (int(n) for n in numbers)
    if high < low:
        raise ValueError(f'invalid port: "{whole}": invalid {what}: {text}')
    return low, high
