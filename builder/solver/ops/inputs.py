"""Inputs that a container must see as a tree: parts of a build context are copied into a snapshot first."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from builder.cache import keys, ownership
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.cache.types import CacheRecord
from builder.llb.definition import Vertex
from builder.llb.ops import Copy, FileAction, FileOp, SourceOp
from builder.solver.env import SolveEnv
from builder.solver.planning import Node, copies_of


def local_snapshot(vertex: Vertex, position: int, node: Node, env: SolveEnv) -> str:
    """A snapshot of what ``vertex`` selects from the local source ``node``; equal content is stored once."""
    from builder.solver.ops.fileop import run_file_op

    op = node.vertex.op
    assert isinstance(op, SourceOp)
    copies = copies_of(vertex, position)
    content = env.sources.select(op, copies)
    paths = sorted({copy.src.strip("/") for copy in copies})
    key = keys.source_key("mounted", f"{content} {paths}")
    with env.store.lock(f"local-{key}", on_wait=env.cancel.check):
        known = env.store.records.lookup(key)
        if known is not None and known.outputs[0]:
            env.hold.snapshot(known.outputs[0])
            return known.outputs[0]
        tree = env.sources.tree(op)
        active = env.store.snapshots.prepare(None, description="local source", record_type="source.local")
        try:
            writer = Writer(active.upper)
            for path in paths:
                action = Copy(
                    src=f"/{path}",
                    dest=f"/{path}",
                    dir_contents=not path,
                    create_dest_path=True,
                    follow_symlink=True,
                )
                run_file_op(
                    FileOp(actions=(FileAction(action=action, secondary=0, output=0),)), (tree,), (writer,)
                )
            info = env.store.snapshots.commit(active, description="local source", record_type="source.local")
        except BaseException:
            env.store.snapshots.discard(active)
            raise
        env.hold.snapshot(info.id)
        env.store.records.save(
            CacheRecord(key=key, op=key, parts={}, outputs=(info.id,), name="local source")
        )
        return info.id


def copy_tree(layers: Sequence[Path], selector: str, target: Path, *, userxattr: bool = False) -> None:
    """Copy a directory of a snapshot, with its owner and mode, into an empty host directory that we own."""
    from builder.solver.ops.fileop import run_file_op

    action = Copy(src=f"/{selector.strip('/')}", dest="/", dir_contents=True, create_dest_path=True)
    op = FileOp(actions=(FileAction(action=action, secondary=0, output=0),))
    with View(layers, userxattr=userxattr) as view, Writer(target) as writer:
        run_file_op(op, (view,), (writer,))
        top = view.lstat(view.resolve(selector.strip("/")))
    if top is not None:
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ownership.chown(fd, top.st_uid, top.st_gid)
        finally:
            os.close(fd)
        os.chmod(target, stat.S_IMODE(top.st_mode))
