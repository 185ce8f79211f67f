"""``pybuild diff`` (rows IO-DIFF-1, IO-DIFF-2)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command
from cli.render.text import printable


def run(app: App, args: Args) -> int:
    """Print a line for every change."""
    from builder.containers import diff

    for row in diff(app.store, args.words[0]):
        app.say(f"{row.kind} {printable(row.path, keep='')}")
    return 0


COMMANDS = (
    Command("diff", "CONTAINER", "Show what a container changed in its file system", run, words=(1, 1)),
)
