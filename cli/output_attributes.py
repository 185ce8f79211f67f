"""Attributes of ``--output`` that mean nothing: allowed, as in BuildKit, unless they look misspelled."""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import UsageError
from cli.app import App
from cli.suggest import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.exporter.types import OutputSpec

_KNOWN = (
    *("type", "dest", "name", "push", "push-by-digest", "registry.insecure", "unpack", "store", "tar"),
    *("mode", "oci-mediatypes", "oci-artifact", "compression", "compression-level", "force-compression"),
    *("source-date-epoch", "rewrite-timestamp", "name-canonical", "dangling-name-prefix"),
    *("dangling-name-empty-only", "platform-split", "attestation-inline", "attestation-prefix"),
    *("prefer-nondist-layers", "buildkit-layers", "compatibility-version"),
)


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
    meant = did_you_mean(key, _KNOWN) if key not in _KNOWN else ""
    if meant:
        raise UsageError(f"unknown attribute {key[:60]!r} of output type={spec.type}{meant}")
    app.note(f"warning: attribute {key[:60]!a} of output type={spec.type} has no effect")
