"""``pybuild stop`` (row LIF-STOP)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command, number, text
from cli.targets import each

FLAGS = (
    number("time", "t", "Seconds to wait before killing", default=-1, aliases=("timeout",)),
    text("signal", "s", "Signal to send first"),
)


def run(app: App, args: Args) -> int:
    """Stop running containers, one after the other."""
    from builder.containers import stop

    def act(ref: str) -> None:
        stop(app.store, ref, timeout_s=_timeout(args), signal=args.text("signal"))

    return each(app, args.words, act, "stop", "containers")


def _timeout(args: Args) -> float | None:
    """Seconds to wait; None = the container's own stop timeout."""
    return float(args.number("time")) if args.given("time") else None


COMMANDS = (
    Command(
        "stop",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop running containers",
        run,
        flags=FLAGS,
        words=(1, None),
    ),
)
