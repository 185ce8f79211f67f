"""Single blobs as files (SOC-02): ``docker-image+blob://`` and ``oci-layout+blob://``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from builder.cache.store import Store
from builder.errors import InvalidValue, PybuildError, SourceUnavailable
from builder.llb.ops import SourceOp
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.reference import Reference
from builder.registry.hosts import RegistryConfig
from builder.sources.http import HttpFile, safe_name
from builder.sources.steps import Step

REGISTRY = "docker-image+blob://"
LAYOUT = "oci-layout+blob://"


def is_blob(identifier: str) -> bool:
    """Whether a source is a single blob."""
    return identifier.startswith((REGISTRY, LAYOUT))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSource:
    """One blob. ``layouts`` are the OCI layouts of the build by name."""

    store: Store
    op: SourceOp
    registry: RegistryConfig
    layouts: Mapping[str, Path]

    def fetch(self, step: Step) -> HttpFile:
        """The blob as a file; its time is the epoch. Raises SourceUnavailable, InvalidValue."""
        place, at, text = self.op.identifier.partition("://")[2].rpartition("@")
        if not at:
            raise InvalidValue(
                f"{self.op.identifier}: a blob is named by its digest", hint="want NAME@sha256:…"
            )
        digest = Digest.parse(text)
        if not self.store.blobs.has(digest):
            step.status(f"fetching {digest}")
            try:
                self._bring(place, digest)
            except PybuildError as error:
                raise SourceUnavailable(
                    f"{self.op.identifier}: {error.message}", context=error.context, hint=error.hint
                ) from error
            step.status(f"fetching {digest}", done=True)
        path = self.store.blobs.path(digest)
        name = safe_name(self.op.attr("http.filename"), "", digest.hex)
        return HttpFile(digest=digest, size=path.stat().st_size, name=name, mtime_s=0, path=path)

    def _bring(self, place: str, digest: Digest) -> None:
        if self.op.identifier.startswith(REGISTRY):
            from builder.registry.client import client_for
            from builder.registry.pull import fetch_blobs

            client, ref = client_for(self.registry), replace(Reference.parse(place), tag=None, digest=digest)
            fetch_blobs(
                client,
                ref,
                (client.blob(ref),),
                self.store.blobs,
                guard=lambda found: self.store.lock(f"blob {found}"),
            )
            return
        from builder.images.layout import open_layout

        folder = self.layouts.get(place)
        if folder is None:
            raise InvalidValue(
                f"OCI layout {place} is not part of this build", hint=f"add --oci-layout {place}=DIR"
            )
        try:
            size = (folder / "blobs" / digest.algorithm / digest.hex).stat().st_size
        except OSError as error:
            raise SourceUnavailable(f"blob {digest} is not in {folder}") from error
        with open_layout(folder) as layout:
            layout.copy(
                Descriptor(media_type="application/octet-stream", digest=digest, size=size), self.store.blobs
            )
