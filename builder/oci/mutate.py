"""Image + layer + config change → image, as new values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    to_docker,
    to_oci,
)
from builder.oci.digest import ChainId, DiffId, Digest, chain_ids
from builder.oci.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A config and the layers that it describes, lowest first."""

    config: ImageConfig
    layers: tuple[Descriptor, ...] = ()

    @property
    def chain_id(self) -> ChainId | None:
        """What names the tree of all layers; None without any."""
        return chain_ids(self.config.diff_ids)[-1] if self.config.diff_ids else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """An image as bytes, with the descriptors that name them."""

    config: bytes
    config_descriptor: Descriptor
    manifest: bytes
    manifest_descriptor: Descriptor


def with_layer(image: Image, diff_id: DiffId, layer: Descriptor, history: History) -> Image:
    """``image`` with one more layer on top; ``history`` says how it was made."""
    config = replace(
        image.config,
        diff_ids=(*image.config.diff_ids, diff_id),
        history=(*image.config.history, replace(history, empty_layer=False)),
        created=history.created or image.config.created,
    )
    return Image(config=config, layers=(*image.layers, layer))


def with_config(
    image: Image, change: Callable[[ImageConfig], ImageConfig], history: History | None = None
) -> Image:
    """``image`` with a changed config; ``history`` is its new entry without a layer.

    Layers and their diff ids stay as they are, whatever ``change`` does.
    """
    config = replace(change(image.config), diff_ids=image.config.diff_ids)
    if history is not None:
        config = replace(
            config,
            history=(*config.history, replace(history, empty_layer=True)),
            created=history.created or config.created,
        )
    return replace(image, config=config)


def documents(image: Image, *, oci: bool = True, annotations: tuple[tuple[str, str], ...] = ()) -> Documents:
    """The config and manifest of ``image`` as they are published."""
    config = image.config.to_bytes()
    config_descriptor = Descriptor(
        media_type=OCI_CONFIG if oci else DOCKER_CONFIG, digest=Digest.of(config), size=len(config)
    )
    convert = to_oci if oci else to_docker
    manifest = Manifest(
        config=config_descriptor,
        layers=tuple(replace(layer, media_type=convert(layer.media_type)) for layer in image.layers),
        media_type=OCI_MANIFEST if oci else DOCKER_MANIFEST,
        annotations=annotations,
    )
    data = manifest.to_bytes()
    return Documents(
        config=config,
        config_descriptor=config_descriptor,
        manifest=data,
        manifest_descriptor=Descriptor(
            media_type=manifest.media_type, digest=Digest.of(data), size=len(data)
        ),
    )
