"""``load``: docker archives, OCI layouts and old v1 archives into the store (IC-LOAD, IMG-06…IMG-09).

Every digest is checked; only names that the archive itself gives are set, each to the image it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.cache.compression import CHUNK, Decompressor, Readable, sniff
from builder.cache.store import Store
from builder.errors import BlobMissing, DigestMismatch, InvalidValue, NoSuchImage
from builder.exporter.steps import Steps
from builder.images.layout import entry_name, find_entry, parse_layout_index
from builder.images.resolve import ResolvedBase, resolved_from
from builder.images.select import is_attestation, platform_manifest
from builder.images.staged import Member, StagedArchive
from builder.oci.config import MAX_CONFIG_BYTES, ImageConfig
from builder.oci.descriptor import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
)
from builder.oci.digest import DiffId, Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest, parse_document
from builder.oci.platform import Platform, host_platform
from builder.oci.reference import Reference
from builder.solver.progress import OnEvent

_COMPRESSED = {"plain": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One image of an archive: ``name`` is None for one without; ``replaced`` had the name before
    (IMG-09)."""

    name: str | None
    id: Digest
    manifest: Descriptor
    replaced: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image of an archive whose blobs are all in the store."""

    root: Descriptor
    names: tuple[Reference, ...] = ()


def load(
    store: Store,
    stream: Readable,
    *,
    on_event: OnEvent | None = None,
    vertex: str = "",
    platform: Platform | None = None,
) -> tuple[Loaded, ...]:
    """Load every image of an archive (plain or compressed); names that it gives are set, others untouched.

    ``platform`` keeps one platform of an index. Raises InvalidValue, BadArchive, DigestMismatch, BlobMissing.
    """
    steps = Steps(on_event, vertex)
    with store.hold():
        with steps.step("reading archive"):
            staged = StagedArchive.read(store, stream)
        found = read_images(store, staged)
        loaded: list[Loaded] = []
        for image in found:
            root = image.root
            if platform is not None:
                root = platform_manifest(store, root, platform, staged.name).descriptor
            image_id = store.images.identify(root)
            if not image.names:
                store.images.add(root)
                loaded.append(Loaded(name=None, id=image_id, manifest=root))
            for name in image.names:
                replaced = store.images.tag(str(name), root)
                loaded.append(Loaded(name=str(name), id=image_id, manifest=root, replaced=replaced))
    for item in loaded:
        store.events.add("image", "load", str(item.id), {"name": item.name or ""})
    return tuple(loaded)


def import_archive(
    store: Store, path: Path, ref: str = "", *, platform: Platform | None = None
) -> ResolvedBase:
    """The image of a docker archive or layout tar as a base; ``ref`` chooses among several. Sets no names."""
    with store.hold():
        found = read_images(store, _staged(store, path))
        chosen = _pick(found, ref, str(path))
        wanted = platform or host_platform()
        return resolved_from(
            chosen.root, platform_manifest(store, chosen.root, wanted, str(path)), platform, "archive"
        )


def import_layout_tar(
    store: Store, path: Path, ref_or_digest: str, *, platform: Platform | None = None
) -> ResolvedBase:
    """The same for a tar of an OCI layout, chosen by tag, name or digest."""
    with store.hold():
        staged = _staged(store, path)
        data = staged.document("index.json", MAX_DOCUMENT_BYTES)
        if data is None:
            return import_archive(store, path, ref_or_digest, platform=platform)
        root = find_entry(parse_layout_index(data, str(path)), ref_or_digest, str(path))
        root = _publish_root(store, staged, root)
        wanted = platform or host_platform()
        return resolved_from(root, platform_manifest(store, root, wanted, str(path)), platform, "layout")


def _staged(store: Store, path: Path) -> StagedArchive:
    try:
        with path.open("rb", buffering=0) as file:
            return StagedArchive.read(store, file, str(path))
    except OSError as error:
        raise InvalidValue(f"cannot read {path}: {error.strerror}") from error


def _pick(found: tuple[Found, ...], ref: str, name: str) -> Found:
    if not ref:
        if len({image.root.digest for image in found}) != 1:
            raise NoSuchImage(f"{name} holds {len(found)} images", hint="say which by its name")
        return found[0]
    wanted = Reference.parse(ref).with_default_tag()
    for image in found:
        if wanted in image.names:
            return image
    raise NoSuchImage(f"{name}: no image called {ref!r} in the archive")


def read_images(store: Store, staged: StagedArchive) -> tuple[Found, ...]:
    """The images of an archive, newest format first: OCI layout, docker's manifest.json, v1 directories."""
    index = staged.document("index.json", MAX_DOCUMENT_BYTES)
    if index is not None and staged.member("oci-layout") is not None:
        return _from_layout(store, staged, parse_layout_index(index, staged.name))
    manifest = staged.document("manifest.json", MAX_DOCUMENT_BYTES)
    if manifest is not None:
        return _from_docker(store, staged, manifest)
    from builder.images.legacy import read_legacy

    found = read_legacy(store, staged)
    if not found:
        raise InvalidValue(
            f"{staged.name} is not an image archive",
            hint="a tar of a file system is read by import, not by load",
        )
    return found


# OCI layouts


def _from_layout(store: Store, staged: StagedArchive, entries: tuple[Descriptor, ...]) -> tuple[Found, ...]:
    names: dict[Digest, list[Reference]] = {}
    roots: dict[Digest, Descriptor] = {}
    for entry in entries:
        if entry.media_type not in MANIFEST_TYPES and entry.media_type not in INDEX_TYPES:
            continue
        if entry.digest not in roots:
            roots[entry.digest] = _publish_root(store, staged, entry)
        name = entry_name(entry)
        known = names.setdefault(entry.digest, [])
        if name is not None and name not in known:
            known.append(name)
    if not roots:
        raise InvalidValue(f"{staged.name}: its index.json names no image")
    return tuple(Found(root=root, names=tuple(names[digest])) for digest, root in roots.items())


def _publish_root(store: Store, staged: StagedArchive, root: Descriptor) -> Descriptor:
    """Bring all that ``root`` reaches into the store; children of an index may be missing, but not all."""
    _publish_tree(store, staged, root, 0)
    return replace(root, annotations=(), platform=None)


def _publish_tree(store: Store, staged: StagedArchive, descriptor: Descriptor, depth: int) -> None:
    if depth > 4:
        raise InvalidValue(f"{staged.name}: indexes are nested too deeply")
    staged.publish(descriptor.digest)
    if store.blobs.size(descriptor.digest) != descriptor.size:
        raise DigestMismatch(f"{staged.name}: {descriptor.digest} does not have the announced size")
    if descriptor.media_type not in MANIFEST_TYPES and descriptor.media_type not in INDEX_TYPES:
        return
    data = store.blobs.read(descriptor.digest, MAX_DOCUMENT_BYTES)
    document = parse_document(data, descriptor.media_type)
    if isinstance(document, Manifest):
        for blob in (document.config, *document.layers):
            if not blob.urls or staged.by_digest(blob.digest) is not None:
                _publish_tree(store, staged, replace(blob, media_type="blob"), depth + 1)
        return
    here = [child for child in document.manifests if _has(store, staged, child.digest)]
    if not any(not is_attestation(child) for child in here):
        raise BlobMissing(f"{staged.name} is incomplete: no image of index {descriptor.digest} is in it")
    for child in here:
        _publish_tree(store, staged, child, depth + 1)


def _has(store: Store, staged: StagedArchive, digest: Digest) -> bool:
    return staged.by_digest(digest) is not None or store.blobs.has(digest)


# docker archives


def _from_docker(store: Store, staged: StagedArchive, data: bytes) -> tuple[Found, ...]:
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{staged.name}: manifest.json is not valid JSON: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InvalidValue(f"{staged.name}: manifest.json must be a list of images")
    return tuple(_docker_image(store, staged, row) for row in rows)


def _docker_image(store: Store, staged: StagedArchive, row: dict[str, Any]) -> Found:
    config_name, layer_names, tags = row.get("Config"), row.get("Layers") or [], row.get("RepoTags") or []
    if not isinstance(config_name, str) or not _texts(layer_names) or not _texts(tags):
        raise InvalidValue(f"{staged.name}: manifest.json has an entry without Config and Layers")
    config_data = staged.document(config_name, MAX_CONFIG_BYTES)
    if config_data is None:
        raise BlobMissing(f"{staged.name} is incomplete: {config_name} is not in it")
    _check_config_name(staged, config_name, config_data)
    config = ImageConfig.from_bytes(config_data)
    members = []
    for name in layer_names:
        member = staged.member(name)
        if member is None:
            raise BlobMissing(f"{staged.name} is incomplete: layer {name} is not in it")
        members.append(member)
    if len(members) != len(config.diff_ids):
        raise InvalidValue(
            f"{staged.name}: {len(members)} layers, but the config of the image has {len(config.diff_ids)}"
        )
    layers = tuple(
        layer_descriptor(store, staged, member, diff_id)
        for member, diff_id in zip(members, config.diff_ids, strict=True)
    )
    names = tuple(dict.fromkeys(Reference.parse(tag).with_default_tag() for tag in tags))
    return Found(root=publish_image(store, config_data, layers), names=names)


def _check_config_name(staged: StagedArchive, name: str, data: bytes) -> None:
    """Docker names the config by its digest: a name that lies is refused."""
    stem = name.rpartition("/")[2].removesuffix(".json")
    if len(stem) == 64 and all(c in "0123456789abcdef" for c in stem) and Digest.of(data).hex != stem:
        raise DigestMismatch(f"{staged.name}: {name} has digest {Digest.of(data)}")


def publish_image(store: Store, config: bytes, layers: tuple[Descriptor, ...]) -> Descriptor:
    """Config and a manifest over it and ``layers``, in the store."""
    config_descriptor = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config), size=len(config))
    manifest = Manifest(config=config_descriptor, layers=layers).to_bytes()
    store.blobs.put_many((config, manifest))
    return Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(manifest), size=len(manifest))


def layer_descriptor(
    store: Store, staged: StagedArchive, member: Member, diff_id: DiffId | None
) -> Descriptor:
    """The layer blob of an archive's member, in the store. Raises DigestMismatch against ``diff_id``."""
    staged.publish(member.digest)
    with store.blobs.open(member.digest) as file:
        compression = sniff(file.read(6))
    media_type = _COMPRESSED.get(compression)
    if media_type is None:
        raise InvalidValue(
            f"{staged.name}: a layer is compressed with {compression}, which images do not use"
        )
    if diff_id is not None:
        found = member.digest if compression == "plain" else plain_digest(store, member.digest)
        if found != diff_id:
            raise DigestMismatch(f"{staged.name}: a layer has digest {found}, the config says {diff_id}")
    return Descriptor(media_type=media_type, digest=member.digest, size=member.size)


def plain_digest(store: Store, digest: Digest) -> Digest:
    """The digest of a blob after decompression."""
    hashed = hashlib.sha256()
    with store.blobs.open(digest) as file:
        source = Decompressor(file)
        while chunk := source.read(CHUNK):
            hashed.update(chunk)
    return Digest("sha256", hashed.hexdigest())


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
