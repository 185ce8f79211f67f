"""``pybuild import`` (row IC-IMPORT)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.flags import Args, Command, many, text
from cli.platforms import platform_of

FLAGS = (
    many("change", "c", "Apply a Dockerfile instruction to the image"),
    text("message", "m", "Comment of the image"),
    text("platform", "", "Platform of the image"),
)


def run(app: App, args: Args) -> int:
    """Make the image and print its id."""
    from builder.images import import_

    source = args.words[0]
    reference = args.words[1] if len(args.words) > 1 else None
    if len(args.words) > 2:
        app.note("WARNING: the third argument (TAG) is deprecated; write REPOSITORY:TAG")
        reference = f"{reference}:{args.words[2]}"
    with _opened(app, source) as stream:
        image_id = import_(
            app.store,
            stream,
            reference,
            args.many("change"),
            args.text("message"),
            source=source,
            platform=platform_of(args),
        )
    app.say(str(image_id))
    return 0


@contextmanager
def _opened(app: App, source: str) -> Iterator[BinaryIO]:
    """Standard input, a file, or the body of a URL (without scheme it is http)."""
    if source == "-":
        if is_terminal(0):
            raise UsageError("refusing to import from a terminal", hint="use a pipe or a file")
        yield app.stdin
        return
    if os.path.exists(source):
        with open(source, "rb") as file:
            yield file
        return
    if "/" not in source or source.startswith(("/", ".")):
        raise UsageError(f"open {source}: no such file")
    from builder.sources.http import HttpAccess, HttpSource
    from builder.sources.steps import SilentStep

    url = source if "://" in source else f"http://{source}"
    with app.store.hold() as hold:
        access = HttpAccess(proxy_env=app.settings.proxies)
        found = HttpSource(app.store, app.store.blobs, url, access=access).fetch(SilentStep())
        hold.blob(found.digest)
        with found.path.open("rb") as file:
            yield file


COMMANDS = (
    Command(
        "import",
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Make an image from a tar archive of a file system",
        run,
        flags=FLAGS,
        words=(1, 3),
    ),
)
