"""A resolver that contacts nobody: a check can then judge a Dockerfile whose base images are out of reach."""

from __future__ import annotations

from collections.abc import Iterable

from builder.build.resolver import BuildResolver
from builder.errors import SourceUnavailable
from builder.frontend.convert import ResolvedImage
from builder.oci.config import ImageConfig
from builder.oci.digest import Digest
from builder.oci.platform import Platform


class OfflineResolver(BuildResolver):
    """Knows the images of the store; any other is taken for one without settings of its own (FRM-06)."""

    def image(self, ref: str, platform: Platform, *, mode: str) -> ResolvedImage:
        del mode
        try:
            return super().image(ref, platform, mode="stored")
        except SourceUnavailable:
            return ResolvedImage(Digest.of(ref.encode()), ImageConfig.scratch(platform), platform, ref)

    def prefetch(self, refs: Iterable[tuple[str, Platform]]) -> None:
        del refs
