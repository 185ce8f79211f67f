"""``pybuild rm`` (rows LIF-RM-1, LIF-RM-2)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command, switch
from cli.targets import each
from runtime.errors import NoSuchContainer

FLAGS = (
    switch("force", "f", "Remove running containers too"),
    switch("link", "l", "Accepted for compatibility", hidden=True),
    switch("volumes", "v", "Remove anonymous volumes with them"),
)


def run(app: App, args: Args) -> int:
    """Remove containers, one after the other."""
    from builder.containers import remove

    def act(ref: str) -> str | None:
        try:
            remove(app.store, ref, force=args.on("force"), volumes=args.on("volumes"))
        except NoSuchContainer as error:
            if not args.on("force"):
                raise
            app.note(f"pybuild: {error.message}")
            return ""
        return None

    return each(app, args.words, act, "remove", "containers")


COMMANDS = (
    Command(
        "rm", "[OPTIONS] CONTAINER [CONTAINER...]", "Remove containers", run, flags=FLAGS, words=(1, None)
    ),
)
