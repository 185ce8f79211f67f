"""A step's own socket for an ssh agent: owner and mode are the step's, the answers the agent's (MNT-15).

A step can list keys and have things signed. What would change the agent (add, remove, lock, extensions) is
answered with a failure and never reaches it (EXE-21).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.errors import SolveError

_CHUNK = 1 << 16
_NAME = "agent"
_ALLOWED = {11, 13}
"""SSH_AGENTC_REQUEST_IDENTITIES and SSH_AGENTC_SIGN_REQUEST."""
_FAILURE = b"\0\0\0\1\5"
_MAX_MESSAGE = 256 * 1024
_Pump = Callable[[socket.socket, socket.socket], None]


@contextmanager
def agent_socket(
    agent: str, directory: Path, *, mode: int, uid: int, gid: int, raw: bool = False
) -> Iterator[Path]:
    """A socket in ``directory`` that hands every connection on to ``agent``; closed at the end. ``raw`` lets
    everything pass.

    Raises SolveError when the owner is none that this process may give things to.
    """
    listener = socket.socket(socket.AF_UNIX)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{fd}/{_NAME}")  # a socket's own name has room for 107 bytes only
    finally:
        os.close(fd)
    path = directory / _NAME
    try:
        os.chown(path, uid, gid)
    except OSError as error:
        listener.close()
        raise SolveError(
            f"the ssh agent's socket cannot belong to {uid}:{gid}: {error.strerror}",
            hint="without root only ids of this user's ranges can be used (/etc/subuid, /etc/subgid)",
        ) from error
    path.chmod(mode)
    listener.listen()
    open_ends: set[socket.socket] = set()
    pump = _both_ways if raw else _in_turn
    args = (listener, agent, open_ends, pump)
    threading.Thread(target=_serve, args=args, name="ssh agent", daemon=True).start()
    try:
        yield path
    finally:
        for end in (listener, *tuple(open_ends)):
            _shut(end)
        listener.close()


def _serve(listener: socket.socket, agent: str, open_ends: set[socket.socket], pump: _Pump) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(agent)
        except OSError:
            near.close()
            far.close()
            continue
        open_ends |= {near, far}
        threading.Thread(
            target=_relay, args=(near, far, open_ends, pump), name="ssh agent", daemon=True
        ).start()


def _relay(near: socket.socket, far: socket.socket, open_ends: set[socket.socket], pump: _Pump) -> None:
    try:
        pump(near, far)
    except OSError:
        pass  # either end is gone, and with it the conversation
    open_ends -= {near, far}
    near.close()
    far.close()


def _in_turn(near: socket.socket, far: socket.socket) -> None:
    """Request and reply, one after the other, as agents talk."""
    while (request := _message(near)) is not None:
        if request[4] not in _ALLOWED:
            near.sendall(_FAILURE)
            continue
        far.sendall(request)
        reply = _message(far)
        if reply is None:
            return
        near.sendall(reply)


def _message(source: socket.socket) -> bytes | None:
    """One message with its length; None at the end, and for what is none."""
    head = _exactly(source, 4)
    size = int.from_bytes(head, "big")
    if len(head) < 4 or not 0 < size <= _MAX_MESSAGE:
        return None
    body = _exactly(source, size)
    return head + body if len(body) == size else None


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (chunk := source.recv(min(_CHUNK, size - len(data)))):
        data += chunk
    return data


def _both_ways(near: socket.socket, far: socket.socket) -> None:
    back = threading.Thread(target=_pump, args=(far, near), name="ssh agent", daemon=True)
    back.start()
    _pump(near, far)
    back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Bytes from one end to the other until there are no more; then the other is told."""
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _shut(source)
        _shut(sink)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
