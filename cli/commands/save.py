"""``pybuild save`` (row IC-SAVE)."""

from __future__ import annotations

from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.flags import Args, Command, text
from cli.platforms import platform_of

FLAGS = (
    text("format", "", 'Kind of archive ("docker" or "oci")', default="docker"),
    text("output", "o", "Write to a file instead of standard output", metavar="file"),
    text("platform", "", "Only this platform of the images"),
)


def run(app: App, args: Args) -> int:
    """Write the archive."""
    from pathlib import Path

    from builder.images import save

    form = args.text("format").removesuffix("-archive")
    if form not in ("docker", "oci"):
        raise UsageError(f"unknown archive format {args.text('format')!r}", hint="docker or oci")
    if not args.text("output") and is_terminal(1):
        raise UsageError("Cowardly refusing to save to a terminal. Use the -o flag or redirect.")
    save(
        app.store,
        args.words,
        Path(args.text("output")) if args.text("output") else app.stdout,
        "oci" if form == "oci" else "docker",
        platform=platform_of(args),
    )
    return 0


COMMANDS = (
    Command(
        "save", "[OPTIONS] IMAGE [IMAGE...]", "Write images to an archive", run, flags=FLAGS, words=(1, None)
    ),
)
