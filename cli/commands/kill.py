"""``pybuild kill`` (row LIF-KILL-1)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command, text
from cli.targets import each

FLAGS = (text("signal", "s", "Signal to send (name or number)", default="KILL"),)


def run(app: App, args: Args) -> int:
    """Send a signal to containers, one after the other."""
    from builder.containers import kill

    def act(ref: str) -> None:
        kill(app.store, ref, signal=args.text("signal"))

    return each(app, args.words, act, "kill", "containers")


COMMANDS = (
    Command(
        "kill",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Send a signal to containers",
        run,
        flags=FLAGS,
        words=(1, None),
    ),
)
