"""``pybuild run`` (section 2.9)."""

from __future__ import annotations

import os

from cli.app import App
from cli.container_flags import RUN_ONLY, SHARED
from cli.flags import Args, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.containers import Container, MonitorProcess


def run(app: App, args: Args) -> int:
    """Make a container, start it, and stay with it unless it is detached."""
    from builder.containers import MonitorProcess
    from cli.commands.create import make

    detach = args.on("detach")
    container = None
    with MonitorProcess.launch() as monitor:
        container = make(app, args, detach=detach, starting=True)
        try:
            return _detached(app, container, monitor) if detach else _attached(app, args, container, monitor)
        except BaseException:
            _forget(app, args, container)
            raise


def _detached(app: App, container: Container, monitor: MonitorProcess) -> int:
    from builder.containers import start

    started, _ = start(app.store, container.id, monitor=monitor)
    _warn(app, started)
    app.say(container.id)
    return 0


def _attached(app: App, args: Args, container: Container, monitor: MonitorProcess) -> int:
    from builder.containers import Streams, finish, start

    config = container.data["Config"]
    tty = bool(config["Tty"])
    streams = Streams(
        stdin=bool(config["AttachStdin"]),
        stdout=bool(config["AttachStdout"]),
        stderr=bool(config["AttachStderr"]),
        owner=True,
        size=_window_size() if tty else None,
    )
    started, session = start(app.store, container.id, attach=streams, monitor=monitor)
    _warn(app, started)
    assert session is not None
    from cli.foreground import stay

    with session:
        code = stay(
            app,
            session,
            stdin=streams.stdin,
            tty=tty,
            sig_proxy=args.on("sig-proxy"),
            detach_keys=args.text("detach-keys"),
        )
        if code is None:
            return 0
        finish(app.store, container.id, session)
        return code


def _window_size() -> tuple[int, int] | None:
    from cli.foreground import window_size

    return window_size()


def _warn(app: App, container: Container) -> None:
    for warning in container.warnings:
        app.note(f"WARNING: {warning}")


def _forget(app: App, args: Args, container: Container) -> None:
    """``--rm`` holds also for a container that could not be started."""
    if args.text("cidfile"):
        try:
            os.unlink(args.text("cidfile"))
        except OSError:
            pass
    if not args.on("rm"):
        return
    from builder.containers import remove
    from runtime.errors import PybuildError

    try:
        remove(app.store, container.id, force=True, volumes=True)
    except PybuildError:
        return


COMMANDS = (
    Command(
        "run",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Run a command in a new container",
        run,
        flags=(*SHARED, *RUN_ONLY),
        words=(1, None),
        interspersed=False,
        usage_status=125,
    ),
)
