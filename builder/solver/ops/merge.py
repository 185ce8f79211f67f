"""Merge and diff: trees laid over each other, and the layers between two trees (rows MRG-01…05).

Every layer of a later input becomes one snapshot on top of the earlier ones, its files hard-linked from the
layer it comes from, so nothing is copied and its layer blob is the one already made.
"""

from __future__ import annotations

import os
import stat

from builder.cache import ownership
from builder.cache.store import Store
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.errors import SolveError
from builder.llb.definition import Vertex
from builder.llb.ops import Copy, DiffOp, FileAction, FileOp, MergeOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.ops.fileop import run_file_op
from builder.solver.types import Result

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
                snapshot
                if merged is None
                else _stack(env.store, merged, _layers(env.store, snapshot), vertex.name)
            )
    return Result((merged,))


def run_diff(vertex: Vertex, results: dict[Digest, Result], env: SolveEnv) -> Result:
    """What upper has beyond lower, when lower is one of its ancestors (or empty)."""
    op = vertex.op
    assert isinstance(op, DiffOp)

    def snapshot(position: int) -> str | None:
        if position < 0:
            return None
        edge = vertex.inputs[position]
        return results[edge.digest].outputs[edge.index]

    lower, upper = snapshot(op.lower), snapshot(op.upper)
    if upper is None or upper == lower:
        return Result((None,))
    if lower is None:
        return Result((upper,))
    layers = _layers(env.store, upper)
    if lower not in layers:
        raise SolveError(
            "a diff of two trees of which neither is built on the other is not supported",
            code="unsupported-op",
        )
    return Result((_stack(env.store, None, layers[layers.index(lower) + 1 :], vertex.name),))


def _layers(store: Store, snapshot: str) -> list[str]:
    return [info.id for info in reversed(store.snapshots.chain(snapshot))]


def _stack(store: Store, base: str | None, layers: list[str], description: str) -> str | None:
    """``layers`` one by one on top of ``base``."""
    for layer in layers:
        active = store.snapshots.prepare(base, description=description)
        try:
            if active.driver == "overlay":
                source, _ = store.snapshots.diff_dir(layer)
                link_tree(str(source), str(active.upper))
                ownership.share(source, active.upper)
            else:
                action = Copy(src="/", dest="/", dir_contents=True)
                run_file_op(
                    FileOp(actions=(FileAction(action=action, input=0, secondary=1, output=0),)),
                    (None, View(store.snapshots.layers(layer))),
                    lambda _: Writer(active.upper),  # noqa: B023 - called before the next round
                )
            info = store.snapshots.commit(active, description=description)
        except BaseException:
            store.snapshots.discard(active)
            raise
        if active.driver == "overlay":
            store.snapshots.share_layers(layer, info.id)
        base = info.id
    return base


def link_tree(source: str, target: str) -> None:
    """Repeat a directory: directories made anew with all their attributes, everything else hard-linked."""
    source_fd, target_fd = os.open(source, _DIR), os.open(target, _DIR)
    try:
        _link_below(source_fd, target_fd)
    finally:
        os.close(source_fd)
        os.close(target_fd)


def _link_below(source: int, target: int) -> None:
    with os.scandir(source) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_dir in names:
        if not is_dir:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            continue
        os.mkdir(name, 0o700, dir_fd=target)
        below, made = os.open(name, _DIR, dir_fd=source), os.open(name, _DIR, dir_fd=target)
        try:
            _link_below(below, made)
        finally:
            os.close(below)
            os.close(made)
    _copy_attributes(source, target)


def _copy_attributes(source: int, target: int) -> None:
    st = os.fstat(source)
    os.fchown(target, st.st_uid, st.st_gid)
    for key in os.listxattr(source):
        os.setxattr(target, key, os.getxattr(source, key))
    os.fchmod(target, stat.S_IMODE(st.st_mode))
    os.utime(target, ns=(st.st_atime_ns, st.st_mtime_ns))
