"""``pybuild export`` (row IC-EXPORT)."""

from __future__ import annotations

from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.flags import Args, Command, text


def run(app: App, args: Args) -> int:
    """Write the archive."""
    from builder.containers import export

    path = args.text("output")
    if not path:
        if is_terminal(1):
            raise UsageError("Cowardly refusing to save to a terminal. Use the -o flag or redirect.")
        export(app.store, args.words[0], app.stdout.write)
        return 0
    from cli.files import written

    with written(path) as file:
        export(app.store, args.words[0], file.write)
    return 0


COMMANDS = (
    Command(
        "export",
        "[OPTIONS] CONTAINER",
        "Write a container's file system as a tar archive",
        run,
        flags=(text("output", "o", "Write to a file instead of standard output", metavar="file"),),
        words=(1, 1),
    ),
)
