"""The source policies of a command line and of the environment (POL-05)."""

from __future__ import annotations

from builder.errors import UsageError
from cli.flags import Args
from cli.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.sources.policy import Policy

VARIABLE = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"


def policies(args: Args, settings: Settings) -> tuple[Policy, ...]:
    """The files of ``--source-policy-file`` in order, then the one that the environment names."""
    files = [*args.many("source-policy-file"), settings.env(VARIABLE) or ""]
    return tuple(_read(path) for path in files if path)


def command(args: Args) -> tuple[str, ...]:
    """The words of ``--source-policy-command``. Raises UsageError."""
    import shlex

    text = args.text("source-policy-command")

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--source-policy-command {text!r}: {error}") from error


def _read(path: str) -> Policy:
    from builder.errors import InvalidValue
    from builder.sources.policy import MAX_BYTES, Policy

    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"source policy {path}: {error.strerror}") from error
    try:
        return Policy.parse(data, path)
    except InvalidValue as error:
        raise UsageError(f"source policy {error.message}", hint=error.hint, code="source-policy") from error
