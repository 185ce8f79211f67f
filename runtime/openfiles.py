"""The limit on open files: high for ourselves, for trees of many layers; for containers what the caller had.

The processes that start containers are told in their environment what to give back.
"""

from __future__ import annotations

import os
import resource

WANTED = 65_536
_VARIABLE = "_PYBUILD_NOFILE"

_original = 0


def raise_limit() -> None:
    """Raise the soft limit of this process as far as the hard one goes, up to ``WANTED``."""
    global _original
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if _original or soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return
    _original = soft


def room(kept: int, each: int) -> int:
    """For how many things there is room that open ``each`` files, with ``kept`` for all else; at least 1."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(1, (soft - kept) // each)


def environment() -> dict[str, str]:
    """What a process that will start containers has to be told; nothing when nothing was raised."""
    return {_VARIABLE: str(_original)} if _original else {}


def told() -> int:
    """In such a process: the soft limit of containers; 0 when it is as it was."""
    text = os.environ.get(_VARIABLE, "")
    return int(text) if text.isdigit() else 0


def restore(soft: int) -> None:
    """Give this process the soft limit that its caller had."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    except (OSError, ValueError):
        pass
