"""Small real images in a store: layers packed from directories, assembled like a build's."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from builder.cache.pack import pack_layer
from builder.cache.store import Store
from builder.exporter.image import assemble
from builder.exporter.types import ImageResult, LayerRef
from builder.oci.config import History, ImageConfig
from builder.oci.platform import Platform, host_platform

NOW_NS = 1_700_000_000_000_000_000
_numbers = itertools.count()


def make_layer(
    store: Store, base: Path, files: dict[str, bytes], *, compression: str = "gzip", created_by: str = ""
) -> LayerRef:
    """A layer that adds ``files`` (their directories too)."""
    upper = base / f"layer-{next(_numbers)}"
    upper.mkdir(parents=True)
    for name, data in files.items():
        path = upper / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    packed = pack_layer(store.blobs, upper, compression=compression)
    return LayerRef(diff_id=packed.diff_id, descriptor=packed.descriptor, created_by=created_by)


def make_image(
    store: Store,
    base: Path,
    *names: str,
    layers: tuple[dict[str, bytes], ...] = ({"etc/hello": b"hello\n"},),
    config: ImageConfig | None = None,
    platform: Platform | None = None,
    compression: str = "gzip",
    created: str = "2023-11-14T22:13:20Z",
) -> ImageResult:
    """An image with one history entry per layer and an empty one (``CMD``), under ``names``."""
    found = tuple(
        make_layer(store, base, files, compression=compression, created_by=f"COPY {n}")
        for n, files in enumerate(layers)
    )
    history = tuple(History(created=created, created_by=layer.created_by) for layer in found)
    plain = config or ImageConfig(platform=platform or host_platform(), env=("PATH=/bin",), cmd=("sh",))
    if platform is not None:
        plain = replace(plain, platform=platform)
    full = replace(
        plain, history=(*history, History(created=created, created_by='CMD ["sh"]', empty_layer=True))
    )
    result = assemble(store, full, found, now_ns=NOW_NS)
    for name in names:
        store.images.tag(name, result.manifest)
    return result
