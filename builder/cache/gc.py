"""Removes what nothing needs, least valuable first, down to a budget when one is given (GC-02, GC-04,
GC-07).

The order is mark, unlink rows, rename into ``tmp/``, remove. Rows are chosen and unlinked in one
transaction with the gate held, so nothing becomes needed in between; the slow removal happens after both
are released.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.cache.faults import point
from builder.cache.filters import Predicate, parse_filters
from builder.cache.history import INPUTS, forget_inputs
from builder.cache.limits import Policy, default_policies, disk, keep_target
from builder.cache.logs import remove_logs
from builder.cache.mirrors import delete_mirror
from builder.cache.names import base36
from builder.cache.snapshotrows import BUILT_AS, CHAIN_OF, SAME_LAYER
from builder.cache.trash import empty_trash, forget_record, remove_gone, trash_blobs, trash_snapshots
from builder.cache.usage import Kept, Measured, UsageRow, look, measure

if TYPE_CHECKING:
    from builder.cache.store import Store

_INTERNAL = ("internal", "frontend")
BATCH = 200
"""How many rows go in one transaction."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed and how many bytes that freed."""

    rows: tuple[UsageRow, ...]
    size: int


def prune(
    store: Store,
    *,
    all: bool = False,  # noqa: A002 (the flag's name)
    filters: Sequence[str] = (),
    keep_duration_s: float = 0,
    keep_bytes: int | None = None,
    reserved_bytes: int = 0,
    min_free_bytes: int = 0,
    on_removed: Callable[[UsageRow], None] | None = None,
) -> PruneReport:
    """Remove what is not in use and matches; images and containers are never touched.

    Without ``all`` internal records and unpacked layers of images stay. ``keep_bytes`` (max used),
    ``reserved_bytes`` and ``min_free_bytes`` stop the removal early; ``keep_duration_s`` spares what was
    used lately. ``on_removed`` is called for each row, once its bytes are gone.
    """
    policy = Policy(
        filters=tuple(filters),
        everything=all,
        keep_duration_s=keep_duration_s,
        max_used=keep_bytes or 0,
        reserved=reserved_bytes,
        min_free=min_free_bytes,
    )
    store.sweep()
    report = apply(store, policy, on_removed)
    if all and not filters and not keep_duration_s and not policy.limited:
        _forget_leftovers(store)
    return report


def collect(store: Store, policies: Sequence[Policy] | None = None) -> PruneReport:
    """What runs by itself after a build: every policy in turn (GC-05)."""
    chosen = default_policies(disk(store.root)[0]) if policies is None else policies
    reports = [apply(store, policy, None) for policy in chosen]
    rows = tuple(row for report in reports for row in report.rows)
    return PruneReport(rows, sum(report.size for report in reports))


def apply(store: Store, policy: Policy, on_removed: Callable[[UsageRow], None] | None) -> PruneReport:
    """Carry out one policy, batch by batch: others get their turn in between, and each batch looks anew."""
    matches = parse_filters(policy.filters)
    removed: list[UsageRow] = []
    refused: set[str] = set()
    while True:
        around = measure(store)
        if policy.limited and not _may_exceed(store, policy, around):
            break
        victims = _batch(store, policy, matches, around, refused)
        gone = [row for row in victims if _gone(store, row)]
        refused.update(row.id for row in set(victims) - set(gone))
        removed += gone
        if on_removed is not None:
            for row in gone:
                on_removed(row)
        if len(victims) < BATCH:
            break
    return PruneReport(tuple(removed), sum(row.size for row in removed))


def _may_exceed(store: Store, policy: Policy, around: Measured) -> bool:
    """Whether more is kept than the policy lets stay; without the gate, as most often nothing has to go."""
    total = look(store, around).total
    return total > keep_target(policy, total, disk(store.root)[1])


def _batch(
    store: Store, policy: Policy, matches: Predicate, around: Measured, refused: set[str]
) -> list[UsageRow]:
    """Choose and unlink up to ``BATCH`` rows; files of snapshots and blobs are gone on return."""
    with store.gate.removing():
        with store.db.write() as tx:
            kept = look(store, around)
            kept.rows = [row for row in kept.rows if row.id not in refused]
            victims = choose(kept, policy, matches, disk(store.root)[1], time.time_ns())[:BATCH]
            _unlink(tx, kept, victims)
            point("gc.marked")
        point("gc.unlinked")
        gone = empty_trash(store.db, str(store.root))
    point("gc.renamed")
    remove_gone(gone)
    return victims


def _gone(store: Store, row: UsageRow) -> bool:
    """Remove what has a lock of its own instead of a row under the gate; False when somebody uses it."""
    if row.kind == "cachemount":
        return store.cache_mounts.delete(row.id)
    if row.kind == "mirror":
        return delete_mirror(str(store.root), row.id)
    if row.kind == "history":
        remove_logs(store, row.last_used_ns)
    return True


def choose(kept: Kept, policy: Policy, matches: Predicate, free: int, now_ns: int) -> list[UsageRow]:
    """The rows to remove, in order: leaves first, least valuable first, until the rest fits."""
    total = kept.total
    target = keep_target(policy, total, free)
    newest = now_ns - int(policy.keep_duration_s * 1e9) if policy.keep_duration_s else None
    candidates = {
        row.id: row for row in kept.rows if not row.in_use and _may_go(row, policy, newest) and matches(row)
    }
    score = _scores(list(candidates.values()))
    children = dict(kept.children)
    heap = [
        (score[row.id], row.last_used_ns, row.id)
        for row in candidates.values()
        if row.kind != "snapshot" or not children.get(kept.snapshot_of[row.id])
    ]
    heapq.heapify(heap)
    chosen: list[UsageRow] = []
    while heap and (total > target or not policy.limited):
        row = candidates[heapq.heappop(heap)[2]]
        chosen.append(row)
        total -= row.size
        for parent in row.parents if row.kind == "snapshot" else ():
            number = kept.snapshot_of.get(parent, -1)
            children[number] = children.get(number, 1) - 1
            if parent in candidates and children[number] == 0:
                heapq.heappush(heap, (score[parent], candidates[parent].last_used_ns, parent))
    return chosen


def _may_go(row: UsageRow, policy: Policy, newest: int | None) -> bool:
    if newest is not None and row.last_used_ns > newest:
        return False
    return policy.everything or not (row.shared or row.record_type in _INTERNAL)


def _scores(rows: list[UsageRow]) -> dict[str, float]:
    """Rank by last use plus rank by number of uses, each from 0 to 1 (GC-07)."""
    scores = {row.id: 0.0 for row in rows}
    steps = max(len(rows) - 1, 1)
    for by in (_last_used, _uses):
        rank, before = -1.0, None
        for position, row in enumerate(sorted(rows, key=by)):
            if by(row) != before:
                rank, before = position / steps, by(row)
            scores[row.id] += rank
    return scores


def _last_used(row: UsageRow) -> int:
    return row.last_used_ns


def _uses(row: UsageRow) -> int:
    return row.uses


def _unlink(tx: sqlite3.Connection, kept: Kept, victims: Sequence[UsageRow]) -> None:
    """Rows of snapshots with the layer blobs that only they account for, and rows of loose blobs."""
    numbers = [kept.snapshot_of[row.id] for row in victims if row.kind == "snapshot"]
    blobs = [row.id for row in victims if row.kind == "blob"]
    users = dict(kept.layer_users)
    for number in numbers:
        for digest in kept.layers.get(number, ()):
            users[digest] -= 1
            if not users[digest] and digest not in kept.image_blobs and digest not in kept.held_blobs:
                blobs.append(digest)
    trash_snapshots(tx, numbers)
    trash_blobs(tx, blobs)


def _forget_leftovers(store: Store) -> None:
    """Records without any snapshot, and remembered documents: nothing else would ever remove them."""
    with store.db.write() as tx:
        rows = tx.execute(
            "SELECT key FROM records WHERE key NOT IN (SELECT key FROM record_outputs)"
        ).fetchall()
        for (key,) in rows:
            forget_record(tx, key)
        kept = _about_trees(tx)
        tx.execute("DELETE FROM docs WHERE kind<>?", (INPUTS,))
        tx.executemany("INSERT INTO docs(kind, key, data, used_ns) VALUES(?,?,?,?)", kept)
        forget_inputs(tx)


def _about_trees(tx: sqlite3.Connection) -> list[tuple[str, str, bytes, int]]:
    """Documents that say of trees which are still there what they are, so that none is made again."""
    there = {base36(number) for (number,) in tx.execute("SELECT id FROM snapshots")}
    sql = "SELECT kind, key, data, used_ns FROM docs WHERE kind=?"
    rows = [row for kind in (CHAIN_OF, SAME_LAYER) for row in tx.execute(sql, (kind,)) if row[1] in there]
    built = tx.execute(sql, (BUILT_AS,))
    return rows + [row for row in built if base36(int(row[2])) in there]
