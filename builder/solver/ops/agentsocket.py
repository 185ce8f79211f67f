"""A step's own socket for an ssh agent: owner and mode are the step's, the answers the agent's (MNT-15)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.errors import SolveError

_CHUNK = 1 << 16
_NAME = "agent"


@contextmanager
def agent_socket(agent: str, directory: Path, *, mode: int, uid: int, gid: int) -> Iterator[Path]:
    """A socket in ``directory`` that hands every connection on to ``agent``; closed at the end.

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
    threading.Thread(target=_serve, args=(listener, agent, open_ends), name="ssh agent", daemon=True).start()
    try:
        yield path
    finally:
        for end in (listener, *tuple(open_ends)):
            _shut(end)
        listener.close()


def _serve(listener: socket.socket, agent: str, open_ends: set[socket.socket]) -> None:
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
            target=_both_ways, args=(near, far, open_ends), name="ssh agent", daemon=True
        ).start()


def _both_ways(near: socket.socket, far: socket.socket, open_ends: set[socket.socket]) -> None:
    back = threading.Thread(target=_pump, args=(far, near), name="ssh agent", daemon=True)
    back.start()
    _pump(near, far)
    back.join()
    open_ends -= {near, far}
    near.close()
    far.close()


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
