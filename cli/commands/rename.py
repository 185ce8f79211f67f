"""``pybuild rename`` (row LIF-RENAME)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command


def run(app: App, args: Args) -> int:
    """Give a container another name."""
    from builder.containers import rename

    rename(app.store, args.words[0], args.words[1])
    return 0


COMMANDS = (Command("rename", "CONTAINER NEW_NAME", "Give a container another name", run, words=(2, 2)),)
