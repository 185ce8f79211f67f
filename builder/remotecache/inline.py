"""Inline caches: the records of an image's own layers, in its config (RCH-07)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

from builder.cache.cacheconfig import CacheConfig, CacheLayer, CacheResult
from builder.cache.cachegraph import GraphBuilder, Stack
from builder.cache.store import Store
from builder.exporter.types import BuiltImage
from builder.oci.canonical import compact_json
from builder.remotecache.exporting import Build, add_keys
from builder.remotecache.matching import RemoteStack
from builder.solver.planning import Node
from builder.solver.solver import chain


def inline_cache(build: Build, store: Store, image: BuiltImage) -> str | None:
    """The JSON of ``moby.buildkit.cache.v0`` for an image; None when it has no layers or no keys."""
    if image.snapshot is None or not image.layers:
        return None
    infos = list(reversed(store.snapshots.chain(image.snapshot)))
    if len(infos) != len(image.layers):
        return None  # squashed: no step gave these layers
    heights = {info.id: height for height, info in enumerate(infos, start=1)}
    stack: Stack = tuple(layer.descriptor for layer in image.layers)
    on_chain = chain(build.definition, build.nodes)

    def results(node: Node, output: int) -> Iterator[tuple[Stack, int]]:
        snapshot = build.snapshot(node.vertex.digest, output)
        height = heights.get(snapshot, 0) if snapshot else _height(node, stack)
        if height and node.vertex.digest in on_chain:
            yield stack[:height], infos[height - 1].created_ns

    builder = GraphBuilder()
    add_keys(builder, build, store, results)
    config = _in_image_order(builder.config(), stack)
    if config.is_empty:
        return None
    text = base64.b64encode(compact_json(config.records_json())).decode("ascii")
    return f'"{text}"'


def _height(node: Node, stack: Stack) -> int:
    """How many layers of the image a step gave that was matched and had not to be fetched; 0 = none."""
    for result in node.remote or ():
        assert isinstance(result, RemoteStack)
        height = len(result.stack)
        if [layer.digest for layer in result.stack] == [layer.digest for layer in stack[:height]]:
            return height
    return 0


def _in_image_order(config: CacheConfig, stack: Stack) -> CacheConfig:
    """The same records, with layers numbered as the image has them."""
    layers = tuple(CacheLayer(blob=layer.digest, parent=number - 1) for number, layer in enumerate(stack))
    records = tuple(
        replace(
            record,
            results=tuple(
                CacheResult(tuple(range(len(result.layers))), result.created_ns) for result in record.results
            ),
        )
        for record in config.records
    )
    return CacheConfig(layers=layers, records=records)
