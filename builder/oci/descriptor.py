"""Descriptors and media types (OCI image-spec, descriptor.md and media-types.md)."""

from __future__ import annotations

from dataclasses import dataclass

from builder.errors import InvalidValue
from builder.oci.digest import Digest
from builder.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD = DOCKER_LAYER + ".zstd"

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})

_NONDIST = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_TO_DOCKER = {
    _NONDIST: _FOREIGN,
    f"{_NONDIST}+gzip": f"{_FOREIGN}.gzip",
    f"{_NONDIST}+zstd": f"{_FOREIGN}.zstd",
    OCI_MANIFEST: DOCKER_MANIFEST,
    OCI_INDEX: DOCKER_INDEX,
    OCI_CONFIG: DOCKER_CONFIG,
    OCI_LAYER: DOCKER_LAYER,
    OCI_LAYER_GZIP: DOCKER_LAYER_GZIP,
    OCI_LAYER_ZSTD: DOCKER_LAYER_ZSTD,
}
_TO_OCI = {docker: oci for oci, docker in _TO_DOCKER.items()}


def to_docker(media_type: str) -> str:
    """The Docker name of an OCI media type; others unchanged."""
    return _TO_DOCKER.get(media_type, media_type)


def to_oci(media_type: str) -> str:
    """The OCI name of a Docker media type; others unchanged."""
    return _TO_OCI.get(media_type, media_type)


def distributable(media_type: str) -> str:
    """The type of an ordinary layer for one that is not to be pushed; others unchanged."""
    return media_type.replace(_NONDIST, OCI_LAYER).replace(_FOREIGN, DOCKER_LAYER)


def layer_compression(media_type: str) -> str:
    """``gzip``, ``zstd`` or ``uncompressed`` for a layer's media type."""
    if media_type.endswith(("+gzip", ".gzip")):
        return "gzip"
    if media_type.endswith(("+zstd", ".zstd")):
        return "zstd"
    return "uncompressed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Names a blob: what it is, its digest and its size."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    urls: tuple[str, ...] = ()
    artifact_type: str = ""
    data: str = ""
    """The blob itself in base64, where it is so small that it travels along."""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InvalidValue(f"descriptor of {self.digest} has a negative size")

    @classmethod
    def from_json(cls, value: Any) -> Descriptor:
        """Read the JSON form; raises InvalidValue on anything that is not a descriptor."""
        if not isinstance(value, dict):
            raise InvalidValue("a descriptor must be a JSON object")
        media_type, digest, size = value.get("mediaType", ""), value.get("digest"), value.get("size")
        if not isinstance(media_type, str) or not isinstance(digest, str):
            raise InvalidValue("a descriptor needs mediaType and digest as text")
        if not isinstance(size, int) or isinstance(size, bool):
            raise InvalidValue(f"descriptor of {digest[:80]} needs a whole number as size")
        annotations = value.get("annotations") or {}
        if not isinstance(annotations, dict):
            raise InvalidValue(f"descriptor of {digest[:80]}: annotations must be an object")
        urls = value.get("urls") or ()
        return cls(
            media_type=media_type,
            digest=Digest.parse(digest),
            size=size,
            platform=platform_from_json(value.get("platform")),
            annotations=tuple((str(k), str(v)) for k, v in annotations.items()),
            urls=tuple(str(url) for url in urls) if isinstance(urls, list) else (),
            artifact_type=str(value.get("artifactType") or ""),
            data=str(value.get("data") or ""),
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form, keys in the order of the specification."""
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            out["urls"] = list(self.urls)
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        if self.platform is not None:
            out["platform"] = platform_to_json(self.platform)
        if self.data:
            out["data"] = self.data
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        return out


def platform_from_json(value: Any) -> Platform | None:
    """The platform object of a descriptor, kept as written (not normalised)."""
    if not isinstance(value, dict):
        return None
    features = value.get("os.features") or ()
    return Platform(
        str(value.get("os", "")),
        str(value.get("architecture", "")),
        str(value.get("variant") or ""),
        str(value.get("os.version") or ""),
        tuple(str(feature) for feature in features) if isinstance(features, list) else (),
    )


def platform_to_json(platform: Platform) -> dict[str, Any]:
    """The platform object of a descriptor."""
    out: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        out["os.version"] = platform.os_version
    if platform.os_features:
        out["os.features"] = list(platform.os_features)
    if platform.variant:
        out["variant"] = platform.variant
    return out
