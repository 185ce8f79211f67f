"""A container in the foreground: its streams coupled to ours until it ends or the user detaches."""

from __future__ import annotations

import os

from builder.containers import Session, couple
from cli.app import App
from runtime.errors import ContainerError


def window_size() -> tuple[int, int] | None:
    """Rows and columns of the terminal that a container would use; None without one."""
    for fd in (0, 1):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return None


def stay(
    app: App, session: Session, *, stdin: bool, tty: bool, sig_proxy: bool, detach_keys: str = ""
) -> int | None:
    """Pass everything on; the exit status of the process, None when the user detached."""
    keys = None
    if detach_keys:
        from builder.containers import parse_detach_keys

        keys = parse_detach_keys(detach_keys)
    app.flush()
    try:
        ended = couple(
            session,
            stdin=0 if stdin else None,
            stdout=1,
            stderr=2,
            tty=tty,
            sig_proxy=sig_proxy and not tty,
            detach_keys=keys,
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ContainerError(f"cannot write the output of the container: {error.strerror}") from error
    if ended.code is None and tty:
        app.note("")
    return ended.code
