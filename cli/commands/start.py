"""``pybuild start`` (row LIF-START-1)."""

from __future__ import annotations

from builder.errors import UsageError
from cli.app import App
from cli.flags import Args, Command, switch, text
from cli.targets import each

FLAGS = (
    switch("attach", "a", "Attach to its output, and pass signals on"),
    text("detach-keys", "", "Keys that detach from the container"),
    switch("interactive", "i", "Attach to its input too"),
)


def run(app: App, args: Args) -> int:
    """Start containers; with ``-a`` or ``-i`` one, in the foreground."""
    from builder.containers import start

    if args.on("attach") or args.on("interactive"):
        if len(args.words) > 1:
            raise UsageError("You cannot start and attach multiple containers at once.")
        return _attached(app, args)

    def act(ref: str) -> None:
        container, _ = start(app.store, ref)
        for warning in container.warnings:
            app.note(f"WARNING: {warning}")

    return each(app, args.words, act, "start", "containers")


def _attached(app: App, args: Args) -> int:
    from builder.containers import Streams, find, finish, start
    from cli.foreground import stay, window_size

    config = find(app.store, args.words[0]).data["Config"]
    tty, stdin = bool(config["Tty"]), args.on("interactive") and bool(config["OpenStdin"])
    streams = Streams(stdin=stdin, owner=True, size=window_size() if tty else None)
    container, session = start(app.store, args.words[0], attach=streams)
    assert session is not None
    with session:
        code = stay(app, session, stdin=stdin, tty=tty, sig_proxy=True, detach_keys=args.text("detach-keys"))
        if code is None:
            return 0
        finish(app.store, container.id, session)
        return code


COMMANDS = (
    Command(
        "start",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start stopped containers",
        run,
        flags=FLAGS,
        words=(1, None),
    ),
)
