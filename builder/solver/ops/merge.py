"""Merge and diff: trees laid over each other, and the layers between two trees (rows MRG-01…05).

Every layer of a later input becomes one snapshot on top of the earlier ones; ``builder.cache.restack`` makes
it without copying, and its layer blob is the one already made.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.cache.differ import Change, compare
from builder.cache.restack import SAME_LAYER, layer_changes, restack
from builder.cache.store import Store
from builder.cache.tree import View
from builder.llb.definition import Vertex
from builder.llb.ops import DiffOp, MergeOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.types import Result


def run_merge(vertex: Vertex, results: dict[Digest, Result], env: SolveEnv) -> Result:
    """Later inputs over earlier ones; empty inputs drop."""
    op = vertex.op
    assert isinstance(op, MergeOp)
    edges = [vertex.inputs[position] for position in op.inputs]
    merged: str | None = None
    for edge in edges:
        env.cancel.check()
        snapshot = results[edge.digest].outputs[edge.index]
        if snapshot is not None:
            merged = (
                snapshot if merged is None else _stack(env, merged, _layers(env.store, snapshot), vertex.name)
            )
    return Result((merged,))


def run_diff(vertex: Vertex, results: dict[Digest, Result], env: SolveEnv) -> Result:
    """What makes upper of lower: the layers between them, or one that is worked out by comparing (MRG-02)."""
    op = vertex.op
    assert isinstance(op, DiffOp)

    def snapshot(position: int) -> str | None:
        if position < 0:
            return None
        edge = vertex.inputs[position]
        return results[edge.digest].outputs[edge.index]

    lower, upper = snapshot(op.lower), snapshot(op.upper)
    if upper == lower:
        return Result((None,))
    if lower is None:
        return Result((upper,))
    layers = _layers(env.store, upper) if upper is not None else []
    if lower in layers:
        return Result((_stack(env, None, layers[layers.index(lower) + 1 :], vertex.name),))
    return Result((_computed(env.store, lower, upper, vertex.name),))


def _layers(store: Store, snapshot: str) -> list[str]:
    return [info.id for info in reversed(store.snapshots.chain(snapshot))]


def _stack(env: SolveEnv, base: str | None, layers: list[str], description: str) -> str | None:
    """``layers`` one by one on top of ``base``."""
    snapshots = env.store.snapshots
    for layer in layers:
        env.cancel.check()
        with layer_changes(snapshots, layer) as (found, source):
            base = _restacked(env.store, base, found, source, description)
        snapshots.share_layers(layer, base)
        env.store.put_doc(SAME_LAYER, base, layer.encode("ascii"))
    return base


def _computed(store: Store, lower: str, upper: str | None, description: str) -> str:
    """One layer that makes ``upper`` of ``lower``, two trees that have nothing to do with each other."""
    userxattr = store.snapshots.userxattr
    with (
        View(store.snapshots.layers(lower), userxattr=userxattr) as before,
        View(store.snapshots.layers(upper), userxattr=userxattr) as after,
    ):
        return _restacked(store, None, compare(before, after), after, description)


def _restacked(
    store: Store, base: str | None, found: Sequence[Change], source: View, description: str
) -> str:
    active = store.snapshots.prepare(base, description=description)
    try:
        restack(found, source, active)
        return store.snapshots.commit(active, description=description).id
    except BaseException:
        store.snapshots.discard(active)
        raise
