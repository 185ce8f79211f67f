"""``pybuild restart`` (row LIF-RESTART)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command, number
from cli.targets import each

FLAGS = (number("time", "t", "Seconds to wait before killing", default=-1, aliases=("timeout",)),)


def run(app: App, args: Args) -> int:
    """Stop and start containers, one after the other."""
    from builder.containers import restart

    def act(ref: str) -> None:
        restart(app.store, ref, timeout_s=_timeout(args))

    return each(app, args.words, act, "restart", "containers")


def _timeout(args: Args) -> float | None:
    """Seconds to wait; None = the container's own stop timeout."""
    return float(args.number("time")) if args.given("time") else None


COMMANDS = (
    Command(
        "restart",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop and start containers",
        run,
        flags=FLAGS,
        words=(1, None),
    ),
)
