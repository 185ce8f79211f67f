"""What builds leave for a look afterwards: every step as it was run, and the half-made trees of failed ones.

The steps of the last builds are documents of the store (kind ``build-steps``). The tree of a failed RUN step
is committed as a snapshot that no record leads to, so it is never a result; it counts in ``du``, goes with a
prune, and only the last failed builds keep theirs. Secrets are not kept.
"""

from __future__ import annotations

import contextlib
import json
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from builder.cache import keys
from builder.cache.names import from_base36
from builder.cache.store import Store
from builder.errors import PybuildError, UsageError
from builder.frontend.redact import redact
from builder.llb.definition import Vertex, VertexMeta, encode_op
from builder.llb.ops import ExecOp, SourceOp
from builder.oci.platform import Platform

if TYPE_CHECKING:
    from builder.solver.planning import Node, Nodes
    from builder.solver.types import FailedStep

KIND = "build-steps"
_TREES = "failed-trees"
MAX_BUILDS = 20
"""How many builds keep the description of their steps."""
MAX_FAILED = 5
"""How many failed builds keep the trees of their failed steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStep:
    """One step of a build: ``snapshot`` is its tree afterwards, and ``inputs`` are what it was given."""

    name: str
    op: dict[str, Any]
    platform: str = ""
    failed: bool = False
    snapshot: str = ""
    inputs: Mapping[int, str | None] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The ``build`` of ``[linux/arm64 build 2/3] RUN make``; '' where the stage has no name."""
        words = self._label().rpartition(" ")[0].split()
        return words[-1] if words and "/" not in words[-1] else ""

    @property
    def number(self) -> int:
        """The 2 of ``[build 2/3] RUN make``; 0 for a step that has no number."""
        number = self._label().rpartition("/")[0].rpartition(" ")[2]
        return int(number) if number.isdigit() else 0

    def _label(self) -> str:
        return self.name[1:].partition("] ")[0] if self.name.startswith("[") else ""

    def vertex(self) -> Vertex:
        """The step to run something in; one that is no RUN gets a plain container on its tree."""
        from builder.llb.ops import ExecMeta, Mount
        from builder.llb.serialize import decode_op

        op = decode_op(self.op)
        if not isinstance(op, ExecOp):
            op = ExecOp(meta=ExecMeta(args=("/bin/sh",)), mounts=(Mount(dest="/", input=0, output=0),))
        platform = Platform.parse(self.platform) if self.platform else None
        return Vertex(op=op, platform=platform, meta=VertexMeta(name=self.name))

    def to_json(self) -> dict[str, Any]:
        """As kept in the store."""
        return {
            "name": self.name,
            "op": self.op,
            "platform": self.platform,
            "failed": self.failed,
            "snapshot": self.snapshot,
            "inputs": {str(position): value for position, value in self.inputs.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KeptStep:
        """Back from ``to_json``."""
        inputs = {int(position): value for position, value in data["inputs"].items()}
        return cls(**{**data, "inputs": inputs})


class StepKeeper:
    """Keeps the steps of one build; safe for many threads. What cannot be kept never fails a build."""

    def __init__(self, store: Store, build_id: str) -> None:
        self._store = store
        self._build_id = build_id
        self._lock = threading.Lock()
        self._plans: list[Nodes] = []
        self._failed: dict[str, FailedStep] = {}

    def planned(self, nodes: Nodes) -> None:
        """The steps of the build; what becomes of them shows in the same values."""
        self._plans.append(nodes)

    def failed(self, step: FailedStep) -> None:
        """Keep the tree of a step that failed."""
        with contextlib.suppress(PybuildError), self._lock:
            self._store.snapshots.commit(step.active, description=f"failed: {redact(step.vertex.name)}")
            self._failed[str(step.vertex.digest)] = step
            self._save()
            trees = " ".join(item.active.id for item in self._failed.values())
            self._store.put_doc(_TREES, self._build_id, trees.encode("ascii"))
            _trim_trees(self._store)

    def done(self) -> None:
        """The build has ended, whatever way."""
        with contextlib.suppress(PybuildError), self._lock:
            if any(node.outputs is not None and node.record is None for node in self._nodes()):
                self._save()

    def _nodes(self) -> Iterator[Node]:
        for nodes in self._plans:
            yield from (node for node in nodes.values() if not isinstance(node.vertex.op, SourceOp))

    def _save(self) -> None:
        steps = [self._kept(node).to_json() for node in self._nodes()]
        data = zlib.compress(json.dumps(steps).encode("utf-8", "surrogateescape"), 1)
        self._store.put_doc(KIND, self._build_id, data)
        _trim(self._store)

    def _kept(self, node: Node) -> KeptStep:
        vertex = node.vertex
        failed = self._failed.get(str(vertex.digest))
        return KeptStep(
            name=redact(vertex.name),
            op=encode_op(vertex.op),
            platform=str(vertex.platform or ""),
            failed=failed is not None,
            snapshot=failed.active.id if failed is not None else (node.outputs or ("",))[0] or "",
            inputs=failed.inputs if failed is not None else self._inputs(node),
        )

    def _inputs(self, node: Node) -> dict[int, str | None]:
        """The snapshots that a finished step was given, as far as they are still known."""
        from builder.solver.planning import copies_of

        nodes = next(plan for plan in self._plans if plan.get(node.vertex.digest) is node)
        found: dict[int, str | None] = {}
        if not isinstance(node.vertex.op, ExecOp) or node.outputs is None:
            return found
        for position, edge in enumerate(node.vertex.inputs):
            source = nodes[edge.digest]
            if source.outputs is not None:
                found[position] = source.outputs[edge.index]
            elif source.local and position < len(node.inputs):
                paths = sorted({copy.src.strip("/") for copy in copies_of(node.vertex, position)})
                key = keys.source_key("local", f"{node.inputs[position].content} {paths}")
                record = self._store.records.lookup(key)
                found[position] = record.outputs[0] if record is not None else None
        return found


def kept_steps(store: Store, build_id: str) -> tuple[KeptStep, ...]:
    """The steps of a build in order; () when they are not kept (any more)."""
    data = store.doc(KIND, build_id)
    if data is None:
        return ()
    try:
        return tuple(KeptStep.from_json(item) for item in json.loads(zlib.decompress(data)))
    except (zlib.error, ValueError, TypeError, KeyError):
        return ()


def newest_kept(store: Store) -> str:
    """The newest build that has ended and whose steps are kept; '' when there is none."""
    kept = {key for (key,) in store.db.all("SELECT key FROM docs WHERE kind=?", (KIND,))}
    ended = (row.id for row in store.builds.list(recalled=False) if row.status != "running")
    return next((build_id for build_id in ended if build_id in kept), "")


def find_step(store: Store, build_id: str, text: str = "") -> KeptStep:
    """The step of a build that ``text`` means: a number as shown, a name or a part of one.

    Without ``text`` the first that failed, else the last that has a result. Raises UsageError.
    """
    steps = kept_steps(store, build_id)
    if not steps:
        raise UsageError(
            f"the steps of build {build_id} are not kept (any more)",
            hint=f"they are for the last {MAX_BUILDS} builds that ran something",
            code="steps-not-kept",
        )
    if text.isdigit():
        found = [step for step in steps if step.number == int(text)]
    else:
        found = [step for step in steps if step.name == text]
        found = found or [step for step in steps if text.lower() in step.name.lower()]
    if not found:
        names = tuple(step.name for step in steps)
        raise UsageError(f"build {build_id} has no step {text!r}", context=names, code="no-such-step")
    made = [step for step in found if step.snapshot]
    failed = [step for step in made if step.failed]
    if text and len(found) > 1 and not failed:
        names = tuple(step.name for step in found)
        raise UsageError(f"{text!r} may mean several steps", context=names, code="ambiguous-step")
    if not made:
        raise UsageError(f"step {found[-1].name} was not run in build {build_id}", code="step-not-run")
    return failed[0] if failed else made[-1]


def checked_snapshot(store: Store, step: KeptStep) -> str:
    """The snapshot of a step, as long as nothing has removed it. Raises UsageError."""
    if store.snapshots.get(step.snapshot) is None:
        raise UsageError(
            f"the tree of step {step.name} is gone",
            hint=f"a prune removes it, and only the last {MAX_FAILED} failed builds keep theirs",
            code="step-tree-gone",
        )
    return step.snapshot


def _trim(store: Store) -> None:
    """Forget the steps of builds long ago."""
    store.db.run(
        "DELETE FROM docs WHERE kind=?1 AND key NOT IN"
        " (SELECT key FROM docs WHERE kind=?1 ORDER BY used_ns DESC, rowid DESC LIMIT ?2)",
        (KIND, MAX_BUILDS),
    )


def _trim_trees(store: Store) -> None:
    """Remove the trees of builds that failed long ago; one that is looked at stays for a prune."""
    rows = store.db.all(
        "SELECT key, data FROM docs WHERE kind=? ORDER BY used_ns DESC, rowid DESC", (_TREES,)
    )
    for build_id, data in rows[MAX_FAILED:]:
        _remove_trees(store, data.decode("ascii").split())
        store.db.run("DELETE FROM docs WHERE kind=? AND key=?", (_TREES, build_id))


def _remove_trees(store: Store, snapshots: list[str]) -> None:
    """Remove snapshots that nothing stands on and nobody looks at."""
    present = [item for item in snapshots if store.snapshots.get(item) is not None]
    if not present:
        return
    from builder.cache.holds import held
    from builder.cache.trash import empty_trash, remove_gone, trash_snapshots

    with store.gate.removing():
        with store.db.write() as tx:
            in_use, _ = held(f"{store.root}/tmp")
            numbers = [from_base36(item) for item in present]
            free = [
                number
                for number in numbers
                if number not in in_use
                and tx.execute("SELECT 1 FROM snapshots WHERE parent=? LIMIT 1", (number,)).fetchone() is None
            ]
            trash_snapshots(tx, free)
        gone = empty_trash(store.db, str(store.root))
    remove_gone(gone)
