"""``pybuild top`` (row IO-TOP)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command
from cli.render.tables import table


def run(app: App, args: Args) -> int:
    """Print the container's processes as ``ps`` shows them."""
    from builder.containers import top

    titles, rows = top(app.store, args.words[0], args.words[1:])
    app.write(table([titles, *rows]).encode("utf-8", "surrogateescape"))
    return 0


COMMANDS = (
    Command(
        "top",
        "CONTAINER [ps OPTIONS]",
        "Show the processes of a container",
        run,
        words=(1, None),
        interspersed=False,
    ),
)
