"""``pybuild debug``: what builds are made of."""

from __future__ import annotations

import sys

from builder.errors import UsageError
from cli.app import App
from cli.commands.build import FLAGS as BUILD_FLAGS
from cli.commands.build import request_from
from cli.flags import Args, Command, text

_FORMATS = ("json", "dot")


def dump_llb(app: App, args: Args) -> int:
    """Print the definition that a build would solve."""
    from builder.build.check import definitions
    from cli.render.progress import make_progress

    form = args.text("format")
    if form not in _FORMATS:
        raise UsageError(f"unknown format {form!r}", hint=f"known are {', '.join(_FORMATS)}")
    with make_progress("quiet", app.settings, sys.stderr) as progress:
        found = definitions(app.store, request_from(app, args), on_event=progress)
    for definition in found:
        if form == "dot":
            from builder.llb.graph import to_dot

            app.write(to_dot(definition).encode("utf-8", "surrogateescape"))
            continue
        from builder.llb.serialize import dump_json

        for line in dump_json(definition):
            app.say(line)
    return 0


COMMANDS = (
    Command(
        "debug dump-llb",
        "[OPTIONS] PATH | URL | -",
        "Show the build graph of a Dockerfile",
        dump_llb,
        flags=(*BUILD_FLAGS, text("format", "", '"json" (a vertex per line) or "dot"', default="json")),
        words=(1, 1),
    ),
)
