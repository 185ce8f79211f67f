"""``pybuild unpause`` (row LIF-PAUSE)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command
from cli.targets import each


def run(app: App, args: Args) -> int:
    """Let frozen containers go on, one after the other."""
    from builder.containers import unpause

    def act(ref: str) -> None:
        unpause(app.store, ref)

    return each(app, args.words, act, "unpause", "containers")


COMMANDS = (
    Command(
        "unpause",
        "CONTAINER [CONTAINER...]",
        "Let frozen containers go on",
        run,
        words=(1, None),
    ),
)
