"""Definitions made by hand, one vertex at a time, solved on a store; their trees and layers looked at."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.build.layers import Layer, LayerOptions, pack_snapshot
from builder.cache import keys
from builder.cache.copytree import merge_trees
from builder.cache.extract import apply
from builder.cache.store import Store
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from builder.llb.definition import Definition, Edge, Vertex, VertexMeta
from builder.llb.ops import EMPTY, Action, DiffOp, FileAction, FileOp, MergeOp, Op, SourceOp
from builder.solver.solver import Solved, solve_all
from runtime.launcher import Launcher
from tests.support.solving import BASE, Base, Watcher, env_for

Input = Vertex | tuple[Vertex, int] | None
_GIVEN = "docker-image://docker.io/given/"


class Sources(Base):
    """The busybox base, and trees that a test made."""

    def key(self, op: Any, platform: Any, reporter: Any) -> str:
        return keys.source_key("image", op.identifier)

    def fetch(self, op: Any, platform: Any, reporter: Any, cancel: Any, *, lazy: bool = False) -> Any:
        if op.identifier.startswith(_GIVEN):
            return op.identifier.removeprefix(_GIVEN)
        return super().fetch(op, platform, reporter, cancel)


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
        return self.take(made)

    def take(self, vertex: Vertex) -> Vertex:
        """Remember a vertex made elsewhere."""
        self._vertices[vertex.digest] = vertex
        return vertex

    def file(self, base: Vertex | None, *actions: Action | tuple[Action, Vertex]) -> Vertex:
        """Actions one after another on ``base``; the last result is the output. A copy comes with its source."""
        inputs: list[Vertex] = [] if base is None else [base]
        inputs += dict.fromkeys(
            item[1] for item in actions if isinstance(item, tuple) and item[1] is not base
        )
        done: list[FileAction] = []
        current = EMPTY if base is None else 0
        for number, item in enumerate(actions):
            action, second = (item[0], inputs.index(item[1])) if isinstance(item, tuple) else (item, EMPTY)
            output = 0 if number == len(actions) - 1 else EMPTY
            done.append(FileAction(action=action, input=current, secondary=second, output=output))
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

    def put(self, directory: Path) -> Vertex:
        """The tree of a host directory as it is now."""
        active = self.store.snapshots.prepare(None)
        merge_trees((str(directory),), str(active.upper))
        snapshot = self.store.snapshots.commit(active).id
        return self.vertex(SourceOp(identifier=_GIVEN + snapshot), name="given")

    # --- results

    def solve(self, head: Vertex, index: int = 0) -> str | None:
        """The snapshot of an output; ``watcher`` has the progress."""
        return self.solved(head, index).snapshot

    def solved(self, head: Vertex, index: int = 0, **more: Any) -> Solved:
        """The same with all there is to know; ``more`` goes into the environment of the solve."""
        self.watcher = Watcher()
        definition = Definition.of(dict(self._vertices), Edge(head.digest, index))
        with env_for(self.store, self.launcher, self.watcher, **more) as env:
            return solve_all((definition,), replace(env, sources=Sources(self.store)))[0]

    @contextmanager
    def view(self, head: Vertex | str | None, index: int = 0) -> Iterator[View]:
        """The tree of an output, or of a snapshot."""
        snapshot = self.solve(head, index) if isinstance(head, Vertex) else head
        with View(self.store.snapshots.layers(snapshot), userxattr=self.store.snapshots.userxattr) as view:
            yield view

    def look(self, head: Vertex | str | None, index: int = 0) -> dict[str, tuple[Any, ...]]:
        """What is in the tree of an output (``described``)."""
        with self.view(head, index) as view:
            return described(view)

    def read(self, head: Vertex | str | None, path: str, index: int = 0) -> str:
        """A file's text."""
        with self.view(head, index) as view:
            return view.read(view.resolve(path), 1 << 20).decode()

    def layers(self, head: Vertex | str | None) -> list[Layer]:
        """The layers of an output as an image would have them, lowest first."""
        snapshot = self.solve(head) if isinstance(head, Vertex) else head
        if snapshot is None:
            return []
        chain = reversed(self.store.snapshots.chain(snapshot))
        return [pack_snapshot(self.store, info.id, LayerOptions()) for info in chain]

    def tar(self, layer: Layer) -> bytes:
        """The tar of a layer."""
        with self.store.blobs.open(layer.descriptor.digest) as file:
            return gzip.decompress(file.read())

    def apply(self, layers: list[Layer], target: Path) -> Path:
        """Unpack layers one over the other, as whoever pulls the image does."""
        target.mkdir(exist_ok=True)
        with Writer(target) as writer:
            for layer in layers:
                apply(io.BytesIO(self.tar(layer)), writer)
        return target


def described(view: View, *, times: bool = True) -> dict[str, tuple[Any, ...]]:
    """Every entry below the root by path: type and mode, owner, what it holds, attributes, whole seconds (not of directories)."""
    found: dict[str, tuple[Any, ...]] = {}
    names: dict[tuple[int, int], str] = {}
    for path, st in view.walk():
        held: Any = ""
        if stat.S_ISREG(st.st_mode):
            with open(view.open(path), "rb") as file:
                held = hashlib.sha256(file.read()).hexdigest()[:12]
            if st.st_nlink > 1:
                first = names.setdefault((st.st_dev, st.st_ino), path)
                held = held if first == path else f"link to {first}"
        elif stat.S_ISLNK(st.st_mode):
            held = view.readlink(path)
        elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
            held = (os.major(st.st_rdev), os.minor(st.st_rdev))
        time = None if stat.S_ISDIR(st.st_mode) or not times else int(st.st_mtime)
        found[path] = (
            oct(st.st_mode),
            st.st_uid,
            st.st_gid,
            held,
            tuple(sorted(view.xattrs(path).items())),
            time,
        )
    return found
