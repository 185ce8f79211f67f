"""Carries out what the scheduler asks: one thread per running step, one queue of what they report."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from builder.cache.types import CacheRecord
from builder.cancelling import within
from builder.errors import Cancelled, PybuildError, SeveralFailed, SolveError
from builder.llb.definition import Vertex
from builder.llb.ops import BuildOp, DiffOp, ExecOp, MergeOp, PassthroughOp, SourceOp
from builder.oci.digest import Digest
from builder.solver import scheduler as sched
from builder.solver.cutoff import equal_record
from builder.solver.env import SolveEnv
from builder.solver.following import alone
from builder.solver.ops import run_step
from builder.solver.places import CountedPlace, Place
from builder.solver.planning import Node, Nodes, attribute, record_parts
from builder.solver.types import Cancel, Result
from runtime import openfiles

_STOP = (sched.Cancelled(), None)
_FETCHING = 4
"""Sources wait for the network more than for a CPU."""
_FILES = (64, 16)
"""How many open files a build needs, and how many each of its steps."""
_STEPS = 16
"""Steps wait, too, for downloads and for each other: so many run at once even on a small machine."""


class Driver:
    """Runs the steps of one solve that have no result yet."""

    def __init__(
        self, env: SolveEnv, nodes: Nodes, results: dict[Digest, Result], layered: dict[Digest, Vertex]
    ) -> None:
        self._asked = env.cancel
        self._stop = Cancel()
        self._env = replace(env, cancel=self._stop)
        self._nodes = nodes
        self._results = results
        self._layered = layered
        self._queue: queue.SimpleQueue[tuple[sched.Event, BaseException | None]] = queue.SimpleQueue()
        self._threads: dict[str, threading.Thread] = {}
        self._places: dict[str, CountedPlace] = {}
        self._read: set[Digest] = set()

    def run(self, to_do: list[Node], failures: list[BaseException]) -> None:
        """Run every node of ``to_do``; all threads have ended when this returns.

        Raises the first failure, or with ``keep_going`` all of them, with ``failures`` of before.
        """
        self._read = read_by_steps(to_do)
        by_id = {str(node.vertex.digest): node for node in to_do if not node.local}
        scheduler = self._scheduler(by_id)
        self._stop.on_set(lambda: self._queue.put(_STOP))
        forget = self._asked.on_set(self._stop.set)
        try:
            start = scheduler.start()
            while True:
                for name in start:
                    self._start(name, by_id[name])
                if scheduler.finished:
                    break
                event, error = self._queue.get()
                if isinstance(event, sched.Finished | sched.Failed):
                    self._threads.pop(event.id).join()
                    del self._places[event.id]
                if error is not None:
                    failures.append(error)
                    if not self._env.keep_going:
                        self._stop.set()
                start = scheduler.handle(event)
        finally:
            forget()
        raise_failures(failures, every=self._env.keep_going)
        if not scheduler.complete:
            raise Cancelled("build cancelled")

    def _scheduler(self, by_id: dict[str, Node]) -> sched.Scheduler:
        limit = max(self._env.max_parallelism, 0)
        room = openfiles.room(*_FILES)
        slots = min(room, limit or max(_STEPS, 4 * len(os.sched_getaffinity(0))))
        fetching = min(room, limit or max(slots, _FETCHING))
        counted = [node for node in by_id.values() if not isinstance(node.vertex.op, SourceOp)]
        ask = self._env.durations if len(counted) > slots else None
        seconds = ask() if ask is not None else {}
        tasks = tuple(
            sched.Task(
                id=name,
                needs=tuple(str(edge.digest) for edge in node.vertex.inputs),
                resource="source" if isinstance(node.vertex.op, SourceOp) else "step",
                weight=seconds.get(node.vertex.name, 1.0),
            )
            for name, node in by_id.items()
        )
        return sched.Scheduler(tasks, {"step": slots, "source": fetching}, keep_going=self._env.keep_going)

    def _start(self, name: str, node: Node) -> None:
        place = self._places.get(name)
        if place is not None:
            place.grant()
            return
        place = CountedPlace(
            parked=lambda: self._queue.put((sched.Parked(name), None)),
            resumed=lambda: self._queue.put((sched.Resumed(name), None)),
            cancel=self._stop,
        )
        thread = threading.Thread(
            target=self._work, args=(name, node, place), name=f"step-{node.vertex.digest.hex[:8]}"
        )
        self._places[name] = place
        self._threads[name] = thread
        thread.start()

    def _work(self, name: str, node: Node, place: Place) -> None:
        error: BaseException | None = None
        try:
            with within(self._stop):
                self._realise(node, replace(self._env, place=place))
        except Cancelled as stopped:
            node.reporter.cancelled()
            error = stopped
        except SolveError as failed:
            attribute(failed, node.vertex)
            node.reporter.fail(failed.message)
            error = failed
        except PybuildError as failed:
            node.reporter.fail(failed.message)
            error = SolveError(failed.message, context=failed.context, hint=failed.hint, code=failed.code)
            attribute(error, node.vertex).__cause__ = failed
        except BaseException as bug:  # noqa: BLE001 - handed to the thread that waits, which raises it
            node.reporter.fail(f"{type(bug).__name__}: {bug}")
            error = bug
        self._queue.put((sched.Finished(name) if error is None else sched.Failed(name), error))

    def _realise(self, node: Node, env: SolveEnv) -> None:
        """Give the node's result: from a record another process has just made, or by running the step."""
        vertex = node.vertex
        env.cancel.check()
        if isinstance(vertex.op, SourceOp):
            node.reporter.start()
            self._publish(node, self._fetched(vertex.op, node, env))
            if env.check_space is not None:
                env.check_space()
            node.reporter.done()
            return
        with self._step_lock(node, env):
            env.place.take()
            unsure = any(self._nodes[edge.digest].unsure for edge in vertex.inputs)
            record = None if node.tainted or unsure else env.store.records.lookup(node.key)
            record = record or self._cut_off(node) or self._imported(node, env)
            if record is not None and self._held(record):
                node.record = record
                self._publish(node, Result(record.outputs))
                node.reporter.cached()
                return
            node.reporter.start()
            result = self._made(node, env)
            changed = self._changed(node)
            if changed and env.direct is not None:
                result = self._made(node, replace(env, direct=None))  # what was packed may be torn
            self._note_unsure(node, changed)
            if not node.unsure:
                env.store.records.save(self._record(node, result.outputs))
        self._publish(node, result)
        if env.check_space is not None:
            env.check_space()
        node.reporter.done()

    def _held(self, record: CacheRecord) -> bool:
        """Hold what a record leads to; False when a prune was faster: the step runs then."""
        return self._env.hold.snapshots([snapshot for snapshot in record.outputs if snapshot])

    def _fetched(self, op: SourceOp, node: Node, env: SolveEnv) -> Result:
        lazy = node.vertex.digest not in self._read

        def fetch(_: bool = True) -> Result:
            vertex = node.vertex
            return Result((env.sources.fetch(op, vertex.platform, node.reporter, env.cancel, lazy=lazy),))

        return self._retried(fetch, node, env) if env.retries else fetch()

    def _made(self, node: Node, env: SolveEnv) -> Result:
        """Run the step; a RUN again when that was asked for, each time on a tree of its own."""

        def run(last: bool = True) -> Result:
            mine = env if last else replace(env, on_failed=None)
            if mine.direct is not None and node.vertex.digest in self._read:
                mine = replace(mine, direct=None)
            return run_step(node.vertex, self._nodes, self._results, mine, node.reporter)

        retried = env.retries and isinstance(node.vertex.op, ExecOp)
        return self._retried(run, node, env) if retried else run()

    def _retried(self, call: Callable[[bool], Result], node: Node, env: SolveEnv) -> Result:
        from builder.solver.retrying import retrying

        return retrying(call, env.retries, say=node.reporter.say, cancel=env.cancel)

    def _cut_off(self, node: Node) -> CacheRecord | None:
        """A stored result of the same operation on inputs of the same content, whatever their keys were."""
        if isinstance(node.vertex.op, (BuildOp, MergeOp, DiffOp)):
            return None  # a merge costs nothing: what is merged is not read for it
        if node.vertex.meta.ignore_cache or any(self._nodes[e.digest].unsure for e in node.vertex.inputs):
            return None
        snapshots = {
            position: self._snapshot(node.vertex, position)
            for position, edge in enumerate(node.vertex.inputs)
            if not self._nodes[edge.digest].local
        }
        found = equal_record(node, snapshots, self._env.store, self._env.hold)
        if found is None or not self._held(found):
            return None
        alias = self._record(node, found.outputs)
        self._env.store.records.save(alias)
        return alias

    def _imported(self, node: Node, env: SolveEnv) -> CacheRecord | None:
        """A result of an imported cache, now that the content of the inputs can be looked at."""
        if env.remote is None or any(self._nodes[edge.digest].unsure for edge in node.vertex.inputs):
            return None
        snapshots = {
            position: self._snapshot(node.vertex, position)
            for position, edge in enumerate(node.vertex.inputs)
            if not self._nodes[edge.digest].local
        }
        return env.remote.late(node, self._nodes, snapshots, env)

    def _record(self, node: Node, outputs: tuple[str | None, ...]) -> CacheRecord:
        inputs = {
            position: self._snapshot(node.vertex, position)
            for position, edge in enumerate(node.vertex.inputs)
            if not self._nodes[edge.digest].local
        }
        return CacheRecord(
            key=node.key,
            op=node.op,
            parts=record_parts(node, self._nodes, inputs),
            outputs=outputs,
            name=node.vertex.name,
        )

    def _note_unsure(self, node: Node, changed: list[str]) -> None:
        """Mark a step as unsure whose context changed while it was read, or that builds on such a one."""
        node.unsure = node.unsure or any(self._nodes[edge.digest].unsure for edge in node.vertex.inputs)
        for path in changed:
            node.unsure = True
            node.reporter.warn(f"{path!r} changed while it was copied: this step will run again next time")

    def _changed(self, node: Node) -> list[str]:
        """One file of each context that is not what it was when the step's key was made (SLO-06)."""
        sources = [self._nodes[edge.digest] for edge in node.vertex.inputs]
        found = [
            self._env.sources.changed(source.vertex.op)
            for source in sources
            if source.local and isinstance(source.vertex.op, SourceOp)
        ]
        return [paths[0] for paths in found if paths]

    def _snapshot(self, vertex: Vertex, position: int) -> str | None:
        edge = vertex.inputs[position]
        return self._results[edge.digest].outputs[edge.index]

    def _publish(self, node: Node, result: Result) -> None:
        for snapshot in result.outputs:
            if snapshot:
                self._env.hold.snapshot(snapshot)
        self._results[node.vertex.digest] = result
        node.outputs = result.outputs
        first = result.outputs[0] if result.outputs else None
        if self._env.on_snapshot is not None and node.vertex.digest in self._layered and first:
            self._env.on_snapshot(node.vertex, first)

    def _step_lock(self, node: Node, env: SolveEnv) -> AbstractContextManager[None]:
        """Between processes, one runs a step and the others take its result; who waits takes no place.

        A step that may not use the cache does not wait.
        """
        if node.vertex.meta.ignore_cache or isinstance(node.vertex.op, (SourceOp, BuildOp)):
            return nullcontext()

        kind = "step" if isinstance(node.vertex.op, ExecOp) else "file"
        return alone(f"{kind}-{node.key}", node.vertex, env, node.reporter)


def read_by_steps(to_do: list[Node]) -> set[Digest]:
    """The vertices whose trees are read by what is to run, maybe as parts of merges; inputs come first."""
    found: set[Digest] = set()
    for node in reversed(to_do):
        vertex = node.vertex
        passes_on = isinstance(vertex.op, (MergeOp, DiffOp, PassthroughOp))
        if not passes_on or vertex.digest in found:
            found.update(edge.digest for edge in vertex.inputs)
    return found


def raise_failures(failures: list[BaseException], *, every: bool) -> None:
    """Raise the first failure, or ``every``; others that were cancelled for it do not count."""
    telling = [error for error in failures if not isinstance(error, Cancelled)]
    bugs = [error for error in telling if not isinstance(error, PybuildError)]
    expected = tuple(error for error in telling if isinstance(error, PybuildError))
    for error in (*bugs, *expected, *failures):
        if every and not bugs and len(expected) > 1:
            raise SeveralFailed(expected)
        raise error
