"""Rows of snapshots as values."""

from __future__ import annotations

from builder.cache.names import base36
from builder.cache.types import Recipe, SnapshotInfo
from builder.oci.digest import ChainId, Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builder.cache.db import Database

COLUMNS = "id, parent, kind, chain_id, driver, created_ns, last_used_ns, uses, size, description, record_type"
BUILT_AS = "built-as"
"""Documents under the chain id of an image that was built here: the row number of its tree's snapshot."""
CHAIN_OF = "chain-of"
"""The other way round: documents under the id of such a snapshot."""
SAME_LAYER = "same-layer"
"""Documents under the id of a snapshot that was made of another one's layer: the other's id."""


def info_of(row: tuple[Any, ...]) -> SnapshotInfo:
    """A row of ``COLUMNS``."""
    return SnapshotInfo(
        base36(row[0]),
        None if row[1] is None else base36(row[1]),
        row[2],
        None if row[3] is None else ChainId(Digest.parse(row[3])),
        *row[4:],
    )


def with_chain(db: Database, chain_id: ChainId) -> SnapshotInfo | None:
    """The committed snapshot of a stack of layers: one that was unpacked, or was built here (LCS-04)."""
    sql = f"SELECT {COLUMNS} FROM snapshots WHERE {{}} AND kind='committed'"  # noqa: S608 (constants)
    row = db.one(sql.format("chain_id=?"), (str(chain_id),)) or db.one(
        sql.format("id=(SELECT CAST(CAST(data AS TEXT) AS INTEGER) FROM docs WHERE kind=? AND key=?)"),
        (BUILT_AS, str(chain_id)),
    )
    return None if row is None else info_of(row)


def recipe_of(db: Database, number: int) -> Recipe | None:
    """What a lazy snapshot is made of; None when its tree was made a moment ago."""
    row = db.one("SELECT kind, source, lower FROM lazy_snapshots WHERE snapshot=?", (number,))
    if row is None:
        return None
    source, lower = (None if item is None else base36(item) for item in row[1:])
    return Recipe(row[0], source, lower)
