"""``pybuild builder mounts``: the cache mounts of RUN steps (row BET-07)."""

from __future__ import annotations

import time
from typing import Any

from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.flags import Args, Command, switch, text
from cli.render.listing import listing
from cli.render.text import ago, human_size
from cli.targets import each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.cachemounts import CacheMount

HEADS = {
    "ID": "ID",
    "Directory": "DIRECTORY",
    "Sharing": "SHARING",
    "Size": "SIZE",
    "InUse": "IN USE",
    "LastUsedAt": "LAST USED",
    "UsageCount": "USAGE COUNT",
    "Path": "PATH",
}
_COLUMNS = ("ID", "Sharing", "Size", "InUse", "LastUsedAt")


def ls(app: App, args: Args) -> int:
    """Print a row for every instance."""
    rows = app.store.cache_mounts.list()
    if args.on("quiet"):
        for name in dict.fromkeys(row.id for row in rows):
            app.say(name)
        return 0
    shown = [_shown(app, row) for row in rows]
    app.write(listing(shown, _COLUMNS, HEADS, args.text("format")).encode("utf-8", "surrogateescape"))
    return 0


def _shown(app: App, row: CacheMount) -> dict[str, Any]:
    mounts = app.store.cache_mounts
    return {
        "ID": row.id,
        "Directory": row.directory,
        "Sharing": row.sharing,
        "Size": human_size(mounts.size(row.directory)),
        "InUse": str(mounts.in_use(row.directory)).lower(),
        "LastUsedAt": ago(row.last_used_ns, time.time_ns()),
        "UsageCount": str(row.uses),
        "Path": str(mounts.path(row.directory)),
    }


def export(app: App, args: Args) -> int:
    """Write a mount as an archive."""
    from builder.cache.mounttransfer import export_mount

    path = args.text("output")
    if not path:
        if is_terminal(1):
            raise UsageError("refusing to write an archive to a terminal", hint="use -o FILE, or redirect")
        export_mount(app.store, args.words[0], app.stdout.write)
        return 0
    from cli.files import written

    with written(path) as file:
        export_mount(app.store, args.words[0], file.write)
    return 0


def import_(app: App, args: Args) -> int:
    """Make a mount of an archive."""
    from builder.cache.mounttransfer import import_mount

    name, path = args.words[0], args.words[1] if len(args.words) > 1 else "-"
    if path == "-":
        if is_terminal(0):
            raise UsageError("refusing to read an archive from a terminal", hint="name a file, or redirect")
        import_mount(app.store, name, app.stdin, replace=args.on("force"))
        return 0
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    with file:
        import_mount(app.store, name, file, replace=args.on("force"))
    return 0


def rm(app: App, args: Args) -> int:
    """Remove mounts that no step uses."""
    from builder.cache.mounttransfer import find_mounts, remove_mounts

    def act(name: str) -> None:
        remove_mounts(app.store, find_mounts(app.store, name))

    return each(app, args.words, act, "remove", "cache mounts")


COMMANDS = (
    Command(
        "builder mounts ls",
        "[OPTIONS]",
        "List cache mounts",
        ls,
        flags=(
            text("format", "", "Template, table TEMPLATE, or json"),
            switch("quiet", "q", "Show only ids"),
        ),
    ),
    Command(
        "builder mounts export",
        "[OPTIONS] ID",
        "Write the content of a cache mount as a tar archive",
        export,
        flags=(text("output", "o", "Write to a file instead of standard output", metavar="file"),),
        words=(1, 1),
    ),
    Command(
        "builder mounts import",
        "[OPTIONS] ID [FILE|-]",
        "Make a cache mount of a tar archive",
        import_,
        flags=(switch("force", "f", "Replace the one that has the id"),),
        words=(1, 2),
    ),
    Command(
        "builder mounts rm",
        "ID [ID...]",
        "Remove cache mounts",
        rm,
        words=(1, None),
    ),
)
