"""Definitions in wire form that the command line reads (``build --llb``, ``debug dump-llb``)."""

from __future__ import annotations

from builder.errors import UsageError
from cli.app import App, is_terminal
from cli.flags import Args

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
    return read_definition(app, name)
