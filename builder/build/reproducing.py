"""``build --reproducible``: a build with fixed times, and a second one elsewhere that must give the same.

The second build runs in a state directory of its own, which holds only the base images and is thrown away,
so nothing of the first one's cache can answer it. Attestations are not compared: they name the build and its
time.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, cast

from builder import images
from builder.build.export import TREE_OUTPUTS
from builder.build.machine import Machine
from builder.build.phases import phase
from builder.build.request import BuildRequest, BuildResult
from builder.cache.compression import Decompressor
from builder.cache.store import Store
from builder.errors import ExportError, UsageError
from builder.exporter.types import OutputSpec
from builder.images.select import PlatformManifest, is_attestation, platform_manifest, read_config
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Index, parse_document
from builder.oci.reference import Reference
from builder.solver.cancel import Cancel
from builder.solver.progress import OnEvent

EPOCH = "SOURCE_DATE_EPOCH"


def build_reproducible(
    store: Store, request: BuildRequest, *, on_event: OnEvent, machine: Machine, cancel: Cancel | None
) -> BuildResult:
    """Build, build again, compare. Raises ExportError naming the first difference, and what builds raise."""
    from builder.build import build

    fixed = _fixed(request)
    result = build(store, fixed, on_event=on_event, machine=machine, cancel=cancel)
    with phase("[internal] build again and compare", on_event), store.staging("again") as directory:
        _copy_bases(store, result, directory)
        with Store.open(directory / "root", snapshotter=store.snapshots.driver) as other:
            _load_bases(other, result, directory)
            again = build(other, _again(fixed), on_event=lambda _: None, machine=machine, cancel=cancel)
            _compare(store, result, other, again)
    return result


def _fixed(request: BuildRequest) -> BuildRequest:
    """The request with an epoch, 0 unless one is given, and times that are at most that."""
    if "-" in (request.context, request.dockerfile):
        raise UsageError("--reproducible reads its context twice", hint="give a directory or a URL")
    outputs = request.outputs or (OutputSpec(type="image"),)
    if not any(spec.type not in TREE_OUTPUTS for spec in outputs):
        raise UsageError("--reproducible needs an output that is an image", hint="like type=oci,dest=FILE")
    args = dict(request.build_args)
    args.setdefault(EPOCH, "0")
    return replace(
        request,
        reproducible=False,
        build_args=tuple(args.items()),
        outputs=tuple(replace(spec, rewrite_timestamp=True) for spec in outputs),
    )


def _again(request: BuildRequest) -> BuildRequest:
    spec = next(spec for spec in request.outputs if spec.type not in TREE_OUTPUTS)
    plain = replace(
        spec,
        type="image",
        dest="",
        names=(),
        push=False,
        push_by_digest=False,
        name_canonical=False,
        store=True,
    )
    return replace(
        request, tags=(), outputs=(plain,), attest=(), build_id="", stdin=None, stdout=None, pull=False
    )


def _copy_bases(store: Store, result: BuildResult, directory: Path) -> None:
    names = [name for name, _ in result.bases]
    if names:
        images.save(store, names, directory / "bases.tar", "oci")


def _load_bases(other: Store, result: BuildResult, directory: Path) -> None:
    if not result.bases:
        return
    with (directory / "bases.tar").open("rb", buffering=0) as file:
        loaded = {str(item.manifest.digest): item.manifest for item in images.load(other, file)}
    for name, digest in result.bases:
        reference = Reference.parse(name)
        if reference.digest is not None and digest in loaded:  # such a name is found by any tag
            other.images.tag(f"{reference.name}:{reference.tag or 'again'}", loaded[digest])


# --- comparing


def _compare(store: Store, result: BuildResult, other: Store, again: BuildResult) -> None:
    for one, two in zip(_manifests(store, result), _manifests(other, again), strict=True):
        if one.descriptor.digest != two.descriptor.digest:
            raise ExportError(
                f"the image is not reproducible: {_difference(store, one, other, two)}",
                code="not-reproducible",
                hint="two builds of the same inputs gave different results; see docs/attestations.md",
            )


def _manifests(store: Store, result: BuildResult) -> list[PlatformManifest]:
    """The images of a result, one per platform."""
    assert result.digest is not None
    digest = Digest.parse(result.digest)
    data = store.blobs.read(digest, MAX_DOCUMENT_BYTES)
    found = parse_document(data)
    root = Descriptor(media_type=found.media_type, digest=digest, size=len(data))
    if not isinstance(found, Index):
        return [PlatformManifest(descriptor=root, manifest=found, config=read_config(store, found))]
    entries = [entry for entry in found.manifests if not is_attestation(entry)]
    return [platform_manifest(store, entry, None, str(entry.digest)) for entry in entries]


def _difference(store: Store, one: PlatformManifest, other: Store, two: PlatformManifest) -> str:
    """The first layer that differs and the first path in it, else what differs in the config."""
    steps = [entry.created_by for entry in one.config.history if not entry.empty_layer]
    total = len(one.manifest.layers)
    for number, (a, b) in enumerate(zip_longest(one.manifest.layers, two.manifest.layers)):
        if a is not None and b is not None and a.digest == b.digest:
            continue
        step = f" ({steps[number][:200]})" if number < len(steps) and steps[number] else ""
        place = f"layer {number + 1} of {total}{step} differs"
        if a is None or b is None:
            return f"{place}: only one build has it"
        return f"{place}, first at {_first_path(store, a, other, b)}"
    left, right = one.config.to_json(), two.config.to_json()
    keys = sorted(key for key in {*left, *right} if left.get(key) != right.get(key))
    return f"the config differs in {keys[0]}" if keys else "the manifests differ"


def _first_path(store: Store, a: Descriptor, other: Store, b: Descriptor) -> str:
    with store.blobs.open(a.digest) as one, other.blobs.open(b.digest) as two:
        for left, right in zip_longest(_members(one), _members(two)):
            if left is None or right is None:
                return f"/{(left or right or ('',))[0]}, which only one has"
            if left[0] != right[0]:
                return f"/{min(left[0], right[0])}, which only one has"
            for key, value in left[1].items():
                if value != right[1][key]:
                    return f"/{left[0]} ({key})"
    return "no path: they are compressed differently"


def _members(file: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every entry of a layer with what can differ, the content by its digest."""
    with tarfile.open(fileobj=cast("IO[bytes]", Decompressor(file)), mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            yield (
                member.name.lstrip("/"),
                {
                    "type": member.type,
                    "content": _digest(content) if content else member.linkname,
                    "mode": member.mode,
                    "owner": (member.uid, member.gid),
                    "modification time": member.mtime,
                    "attributes": sorted(member.pax_headers.items()),
                },
            )


def _digest(file: IO[bytes]) -> bytes:
    found = hashlib.sha256()
    while chunk := file.read(1 << 20):
        found.update(chunk)
    return found.digest()
