"""Base images that stay in their registry: those of a build that only pushes and whose steps do not read them
(EXP-14, SLV-09).

Such an image is an empty tree for the solver; when the result is exported, the layers of the steps are put on
the image's descriptors. Only the records of merges on such a tree outlive the build, under keys of their own.
A layer that the target neither has nor can mount is fetched to be uploaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from builder.build.sources import BaseImage, image_key
from builder.errors import Cancelled, PybuildError, SourceUnavailable
from builder.exporter.steps import Steps
from builder.exporter.types import LayerRef, OutputSpec
from builder.llb.definition import Definition, Vertex
from builder.llb.ops import MergeOp, SourceOp
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.solver.planning import attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.attest.request import AttestRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    vertex: Vertex
    image: BaseImage
    origin: Reference


@dataclass(slots=True)
class LateBases:
    """The base images of one build that stay where they are; the exporter's ``Absent``."""

    _bases: Mapping[Digest, _Base] = field(default_factory=dict)
    _layers: dict[Digest, tuple[_Base, Descriptor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for base in self._bases.values():
            for layer in base.image.layers[0]:
                self._layers.setdefault(layer.digest, (base, layer))

    @property
    def sources(self) -> frozenset[tuple[SourceOp, Platform | None]]:
        """What not to fetch."""
        return frozenset(
            (base.vertex.op, base.vertex.platform)
            for base in self._bases.values()
            if isinstance(base.vertex.op, SourceOp)
        )

    def below(self, definition: Definition) -> tuple[LayerRef, ...]:
        """The layers under the result of ``definition``, lowest first."""
        chain = _to_the_bottom(definition)
        base = self._bases.get(chain[-1].digest) if chain else None
        if base is None:
            return ()
        return tuple(
            LayerRef(diff_id=diff_id, descriptor=layer, base=True)
            for layer, diff_id in zip(*base.image.layers, strict=True)
        )

    def origin(self, digest: Digest) -> Reference | None:
        """The image that has the layer; None for a blob that is none of them."""
        found = self._layers.get(digest)
        return found[0].origin if found is not None else None

    def bring(self, digest: Digest, steps: Steps) -> None:
        """Fetch the layer if it is one of them. Raises SourceUnavailable with the lines of the FROM."""
        if digest not in self._layers:
            return
        base, layer = self._layers[digest]
        try:
            with steps.step(f"fetching {digest}", layer.size) as moved:
                base.image.fetch_layer(layer, moved)
        except Cancelled:
            raise
        except PybuildError as error:
            failure = SourceUnavailable(
                f"{base.origin}: {error.message}",
                context=(
                    f"the target of the push has no layer {digest} and cannot mount it",
                    *error.context,
                ),
                hint=error.hint,
                code="base-image-unavailable",
            )
            raise attribute(failure, base.vertex) from error


def only_pushed(outputs: Sequence[OutputSpec], attest: AttestRequest | None) -> bool:
    """Whether nothing that a build makes has to have the layers of its base images here."""
    told = attest is None or (
        attest.sbom is None and (attest.provenance is None or attest.provenance.mode != "max")
    )
    return told and all(
        spec.type == "image"
        and (spec.push or spec.push_by_digest)
        and not (spec.store or spec.force_compression)
        for spec in outputs
    )


def late_bases(definitions: Sequence[Definition], images: Mapping[str, BaseImage]) -> LateBases:
    """The images at the bottom of ``definitions`` that are used for nothing else and are not all here.

    ``images`` are those that were resolved (``image_key``).
    """
    chains = [chain for chain in map(_to_the_bottom, definitions) if chain]
    read = _read_otherwise(definitions, chains)
    spoiled = {chain[-1].digest for chain in chains if any(vertex.digest in read for vertex in chain)}
    found: dict[Digest, _Base] = {}
    for chain in chains:
        bottom = chain[-1]
        assert isinstance(bottom.op, SourceOp)
        image = images.get(image_key(bottom.op.identifier, bottom.platform))
        plain = all(name == "image.resolvemode" for name, _ in bottom.op.attrs)
        if image is None or not plain or bottom.digest in spoiled:
            continue
        origin = image.missing_from()
        if origin is not None:
            found[bottom.digest] = _Base(vertex=bottom, image=image, origin=origin)
    return LateBases(found)


def _to_the_bottom(definition: Definition) -> tuple[Vertex, ...]:
    """From the head down what the result is laid on, as long as only merges do it; () unless it ends at an
    image.
    """
    vertices = {vertex.digest: vertex for vertex in definition.vertices}
    chain: list[Vertex] = []
    edge = definition.head
    while edge is not None:
        vertex = vertices[edge.digest]
        chain.append(vertex)
        op = vertex.op
        if isinstance(op, SourceOp):
            return tuple(chain) if op.identifier.startswith("docker-image://") else ()
        edge = vertex.inputs[op.inputs[0]] if isinstance(op, MergeOp) and op.inputs else None
    return ()


def _read_otherwise(
    definitions: Sequence[Definition], chains: Collection[tuple[Vertex, ...]]
) -> frozenset[Digest]:
    """What is an input of anything, but for the way from one vertex of a chain down to the next."""
    steps = {(upper.digest, lower.digest) for chain in chains for upper, lower in pairwise(chain)}
    found: set[Digest] = set()
    for definition in definitions:
        for vertex in definition.vertices:
            inputs = [edge.digest for edge in vertex.inputs]
            found.update(
                digest
                for digest in inputs
                if (vertex.digest, digest) not in steps or inputs.count(digest) > 1
            )
    return frozenset(found)
