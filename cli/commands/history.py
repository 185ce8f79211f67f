"""``pybuild history`` (row IC-HIST)."""

from __future__ import annotations

import time
from typing import Any

from cli.app import App
from cli.flags import Args, Command, switch, text
from cli.platforms import platform_of
from cli.render.listing import listing
from cli.render.text import ago, ellipsis, human_size, rfc3339, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.images import HistoryRow

FLAGS = (
    text("format", "", "Template, table TEMPLATE, or json"),
    switch("human", "H", "Sizes and times for people", default=True),
    switch("no-trunc", "", "Show everything"),
    text("platform", "", "Which platform of the image"),
    switch("quiet", "q", "Show only ids"),
)
HEADS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_WIDTH = 45


def run(app: App, args: Args) -> int:
    """Print the entries, newest first."""
    from builder.images import history

    platform = platform_of(args)
    shown = [_shown(row, args) for row in history(app.store, args.words[0], platform=platform)]
    if args.on("quiet"):
        for row in shown:
            app.say(row["ID"])
        return 0
    columns = ("ID", "CreatedSince" if args.on("human") else "CreatedAt", "CreatedBy", "Size", "Comment")
    heads = HEADS if args.on("human") else HEADS | {"CreatedAt": "CREATED"}
    app.write(listing(shown, columns, heads, args.text("format")).encode("utf-8", "surrogateescape"))
    return 0


def _shown(row: HistoryRow, args: Args) -> dict[str, Any]:
    whole = args.on("no-trunc")
    created_by = row.created_by.replace("\t", " ").replace("\n", " ")
    return {
        "Comment": row.comment,
        "CreatedAt": rfc3339(row.created_ns) if row.created_ns is not None else "N/A",
        "CreatedBy": created_by if whole else ellipsis(created_by, _WIDTH),
        "CreatedSince": ago(row.created_ns or 0, time.time_ns()),
        "ID": row.id if whole or row.id.startswith("<") else short_id(row.id),
        "Size": human_size(row.size, 3) if args.on("human") else str(row.size),
        "Tags": ", ".join(row.tags),
    }


COMMANDS = (
    Command(
        "history",
        "[OPTIONS] IMAGE",
        "Show how an image was made",
        run,
        flags=FLAGS,
        words=(1, 1),
        details="Builds on record: history ls, inspect, logs, trace, rm, pin, unpin, export.\n"
        "An image of such a name is reached by:  pybuild history -- ls",
    ),
)
