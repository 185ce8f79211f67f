"""``pybuild attach`` (rows IO-ATTACH-1, IO-ATTACH-2)."""

from __future__ import annotations

from cli.app import App, is_terminal
from cli.flags import Args, Command, switch, text

FLAGS = (
    text("detach-keys", "", "Keys that detach from the container"),
    switch("no-stdin", "", "Do not pass input on"),
    switch("sig-proxy", "", "Pass signals on to the process", default=True),
)


def run(app: App, args: Args) -> int:
    """Stay with a running container until it ends or the user detaches."""
    from builder.containers import attach
    from builder.errors import UsageError
    from cli.foreground import stay

    container, session = attach(app.store, args.words[0], stdin=not args.on("no-stdin"))
    config = container.data["Config"]
    stdin = bool(config["OpenStdin"]) and not args.on("no-stdin")
    with session:
        if config["Tty"] and stdin and not is_terminal(0):
            raise UsageError(
                "cannot attach stdin to a TTY-enabled container: the input is not a terminal",
                code="not-a-tty",
            )
        code = stay(
            app,
            session,
            stdin=stdin,
            tty=bool(config["Tty"]),
            sig_proxy=args.on("sig-proxy"),
            detach_keys=args.text("detach-keys"),
        )
    return 0 if code is None else code


COMMANDS = (
    Command(
        "attach",
        "[OPTIONS] CONTAINER",
        "Attach to a running container",
        run,
        flags=FLAGS,
        words=(1, 1),
    ),
)
