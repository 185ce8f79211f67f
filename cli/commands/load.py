"""``pybuild load`` (row IC-LOAD)."""

from __future__ import annotations

from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.flags import Args, Command, switch, text
from cli.platforms import platform_of
from cli.render.text import short_id

FLAGS = (
    text("input", "i", "Read from a file instead of standard input", metavar="file"),
    text("platform", "", "Only this platform of the images"),
    switch("quiet", "q", "Show no progress"),
)


def run(app: App, args: Args) -> int:
    """Load every image of the archive and name what came."""
    from builder.images import load
    from builder.oci.reference import Reference
    from cli.render.task import Task

    platform = platform_of(args)
    path = args.text("input")
    if not path and is_terminal(0):
        raise UsageError("requested load from stdin, but stdin is empty", hint="use -i FILE, or a pipe")
    try:
        stream = open(path, "rb") if path and path != "-" else app.stdin  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"open {path}: {error.strerror}") from error
    with stream, Task(app.settings, f"load {path or 'standard input'}", quiet=args.on("quiet")) as task:
        loaded = load(app.store, stream, on_event=task.on_event, vertex=task.vertex, platform=platform)
    for item in loaded:
        if item.name is None:
            app.say(f"Loaded image ID: {item.id}")
            continue
        name = Reference.parse(item.name).familiar
        if item.replaced is not None and item.replaced != item.id:
            old = short_id(str(item.replaced))
            app.say(f"The image {name} already exists, renaming the old one with ID {old} to empty string")
        app.say(f"Loaded image: {name}")
    return 0


COMMANDS = (Command("load", "[OPTIONS]", "Load images from an archive", run, flags=FLAGS),)
