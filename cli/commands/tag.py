"""``pybuild tag`` (row IC-TAG)."""

from __future__ import annotations

from cli.app import App
from cli.flags import Args, Command, switch


def run(app: App, args: Args) -> int:
    """Give an image one more name; another image that had it loses it."""
    from builder.images import tag

    tag(app.store, args.words[0], args.words[1])
    return 0


COMMANDS = (
    Command(
        "tag",
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Give an image another name",
        run,
        flags=(switch("force", "f", "Accepted for compatibility", hidden=True),),
        words=(2, 2),
    ),
)
