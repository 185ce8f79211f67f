"""Definitions made by hand and solved on a real store, with a busybox tree as the only base."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager

from builder.cache import keys
from builder.llb.definition import Definition, Edge, Vertex, VertexMeta
from builder.llb.ops import ExecMeta, ExecOp, Mount, SourceOp
from builder.solver.cancel import Cancel
from builder.solver.env import SolveEnv
from builder.solver.progress import LogEvent, VertexEvent
from runtime.spec import Network

BASE = Vertex(
    op=SourceOp(identifier="docker-image://docker.io/library/base:latest"), meta=VertexMeta(name="base")
)
PATH = ("PATH=/bin",)
SH = ("/bin/sh", "-c")


def busybox_tree(root):
    """A root directory with busybox' applets."""
    (root / "bin").mkdir(parents=True)
    for name in ("dev", "etc", "proc", "root", "sys", "tmp"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\nextra:x:7:app\n")
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in ("sh", "cat", "echo", "ls", "sleep", "true", "false", "touch", "mkdir", "id", "env", "date", "rm",
                   "test", "stat", "pwd", "mount", "ln", "kill", "head", "grep", "wc", "ip", "hostname", "dd", "seq"):  # fmt: skip
        os.symlink("busybox", root / "bin" / applet)


class Base:
    """The solver's sources: one base tree, counted."""

    def __init__(self, store):
        self._store = store
        self._lock = threading.Lock()
        self.fetched = 0

    def tree(self, op):
        return None

    def select(self, op, copies, on_read=None):
        raise AssertionError("no local sources here")

    def pin(self, op):
        return ""

    def key(self, op, platform, reporter):
        return keys.source_key("image", op.identifier)

    def fetch(self, op, platform, reporter, cancel, *, lazy=False):
        with self._lock:
            self.fetched += 1
            known = self._store.records.lookup("base")
            if known:
                return known.outputs[0]
            active = self._store.snapshots.prepare(None)
            busybox_tree(active.upper)
            snapshot = self._store.snapshots.commit(active).id
            from builder.cache.types import CacheRecord

            self._store.records.save(CacheRecord(key="base", op="base", outputs=(snapshot,)))
            return snapshot


class NoNetwork:
    @contextmanager
    def lease(self, reporter, *, reusable=True):
        yield Network(mode="none")


class Watcher:
    """Collects progress."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        self.events.append(event)

    def log(self, name=None):
        wanted = {
            e.digest for e in self.events if isinstance(e, VertexEvent) and (name is None or e.name == name)
        }
        return b"".join(
            e.data for e in self.events if isinstance(e, LogEvent) and e.vertex in wanted
        ).decode()

    def ran(self):
        return [
            e.name
            for e in self.events
            if isinstance(e, VertexEvent) and e.completed_ns and not e.cached and not e.error
        ]

    def cached(self):
        return [e.name for e in self.events if isinstance(e, VertexEvent) and e.cached]


def run(script, *inputs, name="", meta=None, mounts=(), **options):
    """A RUN of a shell line; the first input is the root, further ones belong to ``mounts``."""
    op = ExecOp(
        meta=ExecMeta(args=(*SH, script), env=PATH, **(meta or {})),
        mounts=(Mount(dest="/", input=0, output=0), *mounts),
        **options,
    )
    return Vertex(op=op, inputs=tuple(Edge(v.digest) for v in inputs), meta=VertexMeta(name=name or script))


def definition(head, *vertices):
    every = {vertex.digest: vertex for vertex in (*vertices, head)}
    return Definition.of(every, Edge(head.digest))


@contextmanager
def env_for(store, launcher, watcher=None, **options):
    """A solve environment on ``store``."""
    with store.hold() as hold:
        yield SolveEnv(
            store=store,
            hold=hold,
            sources=Base(store),
            executor=lambda: launcher,
            networks=NoNetwork,
            emit=watcher or Watcher(),
            cancel=options.pop("cancel", None) or Cancel(),
            **options,
        )
