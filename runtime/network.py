"""Bridges, veth pairs, network namespaces: the door to pyroute2, imported only to make or remove a bridge.

A container on the bridge has its own network namespace. Its monitor holds it by a file descriptor, so that
the namespace, its end of the veth pair and with them the other end vanish with the monitor; nothing is left
to clean. What is shared by every state directory of the machine lives in ``/run/pybuild/net/<bridge>``: the
table of addresses (``runtime.ipam``) and the rules in force::

    bridge.json            subnet, gateway, tool that made the rules
    addresses.json  lock   who has which address

RUN steps take theirs from ``runtime.buildnet``. Functions that must enter a namespace do so in a thread of
their own: the rest of the process never moves.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from runtime import ipam
from runtime.errors import ContainerError, NotPermitted
from runtime.rtnetlink import Route
from runtime.state import NetworkState, ProcessRef, write_file

if TYPE_CHECKING:
    import ipaddress

T = TypeVar("T")

DEFAULT_BRIDGE = "pybuild0"
DEFAULT_SUBNETS = ("172.29.0.0/16", "172.30.0.0/16", "10.129.0.0/16", "192.168.176.0/20")

_CLASS_NET = Path("/sys/class/net")


class NetworkFailed(ContainerError):
    """A network link, address or route could not be made."""

    code = "network-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """Which bridge; ``subnet`` empty = the first usable default. Everything has a working default."""

    name: str = DEFAULT_BRIDGE
    subnet: str = ""
    directory: Path = Path("/run/pybuild/net")

    @property
    def state_dir(self) -> Path:
        """Where the state of this bridge is kept."""
        return self.directory / self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A bridge that is up: its address is the containers' gateway."""

    name: str
    subnet: str
    gateway: str
    tool: str

    @property
    def prefix_length(self) -> int:
        """Bits of the network part."""
        return int(self.subnet.partition("/")[2])


def unavailable_reason() -> str | None:
    """Why no bridge can be made here, cheaply; None when it is worth trying."""
    from runtime.spawn import in_user_namespace

    if os.geteuid() != 0:
        return "a bridge needs root"
    if in_user_namespace():
        return "a bridge needs root on the host, not in a user namespace"
    try:
        with open("/proc/self/status", "rb") as file:
            effective = next(line for line in file if line.startswith(b"CapEff:"))
    except (OSError, StopIteration):
        return "cannot read the capabilities of this process"
    mask = int(effective.split()[1], 16)
    for number, name in ((12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")):
        if not mask & 1 << number:
            return f"a bridge needs {name}"
    return None


def ensure_bridge(config: BridgeConfig) -> Bridge:
    """The bridge, made or repaired as needed, with address translation; raises NetworkFailed or
    NotPermitted.
    """
    reason = unavailable_reason()
    if reason is not None:
        raise NotPermitted(reason, hint="use --network host or --network none", code="no-bridge")
    with ipam.locked(config.state_dir):
        return _ensure_bridge(config)


def connect(config: BridgeConfig, netns: int, *, owner: ProcessRef, mac_address: str = "") -> NetworkState:
    """Give the namespace behind the file descriptor ``netns`` an ``eth0`` on the bridge.

    The address belongs to ``owner`` for as long as that process lives.
    """
    bridge = ensure_bridge(config)
    with ipam.locked(config.state_dir):
        address = ipam.allocate(config.state_dir, _network(bridge.subnet), owner)
    return _attach(bridge, netns, address, mac_address)


def teardown(config: BridgeConfig) -> None:
    """Remove the bridge, and its rules; what containers still use it is the caller's concern."""
    with ipam.locked(config.state_dir):
        known = _read_bridge(config)
        if known is not None:
            from runtime import netfilter

            netfilter.remove(known.name, known.subnet)
            (config.state_dir / "bridge.json").unlink(missing_ok=True)
        if (_CLASS_NET / config.name).exists():
            with _route() as ip:
                ip.link("del", index=_index(config.name))
        (config.state_dir / "addresses.json").unlink(missing_ok=True)


# -- the bridge


def _ensure_bridge(config: BridgeConfig) -> Bridge:
    from runtime import netfilter

    known = _read_bridge(config)
    if known is not None and (_CLASS_NET / known.name).exists():
        if netfilter.installed(known.name, known.subnet, known.tool):
            netfilter.enable_forwarding()
            return known
        tool = netfilter.install(known.name, known.subnet)
        return _write_bridge(
            config, Bridge(name=known.name, subnet=known.subnet, gateway=known.gateway, tool=tool)
        )
    with _route() as ip:
        subnet, gateway = _make_bridge(ip, config)
    tool = netfilter.install(config.name, subnet)
    return _write_bridge(config, Bridge(name=config.name, subnet=subnet, gateway=gateway, tool=tool))


def _make_bridge(ip: Any, config: BridgeConfig) -> tuple[str, str]:
    if (_CLASS_NET / config.name).exists():
        found = _addresses(ip, _index(config.name))
        if found:
            import ipaddress

            return str(ipaddress.IPv4Interface(found[0]).network), found[0].partition("/")[0]
    else:
        ip.link("add", ifname=config.name, kind="bridge")
    network = _choose_subnet(ip, config)
    gateway = str(network.network_address + 1)
    index = _index(config.name)
    ip.addr("add", index=index, address=gateway, prefixlen=network.prefixlen)
    ip.link("set", index=index, state="up")
    return str(network), gateway


def _choose_subnet(ip: Any, config: BridgeConfig) -> ipaddress.IPv4Network:
    """The configured network, or the first default that no route of the host overlaps."""
    if config.subnet:
        return _network(config.subnet)
    routes = _routes(ip)
    for candidate in DEFAULT_SUBNETS:
        network = _network(candidate)
        if not any(network.overlaps(route) for route in routes):
            return network
    raise NetworkFailed(
        "every default network of the bridge overlaps a route of this host",
        hint="set a subnet for the bridge in the configuration, or use --network host",
    )


def _read_bridge(config: BridgeConfig) -> Bridge | None:
    try:
        value = json.loads((config.state_dir / "bridge.json").read_bytes())
        return Bridge(name=config.name, **value)
    except (OSError, ValueError, TypeError):
        return None


def _write_bridge(config: BridgeConfig, bridge: Bridge) -> Bridge:
    value = {"subnet": bridge.subnet, "gateway": bridge.gateway, "tool": bridge.tool}
    write_file(config.state_dir, "bridge.json", json.dumps(value).encode())
    return bridge


# -- one namespace


def _attach(bridge: Bridge, netns: int, address: str, mac_address: str) -> NetworkState:
    """Make the veth pair, put one end into ``netns`` and configure both."""
    mac = mac_address or ipam.mac_address(address)
    outside = host_link_name(bridge.name, address)
    try:
        try:
            _veth(bridge, netns, outside, mac)
        except FileExistsError:
            # Left by an owner that died a moment ago: the kernel is still taking its namespace apart.
            with _route() as ip:
                ip.link("del", index=_index(outside))
            _veth(bridge, netns, outside, mac)
        in_namespace(netns, lambda: _configure_inside(address, bridge))
    except OSError as error:
        raise NetworkFailed(f"the kernel refused a network change: {error}") from error
    return NetworkState(
        mode="bridge",
        ip_address=address,
        prefix_length=bridge.prefix_length,
        gateway=bridge.gateway,
        mac_address=mac,
        bridge=bridge.name,
    )


def _veth(bridge: Bridge, netns: int, outside: str, mac: str) -> None:
    with Route() as route:
        route.veth(
            outside,
            bridge=_index(bridge.name),
            mtu=uplink_mtu(),
            netns=netns,
            peer="eth0",
            mac=bytes.fromhex(mac.replace(":", "")),
        )


def _configure_inside(address: str, bridge: Bridge) -> None:
    with Route() as route:
        link = socket.if_nametoindex("eth0")
        route.up(1)
        route.address(link, address, bridge.prefix_length)
        route.up(link)
        route.default_route(link, bridge.gateway)


def host_link_name(bridge: str, address: str) -> str:
    """The host's end of a veth pair: unique because the address is (at most 15 bytes)."""
    import zlib

    return f"pb{zlib.crc32(bridge.encode()) & 0xFFFF:04x}" + "".join(
        f"{int(b):02x}" for b in address.split(".")
    )


def uplink_mtu() -> int:
    """The packet size of the host's default route, so that what containers send fits without fragments."""
    try:
        with open("/proc/net/route") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        link = next(row[0] for row in rows if row[1] == "00000000" and row[7] == "00000000")
        return max(1280, min(1500, int((_CLASS_NET / link / "mtu").read_text())))
    except (OSError, ValueError, StopIteration, IndexError):
        return 1500


def in_namespace(netns: int, action: Callable[[], T]) -> T:
    """The result of ``action``, run in a new thread that has entered the network namespace."""
    from runtime.syscalls.constants import CLONE_NEWNET
    from runtime.syscalls.linux import LinuxKernel

    def enter() -> T:
        LinuxKernel().setns(netns, CLONE_NEWNET)
        return action()

    return _in_thread(enter)


def new_namespace(use: Callable[[int], T]) -> T:
    """The result of ``use`` with a descriptor of a new network namespace; it lives on only if something
    holds it.
    """
    from runtime.syscalls.constants import CLONE_NEWNET
    from runtime.syscalls.linux import LinuxKernel

    def make() -> T:
        LinuxKernel().unshare(CLONE_NEWNET)
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return use(fd)
        finally:
            os.close(fd)

    return _in_thread(make)


def _in_thread(action: Callable[[], T]) -> T:
    """Run ``action`` in a thread that ends with it: a thread that changed its namespace must serve nothing
    else.
    """
    import threading

    outcome: list[T] = []
    problem: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(action())
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            problem.append(error)

    thread = threading.Thread(target=body, name="network-namespace")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]


# -- the pool


# -- pyroute2


class _Route:
    """An IPRoute socket whose errors are ours."""

    def __enter__(self) -> Any:
        from pyroute2 import IPRoute

        self._socket = IPRoute()
        return self._socket

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        from pyroute2.netlink.exceptions import NetlinkError

        if isinstance(value, NetlinkError):
            raise NetworkFailed(f"the kernel refused a network change: {value}") from value


def _route() -> _Route:
    return _Route()


def _index(name: str) -> int:
    try:
        return int((_CLASS_NET / name / "ifindex").read_text())
    except (OSError, ValueError) as error:
        raise NetworkFailed(f"no network link {name}") from error


def _addresses(ip: Any, index: int) -> list[str]:
    return [
        f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
        for message in ip.get_addr(family=2, index=index)
    ]


def _routes(ip: Any) -> list[ipaddress.IPv4Network]:
    found = []
    for message in ip.get_routes(family=2):
        destination = message.get_attr("RTA_DST")
        if destination:
            found.append(_network(f"{destination}/{message['dst_len']}"))
    return found


def _network(text: str) -> ipaddress.IPv4Network:
    import ipaddress

    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError as error:
        raise NetworkFailed(f"invalid subnet {text!r}", hint="write it as 172.29.0.0/16") from error
