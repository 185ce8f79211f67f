"""``pybuild wait`` (row LIF-WAIT)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command
from cli.targets import each


def run(app: App, args: Args) -> int:
    """Wait for each container and print its exit status."""
    from builder.containers import wait

    return each(app, args.words, lambda ref: str(wait(app.store, ref)), "wait", "containers")


COMMANDS = (
    Command(
        "wait",
        "CONTAINER [CONTAINER...]",
        "Wait until containers stop, then print their exit codes",
        run,
        words=(1, None),
    ),
)
