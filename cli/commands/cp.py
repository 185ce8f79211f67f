"""``pybuild cp`` (rows IO-CP-1 … IO-CP-3)."""

from __future__ import annotations

from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.flags import Args, Command, switch
from cli.render.text import human_size

FLAGS = (
    switch("archive", "a", "Keep owners and permissions"),
    switch("follow-link", "L", "Follow a link that is the source"),
    switch("quiet", "q", "Say nothing"),
)


def run(app: App, args: Args) -> int:
    """Copy in the one direction or the other."""
    source, target = _place(args.words[0]), _place(args.words[1])
    if source[0] and target[0]:
        raise UsageError("copying between containers is not supported")
    if not source[0] and not target[0]:
        raise UsageError("must specify at least one container source", hint="want CONTAINER:PATH on one side")
    if not source[1] or not target[1]:
        raise UsageError("Path not specified")
    if source[0]:
        return _out(app, args, source, target[1])
    return _in(app, args, source[1], target)


def _place(text: str) -> tuple[str, str]:
    """Container and path; a path that begins with ``/`` or ``.`` is here whatever it holds."""
    if text == "-" or text.startswith(("/", ".")):
        return "", text
    container, colon, path = text.partition(":")
    return (container, path) if colon else ("", text)


def _out(app: App, args: Args, source: tuple[str, str], target: str) -> int:
    from builder.containers import copy_out, tar_out

    follow = args.on("follow-link")
    if target == "-":
        if is_terminal(1):
            raise UsageError("refusing to write a tar archive to a terminal", hint="redirect it")
        tar_out(app.store, source[0], source[1], app.stdout, follow=follow)
        return 0
    size = copy_out(app.store, source[0], source[1], target, archive=args.on("archive"), follow=follow)
    _tell(app, args, f"Successfully copied {human_size(size, 3)} to {target}")
    return 0


def _in(app: App, args: Args, source: str, target: tuple[str, str]) -> int:
    from builder.containers import copy_in, tar_in

    archive = args.on("archive")
    if source == "-":
        tar_in(app.store, target[0], app.stdin, target[1], archive=archive)
        return 0
    size = copy_in(app.store, target[0], source, target[1], archive=archive, follow=args.on("follow-link"))
    _tell(app, args, f"Successfully copied {human_size(size, 3)} to {target[0]}:{target[1]}")
    return 0


def _tell(app: App, args: Args, text: str) -> None:
    if not args.on("quiet"):
        app.note(text)


COMMANDS = (
    Command(
        "cp",
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-  or  SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files between a container and the local file system",
        run,
        flags=FLAGS,
        words=(2, 2),
    ),
)
