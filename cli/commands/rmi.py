"""``pybuild rmi`` (rows IC-RMI-1 … IC-RMI-4)."""

from __future__ import annotations

from builder.errors import NoSuchImage
from cli.app import App
from cli.flags import Args, Command, switch
from cli.targets import each

FLAGS = (
    switch("force", "f", "Remove even if a container uses it or it has several names"),
    switch("no-prune", "", "Keep the content until the next prune"),
)


def run(app: App, args: Args) -> int:
    """Remove names, and images that then have none."""
    from builder.images import remove

    def act(text: str) -> str:
        try:
            lines = remove(app.store, text, force=args.on("force"), free=not args.on("no-prune"))
        except NoSuchImage:
            if args.on("force"):
                return ""
            raise
        return "\n".join(map(str, lines))

    return each(app, args.words, act, "remove", "images")


COMMANDS = (Command("rmi", "[OPTIONS] IMAGE [IMAGE...]", "Remove images", run, flags=FLAGS, words=(1, None)),)
