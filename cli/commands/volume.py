"""``pybuild volume`` (section 2.14)."""

from __future__ import annotations

from typing import Any

from builder.errors import PybuildError, StoreError
from cli.app import App
from cli.filters import boolean, filters, label_matches
from cli.flags import Args, Command, many, switch, text
from cli.render.listing import listing
from cli.render.text import rfc3339
from cli.targets import each
from cli.units import pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.volumestore import VolumeRow

HEADS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Mountpoint": "MOUNTPOINT",
    "Scope": "SCOPE",
    "Labels": "LABELS",
}


class NoSuchVolume(PybuildError):
    """No volume has that name."""

    code = "no-such-volume"


def create(app: App, args: Args) -> int:
    """Make a volume and print its name."""
    labels = dict(pair(item, "label") if "=" in item else (item, "") for item in args.many("label"))
    name = args.words[0] if args.words else args.text("name") or None
    app.say(app.store.volumes.create(name, data={"Labels": labels}).name)
    return 0


def ls(app: App, args: Args) -> int:
    """Print a row for every volume."""
    wanted = filters(args.many("filter"), ("dangling", "driver", "label", "name"))
    rows = [row for row in app.store.volumes.list() if _matches(app, row, wanted)]
    if args.on("quiet"):
        for row in rows:
            app.say(row.name)
        return 0
    shown = [
        document(row) | {"Labels": ",".join(f"{k}={v}" for k, v in volume_labels(row).items())}
        for row in rows
    ]
    app.write(listing(shown, ("Driver", "Name"), HEADS, args.text("format")).encode())
    return 0


def _matches(app: App, row: VolumeRow, wanted: dict[str, tuple[str, ...]]) -> bool:
    if "name" in wanted and not any(part in row.name for part in wanted["name"]):
        return False
    if "driver" in wanted and "local" not in wanted["driver"]:
        return False
    if not label_matches(volume_labels(row), wanted.get("label", ())):
        return False
    dangling = wanted.get("dangling", ())
    return all(boolean(text, "dangling") == (not users(app, row.name)) for text in dangling)


def users(app: App, name: str) -> tuple[str, ...]:
    """The containers that have a volume mounted."""
    from builder.containers.mounts import users_of

    return tuple(users_of(app.store, name))


def inspect(app: App, args: Args) -> int:
    """Print everything known about volumes."""
    from cli.commands.inspect import print_documents

    return print_documents(app, args, (volume_document,))


def volume_document(app: App, name: str) -> dict[str, Any]:
    """A volume in docker's keys. Raises NoSuchVolume."""
    row = app.store.volumes.get(name)
    if row is None:
        raise NoSuchVolume(f"no such volume: {name}")
    return document(row)


def document(row: VolumeRow) -> dict[str, Any]:
    """A volume in docker's keys."""
    return {
        "CreatedAt": rfc3339(row.created_ns),
        "Driver": "local",
        "Labels": volume_labels(row) or None,
        "Mountpoint": str(row.path),
        "Name": row.name,
        "Options": None,
        "Scope": "local",
    }


def volume_labels(row: VolumeRow) -> dict[str, str]:
    """The labels of a volume."""
    found = row.data.get("Labels") or {}
    return {str(key): str(value) for key, value in found.items()}


def rm(app: App, args: Args) -> int:
    """Remove volumes that no container uses."""

    def act(name: str) -> str | None:
        if app.store.volumes.get(name) is None:
            if args.on("force"):
                return name
            raise NoSuchVolume(f"no such volume: {name}")
        used = users(app, name)
        if used:
            raise StoreError(
                f"volume {name} is in use by {', '.join(user[:12] for user in used)}",
                hint="remove the container first",
                code="volume-in-use",
            )
        app.store.volumes.remove(name)
        return None

    return each(app, args.words, act, "remove", "volumes")


def prune(app: App, args: Args) -> int:
    """Remove volumes that no container uses: anonymous ones, or all."""
    from cli.pruning import Chosen, remove_volumes

    for name in remove_volumes(app, Chosen.of(args.many("filter"), "all"), everything=args.on("all")):
        app.say(name)
    return 0


COMMANDS = (
    Command(
        "volume create",
        "[OPTIONS] [VOLUME]",
        "Create a volume",
        create,
        flags=(
            text("driver", "d", "Accepted for compatibility", default="local", hidden=True),
            many("label", "", "Set metadata"),
            text("name", "", "Name of the volume", hidden=True),
            many("opt", "o", "Accepted for compatibility", hidden=True),
        ),
        words=(0, 1),
    ),
    Command(
        "volume inspect",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Show everything known about volumes",
        inspect,
        flags=(text("format", "f", "Template, or json"),),
        words=(1, None),
    ),
    Command(
        "volume ls",
        "[OPTIONS]",
        "List volumes",
        ls,
        flags=(
            many("filter", "f", "Show only some (dangling, driver, label, name)"),
            text("format", "", "Template, table TEMPLATE, or json"),
            switch("quiet", "q", "Show only names"),
        ),
    ),
    Command(
        "volume prune",
        "[OPTIONS]",
        "Remove volumes that no container uses",
        prune,
        flags=(
            switch("all", "a", "Those with a name too"),
            many("filter", "", "Remove only some (all, label, until)"),
            switch("force", "f", "Do not ask"),
        ),
    ),
    Command(
        "volume rm",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Remove volumes",
        rm,
        flags=(switch("force", "f", "No error when there is no such volume"),),
        words=(1, None),
    ),
)
