"""The few rtnetlink requests that a RUN step's network takes, without importing a netlink library.

pyroute2 is the door for everything else (bridges, containers); its import alone takes longer than thirty RUN
steps, and a build needs just these four messages. Layouts: rtnetlink(7), linux/if_link.h, linux/veth.h.
"""

from __future__ import annotations

import os
import socket
import struct

_NEWLINK, _NEWADDR, _NEWROUTE = 16, 20, 24
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_ERROR = 2
_IFF_UP = 1

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_OIF, _RTA_GATEWAY = 4, 5
_TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _TYPE_UNICAST = 254, 3, 0, 1


def _attr(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + bytes(-size % 4)


def _text(kind: int, text: str) -> bytes:
    return _attr(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attr(kind, struct.pack("=I", value))


def _link(index: int = 0, *, up: bool = False) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, _IFF_UP if up else 0)


class Route:
    """A socket in the network namespace of the thread that makes it; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._sequence = 0

    def __enter__(self) -> Route:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def veth(self, name: str, *, bridge: int, mtu: int, netns: int, peer: str, mac: bytes) -> None:
        """A pair: ``name`` here, up and on the bridge; ``peer`` in the namespace behind the fd ``netns``."""
        inside = b"".join(
            (
                _link(),
                _text(_IFLA_IFNAME, peer),
                _number(_IFLA_MTU, mtu),
                _attr(_IFLA_ADDRESS, mac),
                _number(_IFLA_NET_NS_FD, netns),
            )
        )
        kind = _text(_INFO_KIND, "veth") + _attr(_INFO_DATA, _attr(_VETH_PEER, inside))
        body = (
            _link(up=True)
            + _text(_IFLA_IFNAME, name)
            + _number(_IFLA_MTU, mtu)
            + _number(_IFLA_MASTER, bridge)
            + _attr(_IFLA_LINKINFO, kind)
        )
        self._ask(_NEWLINK, body, _CREATE | _EXCL, f"add link {name}")

    def up(self, index: int) -> None:
        """Switch a link on."""
        self._ask(_NEWLINK, _link(index, up=True), 0, f"switch on link {index}")

    def address(self, index: int, address: str, prefix_length: int) -> None:
        """Give a link an IPv4 address."""
        packed = socket.inet_aton(address)
        mask = (1 << (32 - prefix_length)) - 1
        broadcast = struct.pack("!I", struct.unpack("!I", packed)[0] | mask)
        body = (
            struct.pack("=BBBBI", socket.AF_INET, prefix_length, 0, _SCOPE_UNIVERSE, index)
            + _attr(_IFA_LOCAL, packed)
            + _attr(_IFA_ADDRESS, packed)
            + _attr(_IFA_BROADCAST, broadcast)
        )
        self._ask(_NEWADDR, body, _CREATE | _EXCL, f"add address {address}")

    def default_route(self, index: int, gateway: str) -> None:
        """Send everything else through ``gateway``."""
        head = struct.pack(
            "=BBBBBBBBI",
            socket.AF_INET,
            0,
            0,
            0,
            _TABLE_MAIN,
            _PROTOCOL_BOOT,
            _SCOPE_UNIVERSE,
            _TYPE_UNICAST,
            0,
        )
        body = head + _attr(_RTA_GATEWAY, socket.inet_aton(gateway)) + _number(_RTA_OIF, index)
        self._ask(_NEWROUTE, body, _CREATE | _EXCL, f"add route by {gateway}")

    def _ask(self, kind: int, body: bytes, flags: int, what: str) -> None:
        """Send one request and wait for its acknowledgement. Raises OSError."""
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, self._sequence, 0)
        self._socket.send(head + body)
        reply = self._socket.recv(65536)
        _, answer, _, sequence, _ = struct.unpack_from("=IHHII", reply)
        if answer != _ERROR or sequence != self._sequence:
            raise OSError(71, f"unexpected answer {answer} of the kernel", what)
        (code,) = struct.unpack_from("=i", reply, 16)
        if code:
            raise OSError(-code, os.strerror(-code), what)
