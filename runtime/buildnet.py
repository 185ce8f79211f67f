"""Networks for RUN steps: namespaces on the bridge that live as long as the build that made them.

A namespace is held by a descriptor, not by a mount, so whatever ends the process ends it, with its veth pair
and its address. A step gives its namespace back clean: without NET_ADMIN it cannot have changed it, so the
next step takes it over. Where no bridge can be made a step gets the host's network, and the reason (EXE-16).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runtime import ipam
from runtime.errors import PybuildError
from runtime.network import (
    Bridge,
    BridgeConfig,
    ensure_bridge,
    host_link_name,
    in_namespace,
    new_namespace,
    unavailable_reason,
    uplink_mtu,
)
from runtime.rtnetlink import Route
from runtime.spec import Network
from runtime.state import process_ref

PEER = "eth0"


@dataclass(frozen=True, slots=True)
class _Namespace:
    fd: int
    address: str


class BuildNetworks:
    """The networks of one build; ``close`` ends them. Safe for many threads."""

    def __init__(self, config: BridgeConfig | None = None) -> None:
        self._config = config or BridgeConfig()
        self._lock = threading.Lock()
        self._bridge: Bridge | None = None
        self._reason: str | None = None
        self._free: list[_Namespace] = []

    @contextmanager
    def lease(self, *, reusable: bool = True) -> Iterator[tuple[Network, str]]:
        """A network for one step, and why it is the host's ('' when it is not).

        ``reusable``: the step cannot change its network, so another one may have it afterwards.
        """
        namespace, reason = self._take()
        if namespace is None:
            yield Network(mode="host"), reason
            return
        try:
            gateway = self._bridge.gateway if self._bridge is not None else ""
            path = f"/proc/{os.getpid()}/fd/{namespace.fd}"
            yield Network(mode="path", path=path, gateway=gateway), ""
        finally:
            if reusable:
                with self._lock:
                    self._free.append(namespace)
            else:
                self._drop(namespace)

    def close(self) -> None:
        """End every namespace."""
        with self._lock:
            free, self._free = self._free, []
        for namespace in free:
            self._drop(namespace)

    def _take(self) -> tuple[_Namespace | None, str]:
        with self._lock:
            if self._free:
                return self._free.pop(), ""
            if self._reason is None:
                self._reason = unavailable_reason() or ""
            if self._reason:
                return None, self._reason
            try:
                if self._bridge is None:
                    self._bridge = ensure_bridge(self._config)
                return self._make(self._bridge), ""
            except (PybuildError, OSError) as error:
                self._reason = str(error)
                return None, self._reason

    def _make(self, bridge: Bridge) -> _Namespace:
        """A new namespace with ``eth0`` on the bridge."""
        import ipaddress

        directory = self._config.state_dir
        with ipam.locked(directory):
            address = ipam.allocate(directory, ipaddress.IPv4Network(bridge.subnet), process_ref(os.getpid()))
        fd = new_namespace(os.dup)
        try:
            mac = bytes.fromhex(ipam.mac_address(address).replace(":", ""))
            with Route() as route:
                route.veth(
                    host_link_name(bridge.name, address),
                    bridge=socket.if_nametoindex(bridge.name),
                    mtu=uplink_mtu(),
                    netns=fd,
                    peer=PEER,
                    mac=mac,
                )
            in_namespace(fd, lambda: _configure(address, bridge))
        except BaseException:
            self._drop(_Namespace(fd, address))
            raise
        return _Namespace(fd, address)

    def _drop(self, namespace: _Namespace) -> None:
        os.close(namespace.fd)
        directory = self._config.state_dir
        with ipam.locked(directory):
            ipam.release(directory, namespace.address)


def _configure(address: str, bridge: Bridge) -> None:
    """Addresses and the default route, inside the namespace."""
    with Route() as route:
        link = socket.if_nametoindex(PEER)
        route.up(1)
        route.address(link, address, bridge.prefix_length)
        route.up(link)
        route.default_route(link, bridge.gateway)
