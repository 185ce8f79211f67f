"""Attributes of ``--output`` that mean nothing: allowed, as in BuildKit, unless they look misspelled."""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import UsageError
from cli.app import App
from cli.suggest import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.exporter.types import OutputSpec


def parsed(app: App, texts: Iterable[str]) -> list[OutputSpec]:
    """The outputs asked for; a note tells of attributes that mean nothing.

    Raises UsageError, also for an attribute that is nearly one we know.
    """
    from builder.exporter.types import OutputSpec

    found = [OutputSpec.parse(text) for text in texts]
    for spec in found:
        for key, _ in spec.extra:
            _pass_over(app, spec, key)
    return found


def _pass_over(app: App, spec: OutputSpec, key: str) -> None:
    from builder.exporter.types import ATTRIBUTES

    meant = did_you_mean(key, sorted(ATTRIBUTES)) if key not in ATTRIBUTES else ""
    if meant:
        raise UsageError(f"unknown attribute {key[:60]!r} of output type={spec.type}{meant}")
    app.note(f"warning: attribute {key[:60]!a} of output type={spec.type} has no effect")
