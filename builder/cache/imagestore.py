"""Names and ids of images. The rows are the truth; ``content/index.json`` follows them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

from builder.cache.blobs import BlobStore, write_all
from builder.cache.db import Database, Row
from builder.cache.faults import point
from builder.cache.locks import NamedLock
from builder.cache.problems import translated
from builder.cache.types import StoredImage
from builder.errors import BlobMissing, InvalidValue, NoSuchImage
from builder.oci.config import MAX_CONFIG_BYTES, ImageConfig
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest, parse_document
from builder.oci.platform import best_match, host_platform
from builder.oci.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REF_NAME = "org.opencontainers.image.ref.name"
_MAX_NESTING = 4
_HEX = frozenset("0123456789abcdef")


class ImageStore:
    """The images of one state directory; safe for many threads and processes."""

    def __init__(self, db: Database, blobs: BlobStore, root: str) -> None:
        self._db = db
        self._blobs = blobs
        self._root = root
        self.behind = False

    def tag(self, ref: str, descriptor: Descriptor) -> Digest | None:
        """Let ``ref`` (``latest`` when it has no tag) mean this image from now on.

        Its manifest and config must be in the store (BlobMissing). Returns the id of another image that had
        the name before (IMG-09); that one stays, perhaps without a name.
        """
        name = str(Reference.parse(ref).with_default_tag())
        before = self._db.one(
            "SELECT n.manifest, i.id FROM image_names n JOIN images i USING(manifest) WHERE n.ref=?", (name,)
        )
        if before is not None and before[0] == str(descriptor.digest):
            return None
        image_id = self.identify(descriptor)
        now = time.time_ns()
        with self._db.write() as tx:
            self._insert(tx, descriptor, image_id, now)
            tx.execute(
                "INSERT OR REPLACE INTO image_names(ref, manifest, stored_ns) VALUES(?,?,?)",
                (name, str(descriptor.digest), now),
            )
            _drop_doubles(tx, descriptor, image_id)
            _changed(tx)
        point("image.tagged")
        self.write_index()
        return Digest.parse(before[1]) if before is not None and before[1] != str(image_id) else None

    def add(self, descriptor: Descriptor) -> Digest:
        """Keep an image without a name; returns its id."""
        image_id = self.identify(descriptor)
        if self._db.one("SELECT 1 FROM images WHERE manifest=?", (str(descriptor.digest),)) is None:
            with self._db.write() as tx:
                self._insert(tx, descriptor, image_id, time.time_ns())
                _drop_doubles(tx, descriptor, image_id)
                _changed(tx)
            self.write_index()
        return image_id

    def untag(self, ref: str) -> bool:
        """Take a name away; the image stays. False when nothing has that name."""
        name = str(Reference.parse(ref).with_default_tag())
        with self._db.write() as tx:
            if not tx.execute("DELETE FROM image_names WHERE ref=?", (name,)).rowcount:
                return False
            _changed(tx)
        self.write_index()
        return True

    def remove(self, image_id: Digest | str, *, tagged: bool = True) -> tuple[str, ...]:
        """Forget an image and its names, which are returned; its content goes with the next prune.

        NoSuchImage when no image has that id, or, without ``tagged``, when it has a tag after all: somebody
        may have given it one this moment.
        """
        with self._db.write() as tx:
            rows = tx.execute("SELECT manifest FROM images WHERE id=?", (str(image_id),)).fetchall()
            if not tagged:
                tag = "SELECT 1 FROM image_names WHERE manifest=? AND ref NOT LIKE '%@%'"
                rows = [row for row in rows if tx.execute(tag, row).fetchone() is None]
            if not rows:
                raise NoSuchImage(f"no such image: {image_id}")
            names: list[str] = []
            for (manifest,) in rows:
                found = tx.execute("SELECT ref FROM image_names WHERE manifest=? ORDER BY ref", (manifest,))
                names += [row[0] for row in found.fetchall()]
                tx.execute("DELETE FROM image_names WHERE manifest=?", (manifest,))
                tx.execute("DELETE FROM images WHERE manifest=?", (manifest,))
            _changed(tx)
        self.write_index()
        return tuple(names)

    def resolve(self, text: str) -> StoredImage | None:
        """The image that ``text`` names: a reference, an image id, or the beginning of one that fits one
        image.

        InvalidValue when it is the beginning of several.
        """
        manifest = self._by_name(text) or self._by_id(text)
        if manifest is None:
            return None
        row = self._db.one(
            "SELECT manifest, id, descriptor, created_ns FROM images WHERE manifest=?", (manifest,)
        )
        return None if row is None else self._present(row)

    def identify(self, descriptor: Descriptor) -> Digest:
        """The image id: the digest of the config for this machine's platform (else of the first one
        present).
        """
        config = self.manifest_for_host(descriptor).config.digest
        if not self._blobs.has(config):
            raise BlobMissing(f"image {descriptor.digest}: its config {config} is not in the store")
        return config

    def manifest_for_host(self, descriptor: Descriptor, nesting: int = 0) -> Manifest:
        """The manifest for this machine's platform behind a manifest or index; BlobMissing, InvalidValue."""
        document = parse_document(
            self._blobs.read(descriptor.digest, MAX_DOCUMENT_BYTES), descriptor.media_type
        )
        if isinstance(document, Manifest):
            return document
        present = [item for item in document.manifests if self._blobs.has(item.digest) and not _is_note(item)]
        if not present or nesting >= _MAX_NESTING:
            raise BlobMissing(f"index {descriptor.digest}: none of its images is in the store")
        typed = [item for item in present if item.platform is not None]
        platforms = tuple(item.platform for item in typed if item.platform is not None)
        index = best_match(host_platform(), platforms)
        return self.manifest_for_host(present[0] if index is None else typed[index], nesting + 1)

    def write_index(self) -> None:
        """Bring ``content/index.json`` in step with the rows, unless it is."""
        self.behind = self._db.in_write
        if self.behind:
            return  # inside a batch: its end does it, or else whoever opens the store next
        with NamedLock(f"{self._root}/tmp", "index.json", timeout_s=60):
            state: dict[str, str] = dict(
                self._db.all("SELECT key, value FROM meta WHERE key IN ('images', 'index_written')")
            )
            if state.get("images") == state.get("index_written"):
                return
            rows = self._db.all(
                "SELECT i.descriptor, n.ref FROM images i LEFT JOIN image_names n USING(manifest)"
                " ORDER BY n.ref, i.manifest"
            )
            self._replace_index([_entry(json.loads(text), ref) for text, ref in rows])
            point("image.index-written")
            self._db.run(
                "INSERT OR REPLACE INTO meta(key, value) VALUES('index_written', ?)",
                (state.get("images", "0"),),
            )

    def list(self) -> tuple[StoredImage, ...]:
        """Every image, newest first."""
        sql = "SELECT manifest, id, descriptor, created_ns FROM images ORDER BY created_ns DESC"
        return tuple(image for row in self._db.all(sql) if (image := self._present(row)) is not None)

    def _replace_index(self, entries: Sequence[dict[str, Any]]) -> None:
        from builder.cache.staging import claim_file

        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [*entries],
        }
        with translated("write index.json"):
            path, fd = claim_file(f"{self._root}/tmp", "stage")
            try:
                os.fchmod(fd, 0o644)
                write_all(fd, json.dumps(document, indent=2).encode("ascii"))
                os.rename(path, f"{self._root}/content/index.json")
            finally:
                os.close(fd)

    def _insert(self, tx: Any, descriptor: Descriptor, image_id: Digest, now: int) -> None:
        for digest in (descriptor.digest, image_id):
            if not tx.execute("SELECT 1 FROM blobs WHERE digest=?", (str(digest),)).fetchone():
                raise BlobMissing(f"blob {digest} is not in the store")
        tx.execute(
            "INSERT INTO images(manifest, id, descriptor, created_ns) VALUES(?,?,?,?)"
            " ON CONFLICT(manifest) DO UPDATE SET id=excluded.id, descriptor=excluded.descriptor",
            (
                str(descriptor.digest),
                str(image_id),
                json.dumps(descriptor.to_json(), separators=(",", ":")),
                now,
            ),
        )

    def _by_name(self, text: str) -> str | None:
        try:
            ref = Reference.parse(text).with_default_tag()
        except InvalidValue:
            return None
        row = self._db.one("SELECT manifest FROM image_names WHERE ref=?", (str(ref),))
        if row is None and ref.digest is not None:
            row = self._db.one(
                "SELECT manifest FROM image_names WHERE manifest=? AND (ref LIKE ? OR ref LIKE ?)",
                (str(ref.digest), f"{ref.name}:%", f"{ref.name}@%"),
            )
        return None if row is None else str(row[0])

    def _by_id(self, text: str) -> str | None:
        algorithm, colon, hexpart = text.rpartition(":")
        if (colon and algorithm != "sha256") or not hexpart or not _HEX.issuperset(hexpart):
            return None
        first = f"sha256:{hexpart}"
        rows = self._db.all(
            "SELECT id, manifest FROM images WHERE id>=? AND id<? ORDER BY created_ns DESC",
            (first, first + "g"),
        )
        if not rows and len(hexpart) == 64:
            rows = self._db.all("SELECT id, manifest FROM images WHERE manifest=?", (first,))
        if len({row[0] for row in rows}) > 1:
            raise InvalidValue(
                f"image id {text!r} is ambiguous: {len({row[0] for row in rows})} images begin so",
                hint="give more digits",
            )
        return str(rows[0][1]) if rows else None

    def _present(self, row: Row) -> StoredImage | None:
        """The image of a row; None when another process removes it this moment. BlobMissing."""
        try:
            return self._image(row)
        except BlobMissing:
            if self._db.one("SELECT 1 FROM images WHERE manifest=?", (row[0],)) is None:
                return None
            raise

    def _image(self, row: Row) -> StoredImage:
        manifest, image_id, descriptor, created_ns = row
        config = Digest.parse(image_id)
        refs = self._db.all("SELECT ref FROM image_names WHERE manifest=? ORDER BY ref", (manifest,))
        names = tuple(ref for (ref,) in refs if "@" not in ref)
        digests = {f"{Reference.parse(ref).name}@{manifest}" for (ref,) in refs}
        return StoredImage(
            config,
            Descriptor.from_json(json.loads(descriptor)),
            ImageConfig.from_bytes(self._blobs.read(config, MAX_CONFIG_BYTES)),
            names,
            tuple(sorted(digests)),
            created_ns,
        )


def _drop_doubles(tx: Any, descriptor: Descriptor, image_id: Digest) -> None:
    """The same image described otherwise (other attestations, another compression) stays only if named."""
    tx.execute(
        "DELETE FROM images WHERE id=? AND manifest!=? AND NOT EXISTS"
        " (SELECT 1 FROM image_names n WHERE n.manifest=images.manifest)",
        (str(image_id), str(descriptor.digest)),
    )


def _changed(tx: Any) -> None:
    """Count the changes, so that anyone sees whether index.json is behind."""
    tx.execute(
        "INSERT INTO meta(key, value) VALUES('images', '1')"
        " ON CONFLICT(key) DO UPDATE SET value=CAST(value AS INTEGER) + 1"
    )


def _entry(descriptor: dict[str, Any], ref: str | None) -> dict[str, Any]:
    if ref is None:
        return descriptor
    return {**descriptor, "annotations": {**(descriptor.get("annotations") or {}), REF_NAME: ref}}


def _is_note(item: Descriptor) -> bool:
    """An attestation travels in the index but is no image (platform unknown/unknown)."""
    if dict(item.annotations).get("vnd.docker.reference.type") == "attestation-manifest":
        return True
    return item.platform is not None and item.platform.os == "unknown"
