"""Definitions made by hand, one vertex at a time, solved on a store; layers looked at and applied."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.build.layers import Layer, LayerOptions, pack_snapshot
from builder.cache.extract import apply
from builder.cache.store import Store
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.llb.definition import Definition, Edge, Vertex, VertexMeta
from builder.llb.ops import EMPTY, Action, DiffOp, ExecOp, FileAction, FileOp, MergeOp, Op
from builder.solver.solver import Solved, solve_all
from runtime.launcher import Launcher
from tests.support.solving import BASE, Watcher, env_for

Input = Vertex | tuple[Vertex, int] | None


class Bench:
    """Makes vertices and solves them on ``store``."""

    def __init__(self, store: Store, launcher: Launcher | None = None) -> None:
        self.store = store
        self.launcher = launcher
        self.watcher = Watcher()
        self._vertices = {BASE.digest: BASE}

    # --- vertices

    def vertex(self, op: Op, *inputs: Input, name: str = "") -> Vertex:
        """A vertex on the outputs of others."""
        edges = []
        for item in inputs:
            assert item is not None
            vertex, index = item if isinstance(item, tuple) else (item, 0)
            edges.append(Edge(vertex.digest, index))
        made = Vertex(op=op, inputs=tuple(edges), meta=VertexMeta(name=name or type(op).__name__))
        self._vertices[made.digest] = made
        return made

    def file(self, base: Vertex | None, *actions: Action | tuple[Action, Vertex]) -> Vertex:
        """Actions one after another on ``base``, the last result being the output; a copy comes with its source."""
        inputs: list[Vertex] = [] if base is None else [base]
        for item in actions:
            if isinstance(item, tuple) and item[1] not in inputs:
                inputs.append(item[1])
        done: list[FileAction] = []
        current = EMPTY if base is None else 0
        for number, item in enumerate(actions):
            action, secondary = (item[0], inputs.index(item[1])) if isinstance(item, tuple) else (item, EMPTY)
            last = number == len(actions) - 1
            done.append(FileAction(action=action, input=current, secondary=secondary, output=0 if last else EMPTY))
            current = len(inputs) + number
        return self.vertex(FileOp(actions=tuple(done)), *inputs)

    def merge(self, *inputs: Input) -> Vertex:
        """Later inputs over earlier ones."""
        return self.vertex(MergeOp(inputs=tuple(range(len(inputs)))), *inputs)

    def diff(self, lower: Input, upper: Input) -> Vertex:
        """What makes ``upper`` of ``lower``; None is the empty tree."""
        given = [item for item in (lower, upper) if item is not None]
        op = DiffOp(lower=EMPTY if lower is None else 0, upper=EMPTY if upper is None else len(given) - 1)
        return self.vertex(op, *given)

    def put(self, fill: Path, name: str = "tree") -> Vertex:
        """A source vertex that is the directory ``fill``: its content becomes a snapshot as it is."""
        from builder.cache import keys
        from builder.cache.types import CacheRecord

        active = self.store.snapshots.prepare(None)
        from builder.cache.copytree import merge_trees

        merge_trees((str(fill),), str(active.upper))
        snapshot = self.store.snapshots.commit(active).id
        vertex = self.vertex(ExecOp(meta=_named(f"{name} {snapshot}"), mounts=_ROOT), BASE, name=name)
        key = keys.source_key("handmade", snapshot)
        self.store.records.save(CacheRecord(key=key, op=key, outputs=(snapshot,)))
        self._given[vertex.digest] = snapshot
        return vertex

    # --- results

    def solve(self, head: Vertex, index: int = 0) -> str | None:
        """The snapshot of an output. ``watcher`` has the progress."""
        return self._solve(head, index).snapshot

    def _solve(self, head: Vertex, index: int) -> Solved:
        self.watcher = Watcher()
        with env_for(self.store, self.launcher, self.watcher) as env:
            return solve_all((Definition.of(dict(self._vertices), Edge(head.digest, index)),), env)[0]
