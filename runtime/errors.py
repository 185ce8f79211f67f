"""The root of every expected failure, and the failures of running containers.

An expected failure says what failed, where, why, and what to try; anything else that escapes is a bug and
keeps its traceback. Only ``cli.render.errors`` turns these values into text.
"""

from __future__ import annotations

import os


class PybuildError(Exception):
    """An expected failure.

    ``code`` is a stable kebab-case name that tests and tools may rely on; ``context`` are lines that say
    where and why, outermost last; ``hint`` says what to try; ``exit_status`` is what the process exits with.
    """

    code = "error"
    exit_status = 1

    def __init__(
        self,
        message: str,
        *,
        context: tuple[str, ...] = (),
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.context = context
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class ContainerError(PybuildError):
    """A container could not be made, run or changed."""

    code = "container-error"


class SetupFailed(ContainerError):
    """A system call failed while a container was being set up."""

    code = "container-setup-failed"
    exit_status = 125

    def __init__(self, call: str, path: str, errno: int, *, hint: str | None = None) -> None:
        where = f" {path}" if path else ""
        super().__init__(f"container set-up failed: {call}{where}: {os.strerror(errno)}", hint=hint)
        self.call = call
        self.path = path
        self.errno = errno


class CommandNotFound(ContainerError):
    """The command of a container does not exist in its root (exit 127)."""

    code = "command-not-found"
    exit_status = 127


class CommandNotExecutable(ContainerError):
    """The command of a container exists but cannot be executed (exit 126)."""

    code = "command-not-executable"
    exit_status = 126


class UserNotFound(ContainerError):
    """A user or group name has no entry in the root's passwd or group file."""

    code = "user-not-found"
    exit_status = 125


class NoSuchContainer(ContainerError):
    """No container has that name or id."""

    code = "no-such-container"


class NotPermitted(ContainerError):
    """The machine, or this user, does not allow what was asked."""

    code = "not-permitted"
