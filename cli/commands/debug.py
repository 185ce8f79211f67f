"""``pybuild debug``: what builds are made of."""

from __future__ import annotations

import os
import sys

from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.commands.build import FLAGS as BUILD_FLAGS
from cli.commands.build import request_from
from cli.flags import Args, Command, many, switch, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_FORMATS = ("json", "dot", "pb")


def dump_llb(app: App, args: Args) -> int:
    """Print the definition that a build would solve, or one that is in a file (OPJ-02)."""
    if args.on("dot") and args.given("format") and args.text("format") != "dot":
        raise UsageError("--dot and --format do not go together", hint="--dot is short for --format=dot")
    form = "dot" if args.on("dot") else args.text("format")
    if form not in _FORMATS:
        raise UsageError(f"unknown format {form!r}", hint=f"known are {', '.join(_FORMATS)}")
    if form == "pb" and is_terminal(1):
        raise UsageError("refusing to write a definition to a terminal", hint="redirect it")
    for data in _definitions(app, args):
        if form == "pb":
            app.write(data)
        elif form == "dot":
            from builder.llb.serialize import to_dot

            app.write(to_dot(data).encode())
        else:
            from builder.llb.serialize import dump_lines

            for line in dump_lines(data):
                app.say(line)
    return 0


def _definitions(app: App, args: Args) -> Iterable[bytes]:
    """A build context (a directory or a URL) is converted; a file, or standard input, is a definition."""
    word = args.words[0] if args.words else "-"
    if not args.given("file") and (word == "-" or os.path.isfile(word)):
        from cli.llb import read_definition

        return (read_definition(app, word),)
    return _converted(app, args)


def _converted(app: App, args: Args) -> list[bytes]:
    if not args.words:
        raise UsageError("a build context is needed", hint="pybuild debug dump-llb -f Dockerfile .")
    from builder.build.check import definitions_of_file
    from builder.llb.wire import encode
    from cli.render.progress import make_progress

    request = request_from(app, args)
    with make_progress("quiet", app.settings, sys.stderr) as progress:
        source, found = definitions_of_file(app.store, request, on_event=progress)
    if args.text("format") == "pb" and len(found) > 1:
        raise UsageError("a definition is for one platform", hint="give one --platform")
    files = {source.filename: source.data}
    return [encode(definition, files) for definition in found if definition.head is not None]


def shell(app: App, args: Args) -> int:
    """Run a shell, or a command, where a step of an earlier build stood."""
    from builder.build.failed import find_step, newest_kept
    from builder.build.report import find_report
    from cli.build_options import read_secret, ssh_agents
    from cli.step_shell import run_shell

    build, _, step = (args.words[0] if args.words else "").partition(":")
    build_id = newest_kept(app.store) if build in ("", "last") else build
    report = find_report(app.store, build_id)
    return run_shell(
        app,
        find_step(app.store, report.id, step),
        command=args.after_dashes,
        secrets=tuple(read_secret(item, app.settings) for item in args.many("secret")),
        ssh=ssh_agents(args, app.settings, app.at_end),
    )


COMMANDS = (
    Command(
        "debug shell",
        "[OPTIONS] [BUILD[:STEP]] [-- COMMAND [ARG...]]",
        "Open a shell where a step of an earlier build stood",
        shell,
        flags=(
            many("secret", "", "Expose a secret to the shell (id=NAME[,src=FILE|,env=VARIABLE])"),
            many("ssh", "", "Expose an ssh agent (default|NAME[=SOCKET])"),
        ),
        words=(0, 1),
        after_dashes=True,
    ),
    Command(
        "debug dump-llb",
        "[OPTIONS] PATH | URL | FILE | -",
        "Show the build graph of a Dockerfile, or of a definition in a file",
        dump_llb,
        flags=(
            *BUILD_FLAGS,
            switch("dot", "", "Same as --format=dot"),
            text(
                "format", "", '"json" (an op per line), "dot", or "pb" (BuildKit\'s protobuf)', default="json"
            ),
        ),
        words=(0, 1),
    ),
)
