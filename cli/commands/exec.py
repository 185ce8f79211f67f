"""``pybuild exec`` (rows IO-EXEC-1, IO-EXEC-2)."""

from __future__ import annotations

from cli.app import App, is_terminal
from cli.flags import Args, Command, many, switch, text

FLAGS = (
    switch("detach", "d", "Run in the background"),
    text("detach-keys", "", "Keys that detach from the command"),
    many("env", "e", "Set an environment variable"),
    many("env-file", "", "Read environment variables from a file"),
    switch("interactive", "i", "Keep standard input open"),
    switch("privileged", "", "Give all privileges"),
    switch("tty", "t", "Give it a terminal"),
    text("user", "u", "User (name or uid[:group or gid])"),
    text("workdir", "w", "Working directory"),
)


def run(app: App, args: Args) -> int:
    """Run the command and stay with it unless it is detached."""
    from builder.containers import ExecRequest, execute
    from builder.errors import UsageError
    from cli.container_options import environment
    from cli.foreground import stay, window_size

    tty, interactive, detach = args.on("tty"), args.on("interactive"), args.on("detach")
    if tty and interactive and not detach and not is_terminal(0):
        raise UsageError(
            "cannot enable tty mode on non tty input: the input device is not a TTY", code="not-a-tty"
        )
    request = ExecRequest(
        command=args.words[1:],
        env=environment(app, args),
        workdir=args.text("workdir"),
        user=args.text("user"),
        tty=tty,
        interactive=interactive,
        detach=detach,
        privileged=args.on("privileged"),
        size=window_size() if tty else None,
    )
    _, session = execute(app.store, args.words[0], request)
    if session is None:
        return 0
    with session:
        code = stay(
            app,
            session,
            stdin=interactive,
            tty=tty,
            sig_proxy=False,
            detach_keys=args.text("detach-keys"),
        )
    return 0 if code is None else code


COMMANDS = (
    Command(
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Run a command in a running container",
        run,
        flags=FLAGS,
        words=(2, None),
        interspersed=False,
        usage_status=125,
    ),
)
