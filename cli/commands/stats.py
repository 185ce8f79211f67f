"""``pybuild stats`` (row IO-STATS)."""

from __future__ import annotations

import sys
import time
from typing import Any

from cli.app import App
from cli.flags import Args, Command, switch, text
from cli.render.listing import listing
from cli.render.text import human_size, short_id
from runtime.errors import PybuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.containers import Sample

FLAGS = (
    switch("all", "a", "Show stopped containers too"),
    text("format", "", "Template, table TEMPLATE, or json"),
    switch("no-stream", "", "Show one result and end"),
    switch("no-trunc", "", "Show whole ids"),
)
HEADS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_COLUMNS = ("Container", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_PERIOD_S = 0.5


def run(app: App, args: Args) -> int:
    """Print the table once, or again and again."""
    from builder.containers import find

    for ref in args.words:
        find(app.store, ref)
    live = sys.stdout.isatty() and not args.on("no-stream")
    before = _samples(app, args)
    while True:
        time.sleep(_PERIOD_S)
        now = _samples(app, args)
        rows = [_shown(app, ref, before.get(ref), sample, args) for ref, sample in now.items()]
        text = listing(rows, _COLUMNS, HEADS, args.text("format"))
        app.write(("\x1b[H\x1b[2J" + text if live else text).encode())
        if args.on("no-stream") or not now:
            return 0
        before = now


def _samples(app: App, args: Args) -> dict[str, Sample | None]:
    """Counters by the name asked for; None for a container that does not run."""
    from builder.containers import every, sample

    refs = args.words or tuple(
        container.id for container in every(app.store) if container.state.running or args.on("all")
    )
    found: dict[str, Sample | None] = {}
    for ref in refs:
        try:
            found[ref] = sample(app.store, ref)
        except PybuildError:
            found[ref] = None
    return found


def _shown(app: App, ref: str, before: Sample | None, now: Sample | None, args: Args) -> dict[str, Any]:
    from builder.containers import cpu_percent

    row = app.store.containers.get(ref)
    full_id = row.id if row is not None else ref
    shown_id = full_id if args.on("no-trunc") else short_id(full_id)
    names = {
        "Container": ref if ref in args.words else shown_id,
        "ID": shown_id,
        "Name": row.name if row else "--",
    }
    if now is None:
        return names | dict.fromkeys(("CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"), "--")
    cpu = cpu_percent(before, now) if before is not None else 0.0
    return names | {
        "CPUPerc": f"{cpu:.2f}%",
        "MemUsage": f"{human_size(now.memory)} / {human_size(now.limit)}",
        "MemPerc": f"{now.memory / now.limit * 100:.2f}%" if now.limit else "0.00%",
        "NetIO": f"{human_size(now.received, 3)} / {human_size(now.sent, 3)}",
        "BlockIO": f"{human_size(now.blocks_read, 3)} / {human_size(now.blocks_written, 3)}",
        "PIDs": str(now.pids),
    }


COMMANDS = (
    Command(
        "stats",
        "[OPTIONS] [CONTAINER...]",
        "Show what containers use",
        run,
        flags=FLAGS,
        words=(0, None),
    ),
)
