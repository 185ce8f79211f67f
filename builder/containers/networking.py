"""The network of a container at its start: which kind, which ports, and the files under /etc that follow
from it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from builder.cache.store import Store
from builder.containers import specs
from builder.containers.types import Container
from runtime import hosts
from runtime.container import Connect
from runtime.errors import PybuildError
from runtime.spec import Network
from runtime.state import NetworkState, PortState, ProcessRef

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.network import BridgeConfig

ANY_ADDRESS = "0.0.0.0"  # noqa: S104  (publishing to every address is the documented default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a start needs: the spec's network, the mode's name, ports, who makes links, and warnings."""

    network: Network
    mode: str
    bridge: bool = False
    ports: tuple[PortState, ...] = ()
    connect: Connect | None = None
    warnings: tuple[str, ...] = ()


def plan(store: Store, container: Container) -> Plan:
    """Decide the network of a start that happens now, and write the files that do not depend on an address.

    The default mode falls back to the host's network where no bridge can be made, with a warning; a bridge
    that was asked for by name is an error then.
    """
    asked = container.data["HostConfig"]["NetworkMode"]
    if asked in ("default", "bridge", ""):
        return _bridge(container, explicit=asked == "bridge")
    found = _simple(store, asked)
    warnings: tuple[str, ...] = ()
    if asked == "host" and container.data["HostConfig"]["PortBindings"]:
        warnings = ("Published ports are discarded when using host network mode",)
    _write_files(container, isolated=asked == "none", host=asked == "host", address="", gateway="")
    return replace(found, warnings=warnings)


def _simple(store: Store, asked: str) -> Plan:
    if asked == "host":
        return Plan(network=Network(mode="host"), mode="host")
    if asked == "none":
        return Plan(network=Network(mode="none"), mode="none")
    pid = specs.running_pid(store, asked[10:])
    return Plan(network=Network(mode="path", path=f"/proc/{pid}/ns/net"), mode=asked)


def bridge_config() -> BridgeConfig:
    """The bridge that containers of this machine share."""
    from runtime.network import BridgeConfig

    return BridgeConfig()


def _bridge(container: Container, *, explicit: bool) -> Plan:
    from runtime import network

    config = bridge_config()
    try:
        reason = network.unavailable_reason()
        if reason is None:
            network.ensure_bridge(config)
    except (PybuildError, OSError) as error:
        if explicit:
            raise
        reason = str(error)
    if reason is not None:
        if explicit:
            network.ensure_bridge(config)  # raises the reason as an error
        _write_files(container, isolated=False, host=True, address="", gateway="")
        warning = f"no bridge network on this machine ({reason}): the container uses the host's network"
        return Plan(network=Network(mode="host"), mode="host", warnings=(warning,))
    mac = container.data["Config"].get("MacAddress", "")

    def connect(netns: int, owner: ProcessRef) -> NetworkState:
        found = network.connect(config, netns, owner=owner, mac_address=mac)
        _write_files(container, isolated=True, host=False, address=found.ip_address, gateway=found.gateway)
        return found

    _write_files(container, isolated=True, host=False, address="", gateway="127.0.0.1")
    return Plan(
        network=Network(mode="path", path="/proc/self/ns/net"),
        mode="bridge",
        bridge=True,
        ports=_ports(container.data),
        connect=connect,
    )


def _ports(data: dict[str, Any]) -> tuple[PortState, ...]:
    """Published ports; with ``-P`` every other exposed one on a free high port (NET-07)."""
    found: list[PortState] = []
    if not (data["HostConfig"]["PortBindings"] or data["HostConfig"]["PublishAllPorts"]):
        return ()
    from builder.containers import options as parse

    bindings = data["HostConfig"]["PortBindings"]
    for text, entries in bindings.items():
        ((number, kind),) = parse.exposed(text)
        for entry in entries:
            found.append(
                PortState(
                    container_port=number,
                    protocol=kind,
                    host_ip=entry["HostIp"] or ANY_ADDRESS,
                    host_port=int(entry["HostPort"] or 0),
                )
            )
    if data["HostConfig"]["PublishAllPorts"]:
        for text in data["Config"].get("ExposedPorts") or {}:
            for number, kind in parse.exposed(text):
                if f"{number}/{kind}" not in bindings:
                    found.append(PortState(container_port=number, protocol=kind))
    return tuple(found)


def _write_files(container: Container, *, isolated: bool, host: bool, address: str, gateway: str) -> None:
    """``hosts``, ``resolv.conf`` and ``hostname`` of the container directory (CRE-09, NET-08, NET-09)."""
    config, host_config = container.data["Config"], container.data["HostConfig"]
    hostname = config["Hostname"] or os.uname().nodename
    extra = tuple(
        hosts.parse_add_host(text, gateway=gateway or "127.0.0.1") for text in host_config["ExtraHosts"] or ()
    )
    domain = config.get("Domainname")
    named = f"{hostname}.{domain} {hostname}" if domain and address else hostname
    text = hosts.host_hosts(extra) if host else _hosts(named, hostname, address, extra)
    resolv = hosts.resolv_conf(
        hosts.host_resolv_conf(),
        isolated=isolated,
        dns=tuple(host_config["Dns"]),
        search=tuple(host_config["DnsSearch"]),
        options=tuple(host_config["DnsOptions"]),
    )
    _write(container.directory / "hosts", text)
    _write(container.directory / "resolv.conf", resolv)
    _write(container.directory / "hostname", hosts.hostname_file(hostname))


def _hosts(named: str, hostname: str, address: str, extra: tuple[tuple[str, str], ...]) -> str:
    text = hosts.hosts_file(hostname, address=address, extra=extra)
    if address and named != hostname:
        text = text.replace(f"{address}\t{hostname}\n", f"{address}\t{named}\n")
    return text


def _write(path: Path, text: str) -> None:
    """Keep the inode: a running container has the file bind-mounted."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o644)
        file.write(text)
