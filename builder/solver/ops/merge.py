"""Merge and diff: trees laid over each other, and the layers between two trees (rows MRG-01…05).

Every layer of a later input becomes one lazy snapshot on top of the earlier ones: its layer blob is the one
already made, and its tree is made without copying when somebody mounts it (``builder.cache.lazy``).
"""

from __future__ import annotations

from builder.cache.lazy import add
from builder.cache.restack import origin
from builder.cache.snapshotrows import SAME_LAYER
from builder.cache.store import Store
from builder.cache.types import Recipe
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
    return Result((add(env.store, None, Recipe("diff", upper, lower), description=vertex.name),))


def _layers(store: Store, snapshot: str) -> list[str]:
    return [info.id for info in reversed(store.snapshots.chain(snapshot))]


def _stack(env: SolveEnv, base: str | None, layers: list[str], description: str) -> str | None:
    """``layers`` one by one on top of ``base``."""
    store = env.store
    sources = [origin(store, layer) for layer in layers]
    with store.db.write():
        for source in sources:
            base = add(store, base, Recipe("layer", source), description=description)
            store.put_doc(SAME_LAYER, base, source.encode("ascii"))
    return base
