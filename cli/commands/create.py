"""``pybuild create`` (section 2.9)."""

from __future__ import annotations

import os

from cli.app import App
from cli.container_flags import SHARED
from cli.flags import Args, Command
from runtime.errors import PybuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from builder.containers import Container


def run(app: App, args: Args) -> int:
    """Make a container and print its id."""
    app.say(make(app, args, detach=False).id)
    return 0


def make(app: App, args: Args, *, detach: bool, starting: bool = False) -> Container:
    """The container that a command line of create or run asks for; its id is in the cidfile (RUN-07)."""
    from dataclasses import replace

    from builder.containers import create
    from cli.acquire import ensure_image
    from cli.container_options import check_terminal, request_from

    check_terminal(args, detach=detach)
    request = replace(request_from(app, args, detach=detach), starting=starting)
    cidfile = _claim(args.text("cidfile")) if args.text("cidfile") else None
    try:
        ensure_image(app, args)
        container = create(app.store, request)
    except PybuildError as error:
        if error.exit_status == 1:
            error.exit_status = 125
        if cidfile is not None:
            cidfile.close()
            os.unlink(cidfile.name)
        raise
    for warning in container.warnings:
        app.note(f"WARNING: {warning}")
    if cidfile is not None:
        with cidfile:
            cidfile.write(container.id)
    return container


def _claim(path: str) -> TextIO:
    """A new file; one that exists may belong to another container."""
    from builder.containers import BadOption

    try:
        return open(path, "x", encoding="ascii")
    except FileExistsError:
        raise BadOption(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None
    except OSError as error:
        raise BadOption(f"failed to create the container ID file {path}: {error.strerror}") from error


COMMANDS = (
    Command(
        "create",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a container without starting it",
        run,
        flags=SHARED,
        words=(1, None),
        interspersed=False,
        usage_status=125,
    ),
)
