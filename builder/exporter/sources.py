"""Which repositories are known to hold a blob: kept when it was pulled, used to mount it on a push
(REG-06)."""

from __future__ import annotations

from typing import Protocol

from builder.cache.store import Store
from builder.errors import InvalidValue
from builder.exporter.steps import Steps
from builder.oci.digest import Digest
from builder.oci.reference import Reference

_KIND = "blob-source"
_MAX_SOURCES = 8


class Absent(Protocol):
    """Layers of a build's base images that are in a registry and maybe not here (EXP-14)."""

    def origin(self, digest: Digest) -> Reference | None:
        """The image that has the layer; None for a blob that is none of them."""
        ...

    def bring(self, digest: Digest, steps: Steps) -> None:
        """Fetch it into the store, if it is one of them. Raises SolveError."""
        ...


def mount_sources(store: Store, digest: Digest, absent: Absent | None = None) -> tuple[Reference, ...]:
    """Repositories that had the blob: that of the build's base image, then the latest first."""
    origin = absent.origin(digest) if absent is not None else None
    found = {} if origin is None else {origin.name: origin}
    for line in (store.doc(_KIND, str(digest)) or b"").decode("utf-8", "replace").split():
        try:
            found.setdefault(line, Reference.parse(line))
        except InvalidValue:
            continue
    return tuple(found.values())


def record_source(store: Store, digest: Digest, ref: Reference) -> None:
    """Remember that the repository of ``ref`` has the blob."""
    old = (store.doc(_KIND, str(digest)) or b"").decode("utf-8", "replace").split()
    if old[:1] == [ref.name]:
        return
    names = [ref.name, *(name for name in old if name != ref.name)][:_MAX_SOURCES]
    store.put_doc(_KIND, str(digest), "\n".join(names).encode())
