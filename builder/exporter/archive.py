"""OCI layouts and docker archives of images that are in the store: as a tar or as a directory
(EXO-01…EXO-04).

One writer serves the ``oci`` and ``docker`` outputs and ``save``: an archive is a list of named roots,
everything that they reach, and, for docker, a ``manifest.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from builder.cache.faults import point
from builder.errors import BlobMissing, ExportError, InvalidValue
from builder.exporter.tarout import Out, TarOut
from builder.oci.canonical import compact_json, document_json
from builder.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest, parse_document
from builder.oci.reference import Reference

OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
CREATED_ANNOTATION = "org.opencontainers.image.created"
_MAX_DEPTH = 4


class BlobSource(Protocol):
    """Where blobs come from."""

    def has(self, digest: Digest) -> bool: ...
    def read(self, digest: Digest, limit: int) -> bytes: ...
    def open(self, digest: Digest) -> BinaryIO: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """One image (or index) of an archive with its names; ``created`` goes into its annotations."""

    descriptor: Descriptor
    names: tuple[Reference, ...] = ()
    created: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an archive will hold: blobs sorted by digest, and the documents beside them."""

    blobs: tuple[Descriptor, ...]
    index: bytes
    manifest_json: bytes | None


def plan(blobs: BlobSource, roots: Sequence[Root], *, docker: bool, all_platforms: bool = True) -> Contents:
    """Find everything that ``roots`` reach. Raises BlobMissing, ExportError.

    With ``all_platforms`` False manifests of an index that are not in the store are left out.
    """
    found: dict[Digest, Descriptor] = {}
    for root in roots:
        for descriptor in reachable(blobs, root.descriptor, skip_missing=not all_platforms):
            found[descriptor.digest] = descriptor
    missing = [digest for digest in found if not blobs.has(digest)]
    if missing:
        raise BlobMissing(
            f"{len(missing)} blob(s) of the image are not in the store, first {missing[0]}",
            hint="pull the image for all its platforms, or choose one",
        )
    return Contents(
        blobs=tuple(sorted(found.values(), key=lambda item: str(item.digest))),
        index=document_json(index_json(roots)),
        manifest_json=compact_json(_manifest_json(blobs, roots)) if docker else None,
    )


def reachable(blobs: BlobSource, root: Descriptor, *, skip_missing: bool = False) -> Iterator[Descriptor]:
    """``root`` and all that it names, each once per mention."""

    def visit(descriptor: Descriptor, depth: int) -> Iterator[Descriptor]:
        if depth > _MAX_DEPTH:
            raise InvalidValue(f"{root.digest}: indexes are nested too deeply")
        if skip_missing and depth and not blobs.has(descriptor.digest):
            return
        yield descriptor
        if descriptor.media_type not in INDEX_TYPES and descriptor.media_type not in MANIFEST_TYPES:
            return
        document = parse_document(blobs.read(descriptor.digest, MAX_DOCUMENT_BYTES), descriptor.media_type)
        if isinstance(document, Manifest):
            yield document.config
            yield from (layer for layer in document.layers if not layer.urls or blobs.has(layer.digest))
        else:
            for child in document.manifests:
                yield from visit(child, depth + 1)

    yield from visit(root, 0)


def index_json(roots: Iterable[Root], existing: Sequence[Descriptor] = ()) -> dict[str, object]:
    """The ``index.json``: one entry per name, nameless roots once (EXO-02); ``existing`` entries come
    first."""
    entries: list[Descriptor] = list(existing)
    for root in roots:
        entries.extend(_entries(root))
    return {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entry.to_json() for entry in dict.fromkeys(entries)],
    }


def _entries(root: Root) -> list[Descriptor]:
    created = ((CREATED_ANNOTATION, root.created),) if root.created else ()
    own = tuple(
        pair for pair in root.descriptor.annotations if pair[0] not in (NAME_ANNOTATION, REF_ANNOTATION)
    )
    if not root.names:
        return [replace(root.descriptor, annotations=_sorted(*own, *created))]
    return [
        replace(
            root.descriptor,
            annotations=_sorted(
                *own, *created, (NAME_ANNOTATION, str(name)), (REF_ANNOTATION, name.tag or "latest")
            ),
        )
        for name in root.names
    ]


def _sorted(*pairs: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(dict(pairs).items()))


def _manifest_json(blobs: BlobSource, roots: Sequence[Root]) -> list[dict[str, object]]:
    """docker load's own index: configs, names and layers by path in the archive."""
    rows: list[dict[str, object]] = []
    for root in roots:
        manifest = single_manifest(blobs, root.descriptor)
        if manifest is None:
            raise ExportError(
                "docker exporter does not currently support exporting manifest lists",
                hint="choose one platform, or use type=oci",
            )
        rows.append(
            {
                "Config": blob_name(manifest.config.digest),
                "RepoTags": [name.familiar for name in root.names] or None,
                "Layers": [blob_name(layer.digest) for layer in manifest.layers],
            }
        )
    return rows


def single_manifest(blobs: BlobSource, descriptor: Descriptor) -> Manifest | None:
    """The manifest that ``descriptor`` is, or the only one of its index that is here."""
    document = parse_document(blobs.read(descriptor.digest, MAX_DOCUMENT_BYTES), descriptor.media_type)
    if isinstance(document, Manifest):
        return document
    here = [child for child in document.manifests if _is_image(child) and blobs.has(child.digest)]
    return single_manifest(blobs, here[0]) if len(here) == 1 else None


def _is_image(descriptor: Descriptor) -> bool:
    if any(key == "vnd.docker.reference.type" for key, _ in descriptor.annotations):
        return False
    return descriptor.media_type in MANIFEST_TYPES


def blob_name(digest: Digest) -> str:
    """A blob's path in a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def write_tar(
    blobs: BlobSource, contents: Contents, out: Out, *, on_bytes: Callable[[int], None] | None = None
) -> None:
    """The archive: directories, blobs by digest, documents; equal contents give equal bytes (EXO-03)."""
    tar = TarOut(out)
    tar.directory("blobs")
    for algorithm in sorted({descriptor.digest.algorithm for descriptor in contents.blobs} | {"sha256"}):
        tar.directory(f"blobs/{algorithm}")
    done = 0
    for descriptor in contents.blobs:
        with blobs.open(descriptor.digest) as source:
            tar.file(blob_name(descriptor.digest), source, descriptor.size, 0o444)
        done += descriptor.size
        if on_bytes is not None:
            on_bytes(done)
    tar.data("index.json", contents.index)
    if contents.manifest_json is not None:
        tar.data("manifest.json", contents.manifest_json, 0o444)
    tar.data("oci-layout", OCI_LAYOUT, 0o444)
    tar.close()


def write_directory(blobs: BlobSource, contents: Contents, directory: Path, roots: Sequence[Root]) -> None:
    """Add the images to the layout at ``directory``, made when missing (EXO-04).

    The index is read and replaced under a lock. Entries with a name that we write are replaced; an unnamed
    image takes the name ``latest``. Raises ExportError.
    """
    import fcntl
    import os

    try:
        directory.mkdir(parents=True, exist_ok=True)
        for descriptor in contents.blobs:
            _place_blob(blobs, descriptor, directory / blob_name(descriptor.digest))
        _place(directory / "oci-layout", OCI_LAYOUT)
        lock = os.open(
            directory / "index.json.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _place(directory / "index.json", _merged_index(directory / "index.json", roots))
            if contents.manifest_json is not None:
                _place(directory / "manifest.json", contents.manifest_json)
        finally:
            os.close(lock)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise ExportError(f"cannot write image layout {directory}: {error.strerror}{where}") from error


def _merged_index(path: Path, roots: Sequence[Root]) -> bytes:
    named: list[Descriptor] = []
    for root in roots:
        if root.names:
            named.extend(_entries(root))
        else:
            created = _entries(root)[0]
            named.append(
                replace(created, annotations=_sorted(*created.annotations, (REF_ANNOTATION, "latest")))
            )
    replaced = {_name_of(entry) for entry in named}
    old = [
        entry for entry in _read_index(path) if _name_of(entry) not in replaced or not any(_name_of(entry))
    ]
    entries = list(dict.fromkeys((*old, *named)))
    return document_json(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_json() for entry in entries]}
    )


def _name_of(entry: Descriptor) -> tuple[str, str]:
    annotations = dict(entry.annotations)
    return annotations.get(NAME_ANNOTATION, ""), annotations.get(REF_ANNOTATION, "")


def _read_index(path: Path) -> list[Descriptor]:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_DOCUMENT_BYTES))
        return [Descriptor.from_json(item) for item in value.get("manifests") or []]
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError, InvalidValue) as error:
        raise ExportError(f"{path} is not a valid index", hint="give an empty or new directory") from error


def _place_blob(blobs: BlobSource, descriptor: Descriptor, path: Path) -> None:
    """Copy a blob, sharing its blocks where the file system can; one of the right size is there already."""
    import shutil

    try:
        if path.lstat().st_size == descriptor.size:
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{_token()}")
    try:
        with blobs.open(descriptor.digest) as source, temporary.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        point("export.blob-written")
        temporary.replace(path)
        point("export.blob-placed")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _place(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{_token()}")
    try:
        temporary.write_bytes(data)
        point("export.index-written")
        temporary.replace(path)
        point("export.index-placed")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _token() -> str:
    import os

    return os.urandom(6).hex()
