"""A build's results as a cache: its steps become keys, its trees stacks of layers (RCH-02…RCH-04, RCH-15).

``Build`` is what one solve was about. Steps are walked inputs first, so a key is always made after those that
lead to it; keys of local sources exist only as the content that was selected from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from builder.cache.basekeys import base_digest, content_key, input_rules, root_key
from builder.cache.cacheconfig import (
    CREATED_ANNOTATION,
    DESCRIPTION_ANNOTATION,
    DIFF_ID_ANNOTATION,
    MAX_JSON_BYTES,
    CacheConfig,
    CacheMountBlob,
    time_text,
)
from builder.cache.cachegraph import GraphBuilder, Link, Stack
from builder.cache.store import Store
from builder.cache.types import SnapshotInfo
from builder.llb.definition import Definition
from builder.llb.ops import BuildOp, SourceOp, output_count
from builder.oci.descriptor import Descriptor
from builder.oci.digest import DiffId, Digest
from builder.remotecache.matching import RemoteCaches, RemoteStack
from builder.solver.cutoff import selection_digest
from builder.solver.env import Sources
from builder.solver.planning import Node, Nodes
from builder.solver.solver import chain

LayerOf = Callable[[SnapshotInfo], tuple[DiffId, Descriptor]]
"""The layer blob of a snapshot, made if need be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A definition that was solved, with its steps."""

    definition: Definition
    nodes: Nodes
    sources: Sources
    remote: RemoteCaches | None = None

    def snapshot(self, vertex: Digest, output: int) -> str | None:
        """A result's tree, if it is here."""
        outputs = self.nodes[vertex].outputs or ()
        return outputs[output] if output < len(outputs) else None


def collect(
    builder: GraphBuilder, build: Build, store: Store, layer_of: LayerOf, *, mode: str, here: bool = False
) -> None:
    """Add what a build made to ``builder``: with ``min`` only the layers of the result itself (RCH-04).

    ``here`` leaves out results that no step had to fetch.
    """
    wanted = chain(build.definition, build.nodes) if mode == "min" else build.nodes
    stacks = Stacks(store, layer_of)

    def results(node: Node, output: int) -> Iterator[tuple[Stack, int]]:
        if node.vertex.digest in wanted:
            yield from _results(node, output, build, stacks, here=here)

    add_keys(builder, build, store, results)


def add_keys(
    builder: GraphBuilder,
    build: Build,
    store: Store,
    results: Callable[[Node, int], Iterator[tuple[Stack, int]]],
) -> None:
    """Every step of a build as a key, with what ``results`` says that it led to."""
    made: dict[tuple[Digest, int], list[int]] = {}
    for vertex in build.definition.vertices:
        node = build.nodes[vertex.digest]
        if node.local or node.unsure or node.blocked or node.error or isinstance(vertex.op, BuildOp):
            continue
        if isinstance(vertex.op, SourceOp):
            digests = build.sources.base_digests(vertex.op, vertex.platform, node.reporter)
            roots = [builder.add(root_key(digest)) for digest in digests]
            made[vertex.digest, 0] = [number for number in roots if number is not None]
            continue
        links = _links(builder, node, build, store, made)
        base = base_digest(vertex)
        for output in range(output_count(vertex.op)):
            exported = results(node, output) if vertex.meta.export_cache else iter(())
            number = builder.add(root_key(base, output), links, exported)
            made[vertex.digest, output] = [] if number is None else [number]


def _links(
    builder: GraphBuilder,
    node: Node,
    build: Build,
    store: Store,
    made: Mapping[tuple[Digest, int], list[int]],
) -> list[set[Link]]:
    """Per input what leads to a step: its keys, and its content where that is what counts (CKY-12)."""
    found: list[set[Link]] = []
    told = build.remote.content_names(node) if build.remote is not None else {}
    rules = input_rules(node.vertex)
    for position, edge in enumerate(node.vertex.inputs):
        ways = {(number, rules[position].selector) for number in made.get((edge.digest, edge.index), ())}
        if rules[position].by_content:
            content = node.inputs[position].content
            snapshot = build.snapshot(edge.digest, edge.index)
            if not content and snapshot:
                content = selection_digest(node, position, snapshot, store)
            known = {content_key(content)} if content.startswith("sha256:") else told.get(position, set())
            ways |= {(number, "") for name in known if (number := builder.add(name)) is not None}
        found.append(ways)
    return found


def _results(
    node: Node, output: int, build: Build, stacks: Stacks, *, here: bool
) -> Iterator[tuple[Stack, int]]:
    snapshot = build.snapshot(node.vertex.digest, output)
    if snapshot:
        yield stacks.of(snapshot)
        return
    for result in () if here else node.remote or ():  # it stayed where it is
        assert isinstance(result, RemoteStack)
        yield result.stack, result.created_ns
        return


class Stacks:
    """Trees as stacks of described layers; each layer is made once."""

    def __init__(self, store: Store, layer_of: LayerOf) -> None:
        self._store = store
        self._layer_of = layer_of
        self._known: dict[str, Descriptor] = {}

    def of(self, snapshot: str) -> tuple[Stack, int]:
        """The layers of a tree, lowest first, and when it was made."""
        infos = tuple(reversed(self._store.snapshots.chain(snapshot)))
        return tuple(self._layer(info) for info in infos), infos[-1].created_ns

    def _layer(self, info: SnapshotInfo) -> Descriptor:
        if info.id not in self._known:
            self._known[info.id] = described(self._layer_of(info), info)
        return self._known[info.id]


def described(layer: tuple[DiffId, Descriptor], info: SnapshotInfo) -> Descriptor:
    """A layer's descriptor with its diff id, time and origin in its annotations (RCH-05)."""
    diff_id, descriptor = layer
    annotations = [(DIFF_ID_ANNOTATION, str(diff_id)), (CREATED_ANNOTATION, time_text(info.created_ns))]
    if info.description and not info.description.startswith("layer "):
        annotations.append((DESCRIPTION_ANNOTATION, _printable(info.description)))
    return replace(descriptor, annotations=tuple(annotations), platform=None, urls=())


def _printable(text: str) -> str:
    return text[:1000].encode("utf-8", "replace").decode()


def merged(
    own: Callable[[GraphBuilder], None], previous: Sequence[CacheConfig], mounts: Sequence[CacheMountBlob]
) -> CacheConfig:
    """A build's cache together with what is there already, while both fit into one document (RCH-15)."""
    builder = GraphBuilder()
    own(builder)
    if not previous:
        return builder.config(mounts)
    for config in previous:
        builder.add_config(config)
    ids = {mount.id for mount in mounts}
    kept = {mount.id: mount for config in previous for mount in config.mounts if mount.id not in ids}
    found = builder.config((*mounts, *kept.values()))
    if len(found.to_bytes(details=True)) <= MAX_JSON_BYTES:
        return found
    return merged(own, (), mounts)
