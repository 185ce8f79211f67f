"""``pybuild du`` and ``df`` (row GC-01)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from cli.app import App
from cli.filters import usage_filter
from cli.flags import Args, Command, many, switch, text
from cli.render.listing import listing
from cli.render.tables import table
from cli.render.text import ago, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.usage import UsageRow

FLAGS = (
    many(
        "filter",
        "",
        "Show only some (id, parent, description, type, inuse, [im]mutable, shared, private)",
    ),
    text("format", "", "Template, table TEMPLATE, or json"),
    switch("verbose", "v", "Show everything that is known"),
)
HEADS = {
    "ID": "ID",
    "Reclaimable": "RECLAIMABLE",
    "Size": "SIZE",
    "LastUsedAt": "LAST ACCESSED",
    "Description": "DESCRIPTION",
    "Type": "TYPE",
    "UsageCount": "USAGE COUNT",
    "CreatedAt": "CREATED",
    "Mutable": "MUTABLE",
    "Shared": "SHARED",
    "Parents": "PARENTS",
}
_COLUMNS = ("ID", "Reclaimable", "Size", "LastUsedAt")


def run(app: App, args: Args) -> int:
    """Print a row for everything that is kept, and sums."""
    matches = usage_filter(args.many("filter"))
    rows = [row for row in app.store.usage() if matches(row)]
    shown = [_shown(row) for row in rows]
    if args.on("verbose"):
        app.write("\n".join(map(_block, rows)).encode("utf-8", "surrogateescape"))
    else:
        app.write(listing(shown, _COLUMNS, HEADS, args.text("format")).encode("utf-8", "surrogateescape"))
    if not args.text("format"):
        app.say(footer(rows))
    return 0


def df(app: App, args: Args) -> int:
    """The same, and what the history takes."""
    run(app, args)
    if not args.text("format") and not args.many("filter"):
        app.say(f"{'History:':<15}{human_size(app.store.builds.size())}")
    return 0


def footer(rows: Sequence[UsageRow]) -> str:
    """Sums of sizes."""
    shared = sum(row.size for row in rows if row.shared)
    lines = [("Reclaimable:", sum(row.size for row in rows if row.reclaimable))]
    lines.append(("Total:", sum(row.size for row in rows)))
    if shared:
        lines = [("Shared:", shared), ("Private:", lines[-1][1] - shared), *lines]
    return "\n".join(f"{name:<15}{human_size(size)}" for name, size in lines)


def _shown(row: UsageRow) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "ID": row.id + ("*" if row.mutable else ""),
        "Reclaimable": str(row.reclaimable).lower(),
        "Size": human_size(row.size) + ("*" if row.shared else ""),
        "LastUsedAt": ago(row.last_used_ns, now) if row.last_used_ns else "",
        "Description": row.description,
        "Type": row.record_type,
        "UsageCount": str(row.uses),
        "CreatedAt": ago(row.created_ns, now),
        "Mutable": str(row.mutable).lower(),
        "Shared": str(row.shared).lower(),
        "Parents": ", ".join(row.parents),
    }


def _block(row: UsageRow) -> str:
    fields = (
        ("ID", row.id),
        ("Parents", ", ".join(row.parents)),
        ("Created at", ago(row.created_ns, time.time_ns())),
        ("Mutable", str(row.mutable).lower()),
        ("Reclaimable", str(row.reclaimable).lower()),
        ("Shared", str(row.shared).lower()),
        ("Size", human_size(row.size)),
        ("Description", row.description),
        ("Usage count", str(row.uses)),
        ("Last used", ago(row.last_used_ns, time.time_ns())),
        ("Type", row.record_type),
    )
    return table([(f"{name}:", value) for name, value in fields if value], least=0)


COMMANDS = (
    Command("du", "[OPTIONS]", "Show what the build cache keeps", run, flags=FLAGS),
    Command("df", "[OPTIONS]", "Show disk usage", df, flags=FLAGS),
)
