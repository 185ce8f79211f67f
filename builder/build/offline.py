"""What a check asks instead of registries: it never leaves the machine (row FRM-06)."""

from __future__ import annotations

from collections.abc import Iterable

from builder.cache.store import Store
from builder.frontend.convert import NamedContext, ResolvedImage
from builder.images.resolve import stored_image
from builder.llb.ops import SourceOp
from builder.oci.config import ImageConfig
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.sources.contexts import PreparedContext
from builder.sources.named import normal_name


class OfflineResolver:
    """The frontend's ``Resolver`` for questions: an image in the store is known, any other is made up.

    What depends on a made-up image's config is not reported.
    """

    def __init__(self, store: Store, prepared: PreparedContext) -> None:
        self._store = store
        self._named = prepared.named

    def image(self, ref: str, platform: Platform, *, mode: str) -> ResolvedImage:  # noqa: ARG002
        """The image as the store has it, or one of which nothing is known."""
        found = stored_image(self._store, ref, platform)
        if found is not None:
            return ResolvedImage(found.digest, found.config, found.platform, ref)
        return _made_up(ref, platform)

    def context(self, name: str, platform: Platform) -> NamedContext | None:
        """A named context, nothing of it read."""
        known = normal_name(name)
        source = self._named.get(f"{known}::{platform}") or self._named.get(known)
        if source is None:
            return None
        if source.kind == "local":
            return NamedContext(source.name, "local", f"local://{source.identifier}")
        if source.kind == "image" and source.identifier != "scratch":
            return NamedContext(source.name, "image", f"docker-image://{source.identifier}")
        if source.kind == "blob":
            return NamedContext(source.name, "http", source.identifier)
        if source.kind in ("git", "http"):
            return NamedContext(source.name, source.kind, source.identifier)
        if source.kind in ("oci", "input"):
            image = _made_up(source.name, platform)
            return NamedContext(source.name, "oci", f"oci-layout://{source.name}@{image.digest}", image=image)
        return NamedContext(source.name, "scratch")

    def prefetch(self, refs: Iterable[tuple[str, Platform]]) -> None:
        """Nothing is fetched."""

    def source_epoch(self, source: SourceOp) -> int | None:  # noqa: ARG002
        """Not known without asking."""
        return None


def _made_up(ref: str, platform: Platform) -> ResolvedImage:
    digest = Digest.of(ref.encode("utf-8", "surrogateescape"))
    return ResolvedImage(digest, ImageConfig.scratch(platform), platform, ref, known=False)
