"""Writes noted uses: one transaction for a whole command."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from builder.cache.names import from_base36


def write_touches(tx: sqlite3.Connection, touches: Mapping[tuple[str, str], int], now_ns: int) -> None:
    """``touches`` counts uses by kind and key; a record that was used used its snapshots too."""
    by_kind: dict[str, list[tuple[int, str]]] = {"record": [], "snapshot": [], "blob": [], "doc": []}
    for (kind, key), count in touches.items():
        by_kind[kind].append((count, key))
    records, snapshots = by_kind["record"], by_kind["snapshot"]
    tx.executemany(
        "UPDATE records SET last_used_ns=?, uses=uses+? WHERE key=?", [(now_ns, n, k) for n, k in records]
    )
    tx.executemany(
        "UPDATE snapshots SET last_used_ns=?, uses=uses+?"
        " WHERE id IN (SELECT snapshot FROM record_outputs WHERE key=?)",
        [(now_ns, n, k) for n, k in records],
    )
    tx.executemany(
        "UPDATE snapshots SET last_used_ns=?, uses=uses+? WHERE id=?",
        [(now_ns, n, from_base36(k)) for n, k in snapshots],
    )
    tx.executemany(
        "UPDATE blobs SET last_used_ns=?, uses=uses+? WHERE digest=?",
        [(now_ns, n, k) for n, k in by_kind["blob"]],
    )
    tx.executemany(
        "UPDATE docs SET used_ns=? WHERE kind=? AND key=?",
        [(now_ns, *k.split("\0", 1)) for _, k in by_kind["doc"]],
    )
