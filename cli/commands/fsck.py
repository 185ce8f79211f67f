"""``pybuild debug fsck``: is the state directory in order? Changes nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from cli.app import App, is_terminal
from cli.flags import Args, Command, switch
from cli.render.text import printable

DETAILS = """\
Compares the database with the files, files with their digests, and everything that refers to
something with what it refers to. Other processes may be at work meanwhile. Prints a line per finding:
its code, where, what. A "leftover" comes from a process that was killed, and the next command removes it.
Everything else is damage: remove what is named (images can be pulled again, build cache is made again), or
move the state directory away.

Exit status 0: nothing found. 1: something."""


def run(app: App, args: Args) -> int:
    """Check, and print what was found."""
    from builder.cache.fsck import check

    live = is_terminal(2) and not args.on("json")
    found = check(app.settings.root, fast=args.on("fast"), on_progress=_progress if live else None)
    if live:
        sys.stderr.write("\r\x1b[K")
    if args.on("json"):
        app.say(json.dumps({"clean": not found, "findings": [asdict(item) for item in found]}, indent=2))
        return 1 if found else 0
    for item in found:
        app.say(printable(f"{item.code:<18} {item.path}: {item.message}", keep=""))
    count = len(found)
    app.note(f"{count} finding{'s' if count != 1 else ''}" if found else "clean")
    return 1 if found else 0


def _progress(what: str) -> None:
    sys.stderr.write(f"\r\x1b[K{what}")
    sys.stderr.flush()


COMMANDS = (
    Command(
        "debug fsck",
        "[OPTIONS]",
        "Check the state directory, changing nothing",
        run,
        flags=(
            switch("fast", "", "Do not read blobs"),
            switch("json", "", "Print findings as JSON"),
        ),
        details=DETAILS,
    ),
)
