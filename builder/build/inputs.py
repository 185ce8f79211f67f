"""What a build was made from, kept so that its provenance can be made when somebody asks (HSY-02).

It is a document of the store, named by the digest of what it holds: a build that a remembered result answers
names that of the build which made the result. Deflated, it is a line of JSON about the build, and its
operations as ``facts.definition_lines`` has them. Builds wait for this, so it only copies what is there.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder import __version__
from builder.build import facts
from builder.build.request import BuildRequest
from builder.build.sources import BuildSources, image_key
from builder.build.vcs import checkout_of, commit_pin
from builder.cache.history import INPUTS
from builder.cache.store import Store
from builder.errors import PybuildError
from builder.exporter.types import BuiltImage, ExportResult
from builder.frontend.convert import Conversion
from builder.frontend.redact import redact
from builder.llb.definition import Vertex
from builder.llb.ops import SourceOp
from builder.oci.digest import Digest
from builder.oci.platform import host_platform
from builder.solver.solver import Solved
from builder.sources.contexts import PreparedContext

if TYPE_CHECKING:
    from collections.abc import Callable

Pairs = tuple[tuple[str, str], ...]
Depths = Mapping[Digest, Mapping[int, int]]
_WITHOUT_PIN = ("local://", "docker-image://", "oci-layout://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A build that ended well, platform by platform."""

    request: BuildRequest
    prepared: PreparedContext
    conversions: Sequence[Conversion]
    solved: Sequence[Solved]
    sources: BuildSources
    images: Sequence[BuiltImage]
    results: Sequence[ExportResult]


def keep(store: Store, build: Ended) -> str:
    """Keep what a build was made from; the name of the document, "" when that fails: no build does for it."""
    with contextlib.suppress(PybuildError):
        data = _document(store, build)
        name = str(Digest.of(data))
        store.put_doc(INPUTS, name, zlib.compress(data, 1))
        return name
    return ""


def _document(store: Store, build: Ended) -> bytes:
    request, prepared = build.request, build.prepared
    vertices = {vertex.digest: vertex for one in build.conversions for vertex in one.definition.vertices}
    about = {
        "args": {key: _masked(key, value) for key, value in frontend_args(request, prepared)},
        "context": context_of(request, prepared),
        "path": file_of(prepared),
        "dockerfile": prepared.dockerfile.decode("utf-8", "surrogateescape"),
        "origin": prepared.source if from_context(request, prepared) else "local://dockerfile",
        "vcs": [(key, redact(value)) for key, value in vcs_of(request, prepared)],
        "version": __version__,
        "builder": str(host_platform()),
        "pins": dict(_pins(vertices.values(), build.sources.pin)),
        "images": list(_images(store, build)),
    }
    text = "\n".join((json.dumps(about, separators=(",", ":")), *facts.definition_lines(vertices.values())))
    return text.encode("utf-8", "surrogateescape")


def _images(store: Store, build: Ended) -> Iterator[dict[str, Any]]:
    made = next((result.images for result in build.results if result.images), ())
    rows = zip(build.conversions, build.solved, build.images, strict=True)
    for position, (conversion, solved, image) in enumerate(rows):
        layers = made[position].layers if position < len(made) else ()
        head = conversion.definition.head
        depths: Depths = {}
        if layers and not build.request.squash:
            depths = depths_of(store, image, conversion, solved, build.sources)
        yield {
            "platform": str(conversion.platform),
            "head": None if head is None else (str(head.digest), head.index),
            "bases": [(base.ref, str(base.digest), str(base.platform)) for base in conversion.bases],
            "depths": {str(digest): found for digest, found in depths.items()},
            "layers": [layer.descriptor.to_json() for layer in layers],
        }


def _pins(vertices: Iterable[Vertex], pin: Callable[[SourceOp], str]) -> Iterator[tuple[str, str]]:
    """What repositories and files of other machines were, by the digest of their step."""
    for vertex in vertices:
        op = vertex.op
        if isinstance(op, SourceOp) and not op.identifier.startswith(_WITHOUT_PIN):
            found = pin(op)
            if found:
                yield str(vertex.digest), found


def _masked(key: str, value: str) -> str:
    kind, colon, name = key.partition(":")
    return facts.shown(name, value) if colon and kind in ("build-arg", "label") else redact(value)


def frontend_args(request: BuildRequest, prepared: PreparedContext) -> Pairs:
    """The options of a build by their names in BuildKit's protocol."""
    found = [(f"build-arg:{name}", value) for name, value in request.build_args]
    found += [(f"label:{name}", value) for name, value in request.labels]
    for name, source in prepared.named.items():
        hidden = source.path is not None
        found.append((f"context:{name}", f"{source.kind}:{source.name}" if hidden else source.identifier))
    single = {
        "target": request.target or "",
        "no-cache": ",".join(request.no_cache_filter),
        "add-hosts": ",".join(f"{name}={address}" for name, address in request.extra_hosts),
        "force-network-mode": request.network,
        "shm-size": str(request.shm_size_bytes or ""),
        "ulimit": ",".join(f"{item.name}={item.soft}:{item.hard}" for item in request.ulimits),
        "hostname": request.hostname,
        "cgroup-parent": request.cgroup_parent,
        "platform": ",".join(request.platforms),
    }
    found += [(name, value) for name, value in single.items() if value]
    if request.no_cache:
        found.append(("no-cache", ""))
    return tuple(found)


def context_of(request: BuildRequest, prepared: PreparedContext) -> tuple[str, str] | None:
    """URL and pin of a remote context, with the branch and directory that were asked for."""
    if not prepared.source:
        return None
    revision = prepared.revision
    pin = revision if ":" in revision else commit_pin(revision)
    fragment = request.context.partition("#")[2]
    url = prepared.source
    return (f"{url}#{fragment}" if fragment and "#" not in url else url), pin


def from_context(request: BuildRequest, prepared: PreparedContext) -> bool:
    """Whether the Dockerfile is the one of a remote context."""
    given = request.dockerfile == "-" or request.dockerfile_data is not None
    return bool(prepared.source) and not given and prepared.dockerfile_path is None


def file_of(prepared: PreparedContext) -> str:
    """What the Dockerfile is called; no directory of this machine."""
    name = prepared.dockerfile_name
    return name.rpartition("/")[2] if name.startswith("/") else name


def vcs_of(request: BuildRequest, prepared: PreparedContext) -> Pairs:
    """The checkout that a context on this machine is in."""
    return checkout_of(request.context) if not prepared.source and prepared.main else ()


def depths_of(
    store: Store, built: BuiltImage, conversion: Conversion, solved: Solved, sources: BuildSources
) -> Depths:
    """Of how many of the image's layers the result of each step is made, for those that lead to it."""
    below = tuple(layer.descriptor for layer in built.below)
    chain = reversed(store.snapshots.chain(built.snapshot)) if built.snapshot is not None else ()
    depth = {info.id: number for number, info in enumerate(chain, len(below) + 1)}
    outputs = {step.digest: step.outputs or () for step in solved.steps}
    found: dict[Digest, dict[int, int]] = {}
    for vertex in conversion.definition.vertices:
        made = outputs.get(str(vertex.digest), ())
        if isinstance(vertex.op, SourceOp):
            image = sources.images.get(image_key(vertex.op.identifier, vertex.platform))
            if image is not None and below and image.layers[0] == below:
                found[vertex.digest] = {0: len(below)}
                continue
            base = store.snapshots.by_chain(image.chain_id) if image is not None and image.chain_id else None
            made = (base.id,) if base is not None else ()
        held = {index: depth[name] for index, name in enumerate(made) if name in depth}
        if held:
            found[vertex.digest] = held
    return found
