"""``pybuild prune`` and the prune verbs of the groups (row GC-02)."""

from __future__ import annotations

import sys
import time

from cli.app import App, is_terminal
from cli.filters import usage_filter
from cli.flags import Args, Command, Flag, many, switch, text
from cli.pruning import Chosen, remove_builds, remove_containers, remove_images, remove_volumes
from cli.render.text import ago, human_size
from cli.space import space_bytes
from cli.units import duration_seconds, point_in_time_ns

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
_FILTER = many("filter", "", "Remove only some (until=24h, label=NAME; of build cache as in du)")
_UNTIL = "until="
_SIZES = ("keep-storage", "keep-storage-min", "free-storage")
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

    Filters and limits on size are over the build cache, so with one of them nothing else is removed;
    ``--keep-duration``, and the filter ``until``, hold for everything.
    """
    only_cache = any(not item.startswith(_UNTIL) for item in args.many("filter"))
    if only_cache or any(args.given(flag) for flag in _SIZES):
        return cache(app, args)
    what = (
        "all stopped containers, unused images and build cache"
        if args.on("all")
        else ("all stopped containers, images without a name and unused build cache")
    )
    limits = _limits(app, args)
    if not _sure(args, f"This will remove {what}."):
        return 1
    from builder.cache.removal import counted

    chosen = Chosen.unused(limits["keep_duration_s"])
    with counted() as freed:
        _told(app, "Containers", remove_containers(app, chosen))
        _told(app, "Images", remove_images(app, chosen, everything=args.on("all")))
        if args.on("volumes"):
            _told(app, "Volumes", remove_volumes(app, chosen, everything=False))
        if args.on("history"):
            _told(app, "Builds", remove_builds(app, chosen))
    return _cache(app, limits, freed.size)


def cache(app: App, args: Args) -> int:
    """Build cache."""
    what = "all build cache" if args.on("all") else "build cache that no image uses"
    limits = _limits(app, args)
    return _cache(app, limits) if _sure(args, f"This will remove {what}.") else 1


def containers(app: App, args: Args) -> int:
    """Stopped containers."""
    chosen = Chosen.of(args.many("filter"))
    if not _sure(args, "This will remove all stopped containers."):
        return 1
    _told(app, "Containers", remove_containers(app, chosen))
    return 0


def images(app: App, args: Args) -> int:
    """Images without a name, or without a container."""
    chosen = Chosen.of(args.many("filter"), "dangling")
    what = "all images without a container" if args.on("all") else "all images without a name"
    if not _sure(args, f"This will remove {what}."):
        return 1
    _told(app, "Images", remove_images(app, chosen, everything=args.on("all")))
    return 0


def _sure(args: Args, warning: str) -> bool:
    """Ask on a terminal; elsewhere the command is its own answer, as scripts cannot type."""
    if args.on("force") or not (is_terminal(0) and is_terminal(2)):
        return True
    sys.stderr.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _told(app: App, what: str, gone: list[str]) -> None:
    if gone:
        app.say(f"Deleted {what}:\n" + "\n".join(gone) + "\n")


def _limits(app: App, args: Args) -> _Limits:
    """What the flags say; read before anything is removed. Docker's filter ``until`` is ``--keep-duration``.

    Raises UsageError.
    """
    given = args.many("filter")
    times = [item.removeprefix(_UNTIL) for item in given if item.startswith(_UNTIL)]
    now_ns = time.time_ns()
    ages = [(now_ns - point_in_time_ns(text, now_ns, "filter until")) / 1e9 for text in times]
    chosen = tuple(item for item in given if not item.startswith(_UNTIL))
    usage_filter(chosen)
    return {
        "all": args.on("all"),
        "filters": chosen,
        "keep_duration_s": max([_duration(args, "keep-duration"), *ages]),
        "keep_bytes": _bytes(app, args, "keep-storage") if args.given("keep-storage") else None,
        "reserved_bytes": _bytes(app, args, "keep-storage-min"),
        "min_free_bytes": _bytes(app, args, "free-storage"),
    }


def _cache(app: App, limits: _Limits, freed: int = 0) -> int:
    """``freed``: the bytes of what was removed before."""
    rows = _Rows(app)
    report = app.store.prune(**limits, on_removed=rows.add)
    app.say(f"Total:\t{human_size(freed + report.size)}")
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
