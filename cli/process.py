"""What a call needs of its own process before it starts: rights in a user namespace, and enough open files.

An ordinary user's call runs once more inside a user namespace, where it is root (``runtime.rootless``). The
first process stays outside as its parent, which is all that a shell or a supervisor sees.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cli.settings import Settings

WITHOUT_RIGHTS = frozenset({"__complete", "completion", "login", "logout", "version"})
"""Verbs that touch neither the store nor a container."""


_FREEING = ("prune", "rm", "rmi")


def with_room(settings: Settings, verb: str) -> AbstractContextManager[None]:
    """For verbs that remove things: the space that is kept for them on a full disk."""
    from contextlib import nullcontext

    if verb.rpartition(" ")[2] not in _FREEING:
        return nullcontext()
    from builder.cache.reserve import given_up

    return given_up(os.path.abspath(settings.root))


def enter_namespace(settings: Settings, verb: str, words: list[str] | None) -> int | None:
    """Where this user has to be root of a namespace first: run the command there and return its exit status.

    None when this process is the one to go on. ``verb`` is the command's name, ``words`` are the command line
    when it is not this process's own.
    """
    if os.geteuid() == 0:
        return None
    from runtime import rootless
    from runtime.errors import NotPermitted

    if not rootless.needed():
        return None
    if words is None:
        command = [sys.executable, *sys.orig_argv[1:]]
    else:
        command = [sys.executable, "-m", "cli.main", *words]
    try:
        # In there this user is root, whose home directory is another.
        env = {**os.environ, "HOME": str(settings.home)}
        return rootless.reexec(command, env=env, join=rootless.namespace_of(settings.root))
    except NotPermitted:
        if verb != "doctor":  # which says why
            raise
        return None


def prepare() -> None:
    """For the verbs that work: many layers are many open directories."""
    from runtime.openfiles import raise_limit

    raise_limit()
