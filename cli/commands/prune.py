"""``pybuild prune`` and the prune verbs of the groups (row GC-02)."""

from __future__ import annotations

import sys
import time

from builder.errors import PybuildError
from cli.app import App, is_terminal
from cli.filters import filters, usage_filter
from cli.flags import Args, Command, Flag, many, switch, text
from cli.render.text import ago, human_size
from cli.space import space_bytes
from cli.units import duration_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from builder.cache.usage import UsageRow

    class _Limits(TypedDict):
        all: bool
        filters: tuple[str, ...]
        keep_duration_s: float
        keep_bytes: int | None
        reserved_bytes: int
        min_free_bytes: int


_ALL = switch("all", "a", "Remove all that is not in use, not only what nothing names")
_FORCE = switch("force", "f", "Do not ask")
_FILTER = many("filter", "", "Remove only some")
_CACHE_LIMITS = (
    text(
        "keep-duration", "", "Keep what was used within this time", metavar="duration", aliases=("keep-for",)
    ),
    text(
        "keep-storage", "", "Keep this much", metavar="size|percent", aliases=("max-used-space", "max-used")
    ),
    text(
        "keep-storage-min", "", "Always keep this much", metavar="size|percent", aliases=("reserved-space",)
    ),
    text(
        "free-storage",
        "",
        "Stop when this much is free",
        metavar="size|percent",
        aliases=("min-free-space", "min-free"),
    ),
    switch("verbose", "v", "Accepted for compatibility", hidden=True),
)


def everything(app: App, args: Args) -> int:
    """Stopped containers, then images without a name (all unused ones with ``--all``), then the cache.

    A filter is over the build cache, so with one nothing else is removed.
    """
    if args.many("filter"):
        return cache(app, args)
    what = (
        "all stopped containers, unused images and build cache"
        if args.on("all")
        else ("all stopped containers, images without a name and unused build cache")
    )
    limits = _limits(app, args)
    if not _sure(args, f"This will remove {what}."):
        return 1
    _containers(app)
    _images(app, everything=args.on("all"))
    if args.on("volumes"):
        _volumes(app)
    if args.on("history"):
        _history(app)
    return _cache(app, limits)


def cache(app: App, args: Args) -> int:
    """Build cache."""
    what = "all build cache" if args.on("all") else "build cache that no image uses"
    limits = _limits(app, args)
    return _cache(app, limits) if _sure(args, f"This will remove {what}.") else 1


def containers(app: App, args: Args) -> int:
    """Stopped containers."""
    if not _sure(args, "This will remove all stopped containers."):
        return 1
    _containers(app)
    return 0


def images(app: App, args: Args) -> int:
    """Images without a name, or without a container."""
    what = "all images without a container" if args.on("all") else "all images without a name"
    if not _sure(args, f"This will remove {what}."):
        return 1
    _images(app, everything=args.on("all"), wanted=args.many("filter"))
    return 0


def _sure(args: Args, warning: str) -> bool:
    """Ask on a terminal; elsewhere the command is its own answer, as scripts cannot type."""
    if args.on("force") or not (is_terminal(0) and is_terminal(2)):
        return True
    sys.stderr.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _containers(app: App) -> None:
    from builder.containers import prune

    gone = prune(app.store)
    if gone:
        app.say("Deleted Containers:\n" + "\n".join(container.id for container in gone) + "\n")


def _images(app: App, *, everything: bool, wanted: tuple[str, ...] = ()) -> None:
    from builder.images import list_images, remove
    from builder.images.naming import container_of

    chosen = filters(wanted, ("dangling", "label", "until"))
    pairs = [(key, value) for key, values in chosen.items() for value in values]
    rows = list_images(app.store, filters=pairs)
    lines: list[str] = []
    for row in {row.id: row for row in rows if everything or row.dangling}.values():
        if container_of(app.store, row.id) is not None:
            continue
        try:
            lines += map(str, remove(app.store, str(row.id), force=True))
        except PybuildError as error:
            app.note(f"pybuild: {error.message}")
    if lines:
        app.say("Deleted Images:\n" + "\n".join(lines) + "\n")


def _volumes(app: App) -> None:
    from cli.commands.volume import remove_unused

    gone = remove_unused(app, everything=False)
    if gone:
        app.say("Deleted Volumes:\n" + "\n".join(gone) + "\n")


def _history(app: App) -> None:
    from builder.build.history import remove_all

    gone = remove_all(app.store)
    if gone:
        app.say("Deleted Builds:\n" + "\n".join(gone) + "\n")


def _limits(app: App, args: Args) -> _Limits:
    """What the flags say; read before anything is removed. Raises UsageError."""
    usage_filter(args.many("filter"))
    return {
        "all": args.on("all"),
        "filters": args.many("filter"),
        "keep_duration_s": _duration(args, "keep-duration"),
        "keep_bytes": _bytes(app, args, "keep-storage") if args.given("keep-storage") else None,
        "reserved_bytes": _bytes(app, args, "keep-storage-min"),
        "min_free_bytes": _bytes(app, args, "free-storage"),
    }


def _cache(app: App, limits: _Limits) -> int:
    rows = _Rows(app)
    report = app.store.prune(**limits, on_removed=rows.add)
    app.say(f"Total:\t{human_size(report.size)}")
    return 0


class _Rows:
    """Rows of what is gone, each as soon as it is."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._begun = False

    def add(self, row: UsageRow) -> None:
        """One more."""
        if not self._begun:
            self._begun = True
            self._line("ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED")
        size = human_size(row.size) + ("*" if row.shared else "")
        used = ago(row.last_used_ns, time.time_ns())
        self._line(row.id + ("*" if row.mutable else ""), "true", size, used)

    def _line(self, *cells: str) -> None:
        text = f"{cells[0]:<46} {cells[1]:<12} {cells[2]:<11} {cells[3]}\n"
        self._app.write(text.encode("utf-8", "surrogateescape"))


def _duration(args: Args, name: str) -> float:
    return duration_seconds(args.text(name), f"--{name}") if args.text(name) else 0.0


def _bytes(app: App, args: Args, name: str) -> int:
    """Megabytes when there is no unit, as buildctl has it."""
    value = args.text(name)
    return space_bytes(value, f"--{name}", app.settings, unit=1_000_000) if value else 0


def _command(name: str, summary: str, run: object, *flags: Flag) -> Command:
    assert callable(run)
    return Command(name, "[OPTIONS]", summary, run, flags=(_FORCE, _FILTER, *flags))


COMMANDS = (
    _command(
        "prune",
        "Remove what is not needed",
        everything,
        _ALL,
        switch("history", "", "Forget builds and their logs too, but for pinned ones"),
        switch("volumes", "", "Remove anonymous volumes too"),
        *_CACHE_LIMITS,
    ),
    _command("builder prune", "Remove build cache", cache, _ALL, *_CACHE_LIMITS),
    _command("container prune", "Remove stopped containers", containers),
    _command("image prune", "Remove images that nothing uses", images, _ALL),
)
