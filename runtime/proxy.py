"""Published ports: a userland forwarder that lives in the monitor's loop (NET-07).

A listening socket on the host accepts (TCP) or receives (UDP); each connection or peer gets a socket of its
own to the container's address. Because it is an ordinary process that connects, loopback works, and nothing
is left in the kernel when the monitor is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable

from runtime.errors import ContainerError
from runtime.eventloop import READ, WRITE, Loop, Outlet, Timer

DYNAMIC_FIRST = 49153
DYNAMIC_LAST = 65535
_CHUNK = 64 << 10
_UDP_IDLE_S = 90.0
_BACKLOG = 128
_EADDRINUSE = 98

Port = tuple[int, str, str, int]
"""Container port, protocol, host address, host port (0 = any free one)."""
_Peer = tuple[str | int, ...]


class PortTaken(ContainerError):
    """A host port cannot be bound."""

    code = "port-unavailable"
    exit_status = 125


class Binding:
    """One bound host port and what it forwards to."""

    __slots__ = ("port", "sockets")

    def __init__(self, port: Port, bound: socket.socket) -> None:
        self.port = port
        self.sockets = [bound]


def bind_all(wanted: Iterable[Port]) -> list[Binding]:
    """Bind every port, or none and raise PortTaken; host port 0 picks a free one from 49153 up (RUN-28)."""
    bound: list[Binding] = []
    try:
        for port in wanted:
            bound.append(_bind(port))
    except BaseException:
        close_all(bound)
        raise
    return bound


def close_all(bindings: Iterable[Binding]) -> None:
    """Give the ports back."""
    for binding in bindings:
        for sock in binding.sockets:
            sock.close()


def _bind(port: Port) -> Binding:
    container_port, protocol, host_ip, host_port = port
    if host_port:
        candidates: Iterable[int] = (host_port,)
    else:
        span = DYNAMIC_LAST - DYNAMIC_FIRST + 1
        start = int.from_bytes(os.urandom(2), "little") % span
        candidates = (DYNAMIC_FIRST + (start + step) % span for step in range(span))
    problem: OSError | None = None
    for number in candidates:
        try:
            sock = _bound_socket(host_ip, number, protocol)
        except OSError as error:
            problem = error
            if error.errno != _EADDRINUSE:  # anything else is the same for the next port
                break
            continue
        return Binding((container_port, protocol, host_ip, number), sock)
    where = f"{host_ip}:{host_port}"
    if problem is not None and problem.errno == _EADDRINUSE:
        raise PortTaken(
            f"Bind for {where} failed: port is already allocated", hint="publish another host port"
        )
    reason = os.strerror(problem.errno or 0) if problem is not None else "no free port"
    raise PortTaken(f"Bind for {where} failed: {reason}")


def _bound_socket(address: str, number: int, protocol: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, number))
        if protocol == "tcp":
            sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def serve(loop: Loop, bindings: Iterable[Binding], address: str) -> None:
    """Forward every binding to the container at ``address`` from now on."""
    for binding in bindings:
        target = (address, binding.port[0])
        if binding.port[1] == "udp":
            _UdpForwarder(loop, binding.sockets[0], target)
        else:
            _TcpForwarder(loop, binding.sockets[0], target)


class _TcpForwarder:
    def __init__(self, loop: Loop, listener: socket.socket, target: tuple[str, int]) -> None:
        self._loop = loop
        self._listener = listener
        self._target = target
        loop.watch(listener.fileno(), READ, self._accept)

    def _accept(self, _: int) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        client.setblocking(False)
        server.setblocking(False)
        try:
            server.connect(self._target)
        except BlockingIOError:
            pass
        except OSError:
            client.close()
            server.close()
            return
        _Pair(self._loop, client, server)


class _Pair:
    """Two connected sockets; bytes and half-closes pass both ways."""

    def __init__(self, loop: Loop, client: socket.socket, server: socket.socket) -> None:
        self._loop = loop
        self._open = True
        self._ends: dict[int, socket.socket] = {client.fileno(): client, server.fileno(): server}
        self._other = {client.fileno(): server.fileno(), server.fileno(): client.fileno()}
        self._finished: set[int] = set()
        self._connecting = server.fileno()
        self._out = {fd: Outlet(loop, fd, on_broken=self._close) for fd in self._ends}
        loop.watch(client.fileno(), 0, self._handler(client.fileno()))
        loop.watch(server.fileno(), WRITE, self._handler(server.fileno()))

    def _handler(self, fd: int) -> Callable[[int], None]:
        return lambda events: self._ready(fd, events)

    def _ready(self, fd: int, events: int) -> None:
        if self._connecting:
            if self._ends[self._connecting].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._close()
                return
            if fd != self._connecting:
                return
            self._connecting = 0
        if events & WRITE and self._out[fd].pending:
            self._out[fd].flush()
        if self._open and events & READ and fd not in self._finished and not self._out[self._other[fd]].full:
            self._read(fd)
        if self._open:
            self._update()

    def _read(self, fd: int) -> None:
        other = self._other[fd]
        try:
            data = self._ends[fd].recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        if data:
            self._out[other].write(data)
            return
        self._finished.add(fd)

    def _update(self) -> None:
        for fd, outlet in self._out.items():
            other = self._other[fd]
            if fd in self._finished and not self._out[other].pending:
                try:
                    self._ends[other].shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            events = READ if fd not in self._finished and not self._out[other].full else 0
            self._loop.change(fd, events | (WRITE if outlet.pending else 0))
        if len(self._finished) == 2 and not any(outlet.pending for outlet in self._out.values()):
            self._close()

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        for fd, sock in self._ends.items():
            self._loop.forget(fd)
            sock.close()


class _UdpForwarder:
    """One socket towards the container per peer, forgotten after a quiet time."""

    def __init__(self, loop: Loop, listener: socket.socket, target: tuple[str, int]) -> None:
        self._loop = loop
        self._listener = listener
        self._target = target
        self._peers: dict[_Peer, tuple[socket.socket, Timer]] = {}
        loop.watch(listener.fileno(), READ, self._from_outside)

    def _from_outside(self, _: int) -> None:
        try:
            data, peer = self._listener.recvfrom(_CHUNK)
        except OSError:
            return
        sock = self._socket_of(peer)
        try:
            sock.send(data)
        except OSError:
            pass  # datagrams may be lost

    def _socket_of(self, peer: _Peer) -> socket.socket:
        known = self._peers.get(peer)
        if known is not None:
            known[1].cancel()
            sock = known[0]
        else:
            sock = socket.socket(
                socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
            sock.connect(self._target)
            self._loop.watch(sock.fileno(), READ, lambda _: self._from_inside(sock, peer))
        self._peers[peer] = (sock, self._loop.call_later(_UDP_IDLE_S, lambda: self._forget(peer)))
        return sock

    def _from_inside(self, sock: socket.socket, peer: _Peer) -> None:
        try:
            data = sock.recv(_CHUNK)
            self._listener.sendto(data, peer)
        except OSError:
            return

    def _forget(self, peer: _Peer) -> None:
        sock, _ = self._peers.pop(peer)
        self._loop.forget(sock.fileno())
        sock.close()
