"""Which repositories are known to hold a blob: kept when it was pulled, used to mount it on a push
(REG-06)."""

from __future__ import annotations

from builder.cache.store import Store
from builder.errors import InvalidValue
from builder.oci.digest import Digest
from builder.oci.reference import Reference

_KIND = "blob-source"
_MAX_SOURCES = 8


def mount_sources(store: Store, digest: Digest) -> tuple[Reference, ...]:
    """Repositories that had the blob, the latest first."""
    found: list[Reference] = []
    for line in (store.doc(_KIND, str(digest)) or b"").decode("utf-8", "replace").split():
        try:
            found.append(Reference.parse(line))
        except InvalidValue:
            continue
    return tuple(found)


def record_source(store: Store, digest: Digest, ref: Reference) -> None:
    """Remember that the repository of ``ref`` has the blob."""
    old = (store.doc(_KIND, str(digest)) or b"").decode("utf-8", "replace").split()
    if old[:1] == [ref.name]:
        return
    names = [ref.name, *(name for name in old if name != ref.name)][:_MAX_SOURCES]
    store.put_doc(_KIND, str(digest), "\n".join(names).encode())
