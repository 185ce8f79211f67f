"""``pybuild logs`` (rows IO-LOGS-1, IO-LOGS-2)."""

from __future__ import annotations

import sys

from cli.app import App
from cli.flags import Args, Command, switch, text

FLAGS = (
    switch("details", "", "Accepted for compatibility", hidden=True),
    switch("follow", "f", "Go on until the container ends"),
    text("since", "", "Show only what is newer (time, or how long ago)"),
    text("tail", "n", "Show only this many last lines", default="all"),
    switch("timestamps", "t", "Show times"),
    text("until", "", "Show only what is older (time, or how long ago)"),
)


def run(app: App, args: Args) -> int:
    """Print what was written, each stream to its own."""
    from builder.containers import logs, moment, tail_count

    entries = logs(
        app.store,
        args.words[0],
        follow=args.on("follow"),
        tail=tail_count(args.text("tail")),
        since_ns=moment(args.text("since")) if args.text("since") else None,
        until_ns=moment(args.text("until")) if args.text("until") else None,
    )
    stamps = args.on("timestamps")
    app.flush()
    for entry in entries:
        stream = (sys.stderr if entry.stream == "stderr" else sys.stdout).buffer
        stream.write(f"{fixed_width(entry.time)} ".encode() + entry.data if stamps else entry.data)
        stream.flush()
    return 0


def fixed_width(stamp: str) -> str:
    """A time with all nine digits of its nanoseconds, so that lines are aligned."""
    head, _, rest = stamp.partition(".")
    if not rest:
        return head.removesuffix("Z") + ".000000000Z"
    return f"{head}.{rest.removesuffix('Z'):0<9}Z"


COMMANDS = (
    Command(
        "logs", "[OPTIONS] CONTAINER", "Show what a container has written", run, flags=FLAGS, words=(1, 1)
    ),
)
