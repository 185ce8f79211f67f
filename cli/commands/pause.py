"""``pybuild pause`` (row LIF-PAUSE)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command
from cli.targets import each


def run(app: App, args: Args) -> int:
    """Freeze all processes of containers, one after the other."""
    from builder.containers import pause

    def act(ref: str) -> None:
        pause(app.store, ref)

    return each(app, args.words, act, "pause", "containers")


COMMANDS = (
    Command(
        "pause",
        "CONTAINER [CONTAINER...]",
        "Freeze all processes of containers",
        run,
        words=(1, None),
    ),
)
