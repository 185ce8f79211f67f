"""``pybuild images`` (rows IC-IMAGES-1 … IC-IMAGES-4)."""

from __future__ import annotations

import time
from typing import Any

from builder.errors import UsageError
from cli.app import App
from cli.flags import Args, Command, many, switch, text
from cli.render.listing import listing
from cli.render.text import ago, human_size, local_time, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.images import ImageRow

FLAGS = (
    switch("all", "a", "Accepted for compatibility"),
    switch("digests", "", "Show digests"),
    many("filter", "f", "Show only some (dangling, label, reference, before, since, until)"),
    text("format", "", "Template, table TEMPLATE, or json"),
    switch("no-trunc", "", "Show whole ids"),
    switch("quiet", "q", "Show only ids"),
)
HEADS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "VirtualSize": "SIZE",
    "Platform": "PLATFORM",
}


def run(app: App, args: Args) -> int:
    """Print the list."""
    from builder.images import list_images

    rows = list_images(
        app.store,
        filters=[_filter(item) for item in args.many("filter")],
        reference=args.words[0] if args.words else None,
    )
    if args.on("quiet"):
        ids = [str(row.id) if args.on("no-trunc") else short_id(str(row.id)) for row in rows]
        for image_id in dict.fromkeys(ids):
            app.say(image_id)
        return 0
    columns = ["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"]
    if not args.on("digests"):
        columns.remove("Digest")
    shown = [_shown(row, whole=args.on("no-trunc")) for row in rows]
    app.write(listing(shown, columns, HEADS, args.text("format")).encode("utf-8", "surrogateescape"))
    return 0


def _filter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"invalid filter {text!r}", hint="want KEY=VALUE")
    return key.strip().lower(), value


def _shown(row: ImageRow, *, whole: bool) -> dict[str, Any]:
    return {
        "Containers": "N/A",
        "CreatedAt": local_time(row.created_ns),
        "CreatedSince": ago(row.created_ns, time.time_ns()),
        "Digest": row.digest,
        "ID": str(row.id) if whole else short_id(str(row.id)),
        "Platform": str(row.platform),
        "Repository": row.repository,
        "SharedSize": "N/A",
        "Size": human_size(row.size, 3),
        "Tag": row.tag,
        "UniqueSize": "N/A",
        "VirtualSize": human_size(row.size, 4),
    }


COMMANDS = (Command("images", "[OPTIONS] [REPOSITORY[:TAG]]", "List images", run, flags=FLAGS, words=(0, 1)),)
