"""The checks of content: blobs, the image layout around them, images, and the layers made from snapshots."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from builder.cache.imagestore import REF_NAME
from builder.cache.names import base36, blob_path
from builder.errors import InvalidValue, PybuildError
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest, parse_document

if TYPE_CHECKING:
    from builder.cache.db import Database
    from builder.cache.fsck import Finding
    from builder.oci.descriptor import Descriptor

_CHUNK = 1 << 20
_MAX_NESTING = 4


def _finding(code: str, path: str, message: str) -> Finding:
    from builder.cache.fsck import Finding

    return Finding(code=code, path=path, message=message)


def blobs(db: Database, root: str) -> Iterator[Finding]:
    """Every row has a file of its size, and every file a row."""
    rows: dict[str, int] = dict(db.all("SELECT digest, size FROM blobs"))
    trashed = {row[0] for row in db.all("SELECT path FROM trash")}
    seen: set[str] = set()
    for algorithm in sorted(os.listdir(f"{root}/content/blobs")):
        for name in sorted(os.listdir(f"{root}/content/blobs/{algorithm}")):
            digest, path = f"{algorithm}:{name}", f"content/blobs/{algorithm}/{name}"
            status = _lstat(f"{root}/{path}")
            if status is None or path in trashed:
                continue
            seen.add(digest)
            if not stat.S_ISREG(status.st_mode) or not _is_digest(digest):
                yield _finding("blob-foreign", path, "is no blob")
            elif digest not in rows:
                yield _finding("blob-unnamed", path, "has no row")
            elif status.st_size != rows[digest]:
                yield _finding("blob-size", path, f"has {status.st_size} bytes, its row says {rows[digest]}")
    for digest in sorted(rows.keys() - seen):
        yield _finding("blob-missing", blob_path(digest), "is named by a row and is not there")


def images(db: Database, root: str) -> Iterator[Finding]:
    """The layout around the blobs is valid, its index says what the rows say, and every image is whole."""
    yield from _marker(root)
    yield from _index(db, root)
    known = {row[0] for row in db.all("SELECT digest FROM blobs")}
    for manifest, image_id in db.all("SELECT manifest, id FROM images"):
        if image_id not in known:
            yield _finding("image-incomplete", f"db:images/{manifest}", f"its config {image_id} is not there")
        yield from _complete(root, manifest, known)
    for ref, manifest in db.all(
        "SELECT ref, manifest FROM image_names WHERE manifest NOT IN (SELECT manifest FROM images)"
    ):
        yield _finding("image-name", f"db:image_names/{ref}", f"names {manifest}, which is no image")


def contents(db: Database, root: str, tell: Callable[[str], None]) -> Iterator[Finding]:
    """Every blob has the digest that names it, and every layer the diff id that its row says."""
    rows = db.all("SELECT digest FROM blobs ORDER BY digest")
    for number, (digest,) in enumerate(rows, 1):
        tell(f"blob {number} of {len(rows)}")
        found = _digest_of(f"{root}/{blob_path(digest)}", digest.partition(":")[0])
        if found is not None and found != digest and _still(db, "blobs", "digest", digest):
            yield _finding("blob-digest", blob_path(digest), f"its content has the digest {found}")
    layers = db.all("SELECT DISTINCT digest, diff_id FROM snapshot_layers ORDER BY digest")
    for number, (digest, diff_id) in enumerate(layers, 1):
        tell(f"layer {number} of {len(layers)}")
        found = _diff_id(f"{root}/{blob_path(digest)}")
        if found is not None and found != diff_id and _still(db, "snapshot_layers", "digest", digest):
            yield _finding("layer-diff-id", blob_path(digest), f"unpacks to {found}, its row says {diff_id}")


def layer_rows(db: Database) -> Iterator[Finding]:
    """Rows of layers name a blob and a snapshot that are there, and carry the blob's descriptor."""
    rows = db.all(
        "SELECT l.snapshot, l.compression, l.digest, l.descriptor, b.size, s.id FROM snapshot_layers l"
        " LEFT JOIN blobs b ON b.digest=l.digest LEFT JOIN snapshots s ON s.id=l.snapshot"
    )
    for snapshot, compression, digest, text, size, number in rows:
        path = f"db:snapshot_layers/{base36(snapshot)}/{compression}"
        if size is None:
            yield _finding("layer-blob", path, f"names blob {digest}, which has no row")
        if number is None:
            yield _finding("layer-snapshot", path, "belongs to a snapshot that has no row")
        try:
            descriptor = json.loads(text)
            same = descriptor["digest"] == digest and (size is None or descriptor["size"] == size)
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            yield _finding("layer-descriptor", path, "its descriptor is of something else")


def _marker(root: str) -> Iterator[Finding]:
    found = _json(f"{root}/content/oci-layout")
    if not isinstance(found, dict) or found.get("imageLayoutVersion") != "1.0.0":
        yield _finding("layout", "content/oci-layout", "does not say imageLayoutVersion 1.0.0")


def _index(db: Database, root: str) -> Iterator[Finding]:
    path = "content/index.json"
    found = _json(f"{root}/{path}")
    entries = found.get("manifests") if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        yield _finding("index", path, "is no image index")
        return
    listed = Counter((str(item.get("digest")), _name_of(item)) for item in entries)
    rows = db.all("SELECT i.manifest, n.ref FROM images i LEFT JOIN image_names n USING(manifest)")
    wanted = Counter((manifest, ref) for manifest, ref in rows)
    for digest, name in sorted((listed - wanted).keys(), key=str):
        yield _finding("index", path, f"lists {name or digest}, which is no image with this content")
    for digest, name in sorted((wanted - listed).keys(), key=str):
        yield _finding("index", path, f"does not list {name or digest}")


def _name_of(entry: dict[str, Any]) -> str | None:
    notes = entry.get("annotations")
    name = notes.get(REF_NAME) if isinstance(notes, dict) else None
    return None if name is None else str(name)


def _complete(root: str, digest: str, known: set[str], nesting: int = 0) -> Iterator[Finding]:
    """What a manifest names is there; of an index, images for other platforms may lack what they name."""
    path = blob_path(digest)
    if digest not in known:
        yield _finding("image-incomplete", path, "is the manifest of an image and is not there")
        return
    try:
        with open(f"{root}/{path}", "rb") as file:
            document = parse_document(file.read(MAX_DOCUMENT_BYTES))
    except FileNotFoundError:
        return  # told as a missing blob
    except (OSError, PybuildError) as error:
        yield _finding("image-manifest", path, f"cannot be read as a manifest: {error}")
        return
    if not isinstance(document, Manifest):
        parts = [
            (item, tuple(_complete(root, str(item.digest), known, nesting + 1)))
            for item in document.manifests
            if str(item.digest) in known and nesting < _MAX_NESTING
        ]
        whole = any(not found for item, found in parts if not _is_note(item))
        for _, found in parts:
            yield from (one for one in found if not whole or one.code != "image-incomplete")
        return
    for item in (document.config, *document.layers):
        if str(item.digest) not in known and not item.urls:
            yield _finding("image-incomplete", path, f"names {item.digest}, which is not there")


def _is_note(entry: Descriptor) -> bool:
    """Whether an entry of an index is about an image and no image."""
    return entry.platform is not None and entry.platform.os == "unknown"


def _still(db: Database, table: str, column: str, value: str) -> bool:
    """Whether the row is there still: what was pruned meanwhile is not wrong."""
    return db.one(f"SELECT 1 FROM {table} WHERE {column}=?", (value,)) is not None  # noqa: S608 (constants)


def _digest_of(path: str, algorithm: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
    except (OSError, ValueError):
        return None


def _diff_id(path: str) -> str | None:
    """The digest of a layer's content, unpacked; None when it is not there."""
    from builder.cache.compression import Decompressor

    hashing = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            content = Decompressor(file)
            while chunk := content.read(_CHUNK):
                hashing.update(chunk)
    except FileNotFoundError:
        return None
    except (OSError, PybuildError, ValueError, EOFError) as error:
        return f"nothing ({error})"
    return f"sha256:{hashing.hexdigest()}"


def _json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(64 << 20))
    except (OSError, ValueError):
        return None


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _is_digest(text: str) -> bool:
    try:
        Digest.parse(text)
    except InvalidValue:
        return False
    return True
