"""``pybuild ps`` (rows IO-PS-1 … IO-PS-4)."""

from __future__ import annotations

import time
from typing import Any

from cli.app import App
from cli.flags import Args, Command, many, number, switch, text
from cli.render.listing import listing
from cli.render.text import ago, ellipsis, human_size, local_time, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.containers import PsRow

FLAGS = (
    switch("all", "a", "Show all containers (default: only running ones)"),
    text("before", "", "Show those made before this one", hidden=True),
    many(
        "filter",
        "f",
        "Show only some (id, name, label, status, exited, ancestor, before, since, volume, network)",
    ),
    text("format", "", "Template, table TEMPLATE, or json"),
    number("last", "n", "Show the newest containers, whatever their state", default=-1),
    switch("latest", "l", "Show the newest container, whatever its state"),
    switch("no-trunc", "", "Show whole ids and commands"),
    switch("quiet", "q", "Show only ids"),
    text("since", "", "Show those made after this one", hidden=True),
    switch("size", "s", "Show sizes"),
)
HEADS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
}
_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


def run(app: App, args: Args) -> int:
    """Print the list."""
    from builder.containers import PsRequest, ps

    older = tuple(f"{key}={args.text(key)}" for key in ("before", "since") if args.text(key))
    wants_size = args.on("size") or ".Size" in args.text("format")
    request = PsRequest(
        all=args.on("all"),
        latest=args.on("latest"),
        last=args.number("last"),
        filters=(*args.many("filter"), *older),
        size=wants_size,
    )
    rows = ps(app.store, request)
    whole = args.on("no-trunc")
    if args.on("quiet"):
        for row in rows:
            app.say(row.id if whole else short_id(row.id))
        return 0
    shown = [_shown(row, whole=whole) for row in rows]
    columns = (*_COLUMNS, "Size") if args.on("size") else _COLUMNS
    app.write(listing(shown, columns, HEADS, args.text("format")).encode("utf-8", "surrogateescape"))
    return 0


def _shown(row: PsRow, *, whole: bool) -> dict[str, Any]:
    command = row.command if whole else ellipsis(row.command, 20)
    image = row.image if whole or not row.image.startswith("sha256:") else short_id(row.image)
    size = ""
    if row.size_rw is not None and row.size_root is not None:
        size = f"{human_size(row.size_rw, 3)} (virtual {human_size(row.size_root, 3)})"
    return {
        "Command": f'"{command}"',
        "CreatedAt": local_time(row.created_ns),
        "ID": row.id if whole else short_id(row.id),
        "Image": image,
        "Labels": ",".join(f"{key}={value}" for key, value in row.labels.items()),
        "LocalVolumes": str(sum("/" not in mount for mount in row.mounts)),
        "Mounts": ",".join(row.mounts if whole else (ellipsis(mount, 15) for mount in row.mounts)),
        "Names": row.name,
        "Networks": row.network,
        "Ports": row.ports,
        "RunningFor": ago(row.created_ns, time.time_ns()),
        "Size": size,
        "State": row.state,
        "Status": row.status,
    }


COMMANDS = (Command("ps", "[OPTIONS]", "List containers", run, flags=FLAGS),)
