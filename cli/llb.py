"""Definitions in wire form that the command line reads (``build --llb``, ``debug dump-llb``)."""

from __future__ import annotations

import os
import stat

from builder.errors import GraphError, UsageError
from cli.app import App, is_terminal
from cli.flags import Args, Command, wrong

_WITHOUT_MEANING = ("file", "target", "build-arg", "label", "no-cache-filter")


def read_definition(app: App, name: str) -> bytes:
    """The bytes of the file ``name``, or of standard input for ``-``. Raises UsageError."""
    from builder.llb.wire_decode import MAX_BYTES

    if name == "-":
        if is_terminal(0):
            raise UsageError(
                "refusing to read a definition from a terminal", hint="redirect it, or name a file"
            )
        data = app.stdin.read(MAX_BYTES + 1)
    else:
        try:
            with open(name, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{name}: a definition of more than {MAX_BYTES} bytes is too large")
    return data


def from_stdin(command: Command, args: Args) -> Args:
    """A build without PATH and without a frontend is of the definition on standard input (CLI-01), or of
    the one that ``--llb`` names.

    Raises UsageError when nothing can come from there: somebody forgot the PATH.
    """
    if args.text("llb") not in ("", "-"):
        return args.changed({}, ("",))
    try:
        kind = stat.S_IFMT(os.fstat(0).st_mode)
    except OSError:
        kind = 0
    if kind not in (stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK):
        raise wrong(command, f"'pybuild {command.name}' requires 1 argument")
    return args.changed({"llb": "-"}, ("",))


def definition_of(app: App, args: Args) -> bytes | None:
    """What ``--llb`` names; None without it. Raises UsageError for flags that need a Dockerfile."""
    name = args.text("llb")
    if not name:
        return None
    for flag in _WITHOUT_MEANING:
        if args.given(flag):
            raise UsageError(f"--{flag} means nothing with --llb: no Dockerfile is read")
    if name == "-" and args.words[0] == "-":
        raise UsageError("invalid argument: can't use stdin for both build context and definition")
    if name == "-" and not args.words[0]:
        app.note("pybuild: reading a definition from standard input")
    data = read_definition(app, name)
    if not data and name == "-" and not args.words[0]:
        raise UsageError(
            "standard input is empty: no definition", hint="to build a Dockerfile: pybuild build PATH"
        )
    if not data:
        raise GraphError("invalid empty definition", hint="to build a Dockerfile: pybuild build PATH")
    return data
