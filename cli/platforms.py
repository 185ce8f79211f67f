"""``--platform`` of the commands about images and containers."""

from __future__ import annotations

from builder.errors import InvalidValue, UsageError
from cli.flags import Args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.oci.platform import Platform


def platform_of(args: Args) -> Platform | None:
    """The platform asked for, if any. Raises UsageError."""
    text = args.text("platform")
    if not text:
        return None
    from builder.oci.platform import Platform

    try:
        return Platform.parse(text)
    except InvalidValue as error:
        raise UsageError(error.message, hint=error.hint) from error
