"""What is kept, what it takes, and what still needs it (GC-01): the view that ``du`` prints and ``prune``
decides on.

Roots are images (with and without names), containers, and what live processes hold or are making.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from builder.cache.holds import held
from builder.cache.logs import Logs, logs
from builder.cache.mirrors import Mirror, in_use, mirrors
from builder.cache.names import base36
from builder.cache.problems import if_writable
from builder.errors import PybuildError
from builder.oci.config import MAX_CONFIG_BYTES, ImageConfig
from builder.oci.digest import Digest, chain_ids
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Manifest, parse_document

if TYPE_CHECKING:
    from builder.cache.db import Database
    from builder.cache.store import Store

_MAX_NESTING = 4


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One thing kept. ``shared``: an image has it too, so removing it frees the unpacked copy only."""

    id: str
    kind: Literal["snapshot", "blob", "cachemount", "mirror", "history"]
    parents: tuple[str, ...]
    created_ns: int
    last_used_ns: int
    uses: int
    size: int
    mutable: bool
    in_use: bool
    shared: bool
    description: str
    record_type: str

    @property
    def reclaimable(self) -> bool:
        """Whether a prune may remove it."""
        return not self.in_use


@dataclass(slots=True)
class Kept:
    """Rows and what hangs together, at one moment."""

    rows: list[UsageRow] = field(default_factory=list)
    parents: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """What a snapshot needs: what it stands on, and what a lazy one is made of."""
    children: dict[int, int] = field(default_factory=dict)
    layers: dict[int, set[str]] = field(default_factory=dict)
    layer_users: dict[str, int] = field(default_factory=dict)
    image_blobs: set[str] = field(default_factory=set)
    held_blobs: set[str] = field(default_factory=set)
    snapshot_of: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes of all rows."""
        return sum(row.size for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is measured on disk and has no size in the database."""

    sizes: Mapping[int, int] = field(default_factory=dict)
    mounts: Mapping[str, int] = field(default_factory=dict)
    mirrors: tuple[Mirror, ...] = ()
    logs: tuple[Logs, ...] = ()


def usage(store: Store) -> tuple[UsageRow, ...]:
    """Everything that is kept, sizes measured, least recently used last."""
    kept = look(store, measure(store))
    return tuple(sorted(kept.rows, key=lambda row: row.last_used_ns, reverse=True))


def measure(store: Store) -> Measured:
    """Measure what has to be: committed snapshots once, what still changes each time."""
    from builder.cache.measure import disk_usage

    def size(number: int, record_type: str) -> int:
        return disk_usage(f"{store.root}/snapshots/{base36(number)}", linked=record_type != "internal")

    rows = store.db.all(
        "SELECT id, record_type FROM snapshots WHERE size<0 AND kind='committed' AND driver<>'lazy'"
    )
    sizes = [(size(*row), row[0]) for row in rows]
    if sizes:
        with if_writable(), store.db.write() as tx:
            tx.executemany("UPDATE snapshots SET size=? WHERE id=?", sizes)
    growing = store.db.all("SELECT id, record_type FROM snapshots WHERE kind='active' AND owner IS NOT NULL")
    root = str(store.root)
    return Measured(
        sizes={row: found for found, row in sizes} | {row[0]: size(*row) for row in growing},
        mounts={
            mount.directory: store.cache_mounts.size(mount.directory) for mount in store.cache_mounts.list()
        },
        mirrors=mirrors(root),
        logs=logs(store),
    )


def look(store: Store, around: Measured | None = None) -> Kept:
    """The view itself; inside a write transaction nothing can change under it.

    ``around`` is what ``measure`` said; without it there are only snapshots, blobs and cache mounts.
    """
    around = around or Measured()
    kept = Kept()
    held_snapshots, held_blobs = held(f"{store.root}/tmp")
    kept.image_blobs, image_chains = image_content(store)
    kept.held_blobs = blob_closure(store, held_blobs)
    blobs = {
        row[0]: row for row in store.db.all("SELECT digest, size, created_ns, last_used_ns, uses FROM blobs")
    }
    _layers(store, kept)
    _snapshots(store, kept, held_snapshots, image_chains, blobs, around.sizes)
    _loose_blobs(store, kept, blobs)
    _mounts(store, kept, around.mounts)
    _others(store, kept, around)
    return kept


def image_content(store: Store) -> tuple[set[str], set[str]]:
    """The blobs that images need, and the chain ids of their layers."""
    rows = store.db.all("SELECT manifest FROM images")
    chains: set[str] = set()
    return blob_closure(store, [row[0] for row in rows], chains), chains


def blob_closure(store: Store, digests: Iterable[str], chains: set[str] | None = None) -> set[str]:
    """Blobs and, for manifests and indexes among them, what they name. What cannot be read names nothing."""
    found: set[str] = set()
    pending = [(digest, 0) for digest in digests]
    while pending:
        digest, nesting = pending.pop()
        if digest in found:
            continue
        found.add(digest)
        if nesting < _MAX_NESTING:
            pending += [(name, nesting + 1) for name in _names(store, digest, chains)]
    return found


def _names(store: Store, digest: str, chains: set[str] | None) -> list[str]:
    row = store.db.one("SELECT size FROM blobs WHERE digest=?", (digest,))
    if row is None or row[0] > MAX_DOCUMENT_BYTES:
        return []
    parsed = Digest.parse(digest)
    try:
        with open(f"{store.root}/content/blobs/{parsed.algorithm}/{parsed.hex}", "rb") as file:
            if file.read(1) != b"{":
                return []
            document = parse_document(b"{" + file.read(MAX_DOCUMENT_BYTES))
    except (OSError, PybuildError):
        return []
    if isinstance(document, Manifest):
        if chains is not None:
            chains.update(_chains(store, document))
        return [str(item.digest) for item in (document.config, *document.layers)]
    return [str(item.digest) for item in document.manifests]


def _chains(store: Store, manifest: Manifest) -> list[str]:
    try:
        config = ImageConfig.from_bytes(store.blobs.read(manifest.config.digest, MAX_CONFIG_BYTES))
    except PybuildError:
        return []
    return [str(chain) for chain in chain_ids(config.diff_ids)]


def _layers(store: Store, kept: Kept) -> None:
    for number, digest in store.db.all("SELECT snapshot, digest FROM snapshot_layers"):
        mine = kept.layers.setdefault(number, set())
        if digest not in mine:
            mine.add(digest)
            kept.layer_users[digest] = kept.layer_users.get(digest, 0) + 1


def _snapshots(
    store: Store,
    kept: Kept,
    held_numbers: set[int],
    image_chains: set[str],
    blobs: dict[str, tuple[Any, ...]],
    measured: Mapping[int, int],
) -> None:
    rows = store.db.all(
        "SELECT id, parent, kind, chain_id, created_ns, last_used_ns, uses, size, description, record_type,"
        " owner, flat, driver FROM snapshots ORDER BY id"
    )
    sources = lazy_sources(store.db) if any(row[12] == "lazy" for row in rows) else {}
    flats = {row[11]: row[0] for row in rows if row[11] is not None}
    sizes = {row[0]: max(measured.get(row[0], row[7]), 0) for row in rows}
    for row in rows:
        needed = dict.fromkeys(item for item in (row[1], *sources.get(row[0], ())) if item is not None)
        if needed:
            kept.parents[row[0]] = tuple(needed)
        for item in needed:
            kept.children[item] = kept.children.get(item, 0) + 1
    in_use = _with_parents(kept, [r[0] for r in rows if r[2] == "active" or r[0] in held_numbers], flats)
    shared = _with_parents(kept, [r[0] for r in rows if r[3] in image_chains], flats)
    for number, _, kind, _, created, used, uses, _, description, record_type, owner, flat, _ in rows:
        if number in flats or (kind == "active" and owner is None):
            continue  # counted with what it is a copy of; a container's tree is the container's
        own = kept.layers.get(number, set()) - kept.image_blobs
        total = sizes[number] + sizes.get(flat, 0) + sum(blobs[d][1] for d in own if d in blobs)
        snapshot_id = base36(number)
        kept.snapshot_of[snapshot_id] = number
        kept.rows.append(
            UsageRow(
                snapshot_id,
                "snapshot",
                tuple(base36(item) for item in kept.parents.get(number, ())),
                created,
                used,
                uses,
                total,
                kind == "active",
                number in in_use,
                number in shared,
                description,
                record_type,
            )
        )


def lazy_sources(db: Database) -> dict[int, tuple[int, ...]]:
    """What every lazy snapshot is made of, besides what it stands on."""
    rows = db.all("SELECT snapshot, source, lower FROM lazy_snapshots")
    return {row[0]: tuple(item for item in row[1:] if item is not None) for row in rows}


def _with_parents(kept: Kept, numbers: Iterable[int], flats: dict[int, int]) -> set[int]:
    found: set[int] = set()
    pending = [flats.get(number, number) for number in numbers]
    while pending:
        current = pending.pop()
        if current not in found:
            found.add(current)
            pending += kept.parents.get(current, ())
    return found


def _loose_blobs(store: Store, kept: Kept, blobs: dict[str, tuple[Any, ...]]) -> None:
    """Blobs that neither an image nor a snapshot accounts for: manifests and layers of bases, downloads."""
    downloads = _downloads(store)
    for digest, size, created, used, uses in blobs.values():
        if digest in kept.image_blobs or digest in kept.layer_users:
            continue
        kept.rows.append(
            UsageRow(
                digest,
                "blob",
                (),
                created,
                used,
                uses,
                size,
                False,
                digest in kept.held_blobs,
                False,
                f"download {downloads[digest]}" if digest in downloads else "blob",
                "regular",
            )
        )


def _downloads(store: Store) -> dict[str, str]:
    """Names of files that http sources fetched, by digest."""
    found: dict[str, str] = {}
    for (data,) in store.db.all("SELECT data FROM docs WHERE kind='http'"):
        try:
            document = json.loads(data)
            found[str(document["digest"])] = str(document["name"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _mounts(store: Store, kept: Kept, sizes: Mapping[str, int]) -> None:
    for mount in store.cache_mounts.list():
        kept.rows.append(
            UsageRow(
                mount.directory,
                "cachemount",
                (),
                mount.created_ns,
                mount.last_used_ns,
                mount.uses,
                sizes.get(mount.directory, max(mount.size, 0)),
                True,
                store.cache_mounts.in_use(mount.directory),
                False,
                f"cache mount {mount.id}",
                "exec.cachemount",
            )
        )


def _others(store: Store, kept: Kept, around: Measured) -> None:
    """Mirrors of git repositories, and what finished builds wrote."""
    for item in around.mirrors:
        kept.rows.append(
            UsageRow(
                item.name,
                "mirror",
                (),
                item.created_ns,
                item.last_used_ns,
                item.uses,
                item.size,
                True,
                in_use(str(store.root), item.name),
                False,
                f"git repository {item.remote}".rstrip(),
                "source.git.checkout",
            )
        )
    for found in around.logs:
        kept.rows.append(
            UsageRow(
                "history-kept" if found.needed else "history",
                "history",
                (),
                found.created_ns,
                found.last_used_ns,
                found.count,
                found.size,
                True,
                found.needed,
                False,
                "logs of running and pinned builds" if found.needed else "logs of builds",
                "internal",
            )
        )
