"""What the launcher's client, the launcher and a container's first process say to each other.

Everything is a tuple of plain values written by ``marshal`` (all sides are one version of one interpreter),
sent as one packet with its descriptors over a SEQPACKET socket; a tuple too big for a packet travels in a
memfd.

============  ========================================================  =====================================
message       fields                                                    descriptors
============  ========================================================  =====================================
client → launcher (control socket)
``run``       plan                                                      reply, stdin, stdout, stderr[, netns]
``enter``     plan, pid of a process in the container                   reply, stdin, stdout, stderr, pidfd
launcher → client (the reply socket of the request; closing it kills the container)
``started``   pid, warnings                                             pidfd[, terminal]
``failed``    kind, call, path, errno, text                             -
``exited``    code or None, signal or None, killed for memory, usage    -
first process → launcher (report socket; end of file means that the command runs)
``stubs``     ((name, directory, atime, mtime, mtime after), ...)       parent directory of each
``terminal``                                                            master of the terminal
``listener``                                                            where changes of owner are answered
``warning``   text                                                      -
``failed``    kind, call, path, errno, text                             -
============  ========================================================  =====================================

Kinds of failure: ``setup`` (a system call), ``not-found``, ``not-executable``, ``user``, ``bug``.
"""

from __future__ import annotations

import _socket
import errno
import marshal
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from runtime.errors import PybuildError

    Message: TypeAlias = tuple[Any, ...]

_INLINE_BYTES = 128 << 10
_MAX_FDS = 250
_IN_MEMFD = b"\1"
_INLINE = b"\0"
_Socket = _socket.socket


def pair() -> tuple[_Socket, _Socket]:
    """Two connected sockets for messages."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def adopt(fd: int) -> _Socket:
    """A message socket from a descriptor, which it owns from now on."""
    return _Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fileno=fd)


def send(sock: _Socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send one message; OSError when the other side is gone."""
    payload = marshal.dumps(message)
    extra = -1
    if len(payload) > _INLINE_BYTES:
        extra = os.memfd_create("message", os.MFD_CLOEXEC)
        view = memoryview(payload)
        while view:
            view = view[os.write(extra, view) :]
        payload, fds = b"", (extra, *fds)
    try:
        ancillary = (
            [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        )
        head = _INLINE if extra < 0 else _IN_MEMFD
        sock.sendmsg([head, payload], ancillary, _socket.MSG_NOSIGNAL)
    finally:
        if extra >= 0:
            os.close(extra)


def receive(sock: _Socket) -> tuple[Message, tuple[int, ...]] | None:
    """Receive one message and its descriptors (close-on-exec); None at end of file. OSError if there is no
    room for these.
    """
    room = _socket.CMSG_SPACE(_MAX_FDS * 4)
    try:
        data, ancillary, flags, _ = sock.recvmsg(_INLINE_BYTES + 1, room, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    fds: tuple[int, ...] = ()
    for _, _, raw in ancillary:
        fds += struct.unpack(f"{len(raw) // 4}i", raw[: len(raw) // 4 * 4])
    if flags & _socket.MSG_CTRUNC:  # this process may open no more
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if not data:
        return None
    payload = data[1:]
    if data[:1] == _IN_MEMFD:
        size = os.fstat(fds[0]).st_size
        payload = b""
        while len(payload) < size:
            payload += os.pread(fds[0], size - len(payload), len(payload))
        os.close(fds[0])
        fds = fds[1:]
    return marshal.loads(payload), fds  # noqa: S302 - from our own process over our own socket


def error_of(message: Message) -> PybuildError | RuntimeError:
    """The exception that a ``failed`` message stands for."""
    from runtime import errors

    _, kind, call, path, errno, text = message
    if kind == "setup":
        return errors.SetupFailed(call, path, errno, hint=text or None)
    if kind == "not-found":
        return errors.CommandNotFound(text)
    if kind == "not-executable":
        return errors.CommandNotExecutable(text)
    if kind == "user":
        return errors.UserNotFound(text)
    return RuntimeError(f"the container's first process failed:\n{text}")
