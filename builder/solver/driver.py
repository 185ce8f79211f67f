"""Carries out what the scheduler asks: one thread per running step, one queue of what they report."""

from __future__ import annotations

import queue
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from builder.cache.types import CacheRecord
from builder.errors import Cancelled, PybuildError, SolveError
from builder.llb.definition import Vertex
from builder.llb.ops import ExecOp, SourceOp
from builder.oci.digest import Digest
from builder.solver import scheduler as sched
from builder.solver.cutoff import equal_record
from builder.solver.env import SolveEnv
from builder.solver.ops import run_step
from builder.solver.planning import Node, Nodes, attribute, record_parts
from builder.solver.types import Cancel, Result

_CANCEL = ""


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
        self._queue: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()
        self._threads: dict[str, threading.Thread] = {}

    def run(self, to_do: list[Node]) -> None:
        """Run every node of ``to_do``; all threads have ended when this returns. Raises the first failure."""
        by_id = {str(node.vertex.digest): node for node in to_do if not node.local}
        tasks = tuple(
            sched.Task(
                id=name,
                needs=tuple(str(edge.digest) for edge in node.vertex.inputs),
                resource="" if isinstance(node.vertex.op, SourceOp) else "exec",
            )
            for name, node in by_id.items()
        )
        scheduler = sched.Scheduler(
            tasks, {"exec": self._env.max_parallelism}, keep_going=self._env.keep_going
        )
        self._stop.on_set(lambda: self._queue.put((_CANCEL, None)))
        forget = self._asked.on_set(self._stop.set)
        failure: BaseException | None = None
        try:
            start = scheduler.start()
            while True:
                for name in start:
                    self._start(name, by_id[name])
                if scheduler.finished:
                    break
                name, error = self._queue.get()
                if name == _CANCEL:
                    start = scheduler.handle(sched.Cancelled())
                    continue
                self._threads.pop(name).join()
                if error is None:
                    start = scheduler.handle(sched.Finished(name))
                    continue
                failure = _worse(failure, error)
                start = scheduler.handle(sched.Failed(name))
                if not self._env.keep_going:
                    self._stop.set()
        finally:
            forget()
        if failure is not None:
            raise failure
        if not scheduler.complete:
            raise Cancelled("build cancelled")

    def _start(self, name: str, node: Node) -> None:
        thread = threading.Thread(
            target=self._work, args=(name, node), name=f"step-{node.vertex.digest.hex[:8]}"
        )
        self._threads[name] = thread
        thread.start()

    def _work(self, name: str, node: Node) -> None:
        error: BaseException | None = None
        try:
            self._realise(node)
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
        self._queue.put((name, error))

    def _realise(self, node: Node) -> None:
        """Give the node's result: from a record another process has just made, or by running the step."""
        env, vertex = self._env, node.vertex
        env.cancel.check()
        if isinstance(vertex.op, SourceOp):
            node.reporter.start()
            snapshot = env.sources.fetch(vertex.op, vertex.platform, node.reporter, env.cancel)
            self._publish(node, Result((snapshot,)))
            node.reporter.done()
            return
        with self._step_lock(node):
            unsure = any(self._nodes[edge.digest].unsure for edge in vertex.inputs)
            record = None if node.tainted or unsure else env.store.records.lookup(node.key)
            record = record or self._cut_off(node)
            if record is not None:
                node.record = record
                self._publish(node, Result(record.outputs))
                node.reporter.cached()
                return
            node.reporter.start()
            result = run_step(vertex, self._nodes, self._results, env, node.reporter)
            self._check_sources(node)
            if not node.unsure:
                env.store.records.save(self._record(node, result.outputs))
        self._publish(node, result)
        node.reporter.done()

    def _cut_off(self, node: Node) -> CacheRecord | None:
        """A stored result of the same operation on inputs of the same content, whatever their keys were."""
        if node.vertex.meta.ignore_cache or any(self._nodes[e.digest].unsure for e in node.vertex.inputs):
            return None
        snapshots = {
            position: self._snapshot(node.vertex, position)
            for position, edge in enumerate(node.vertex.inputs)
            if not self._nodes[edge.digest].local
        }
        found = equal_record(node, snapshots, self._env.store)
        if found is None:
            return None
        alias = self._record(node, found.outputs)
        self._env.store.records.save(alias)
        return alias

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

    def _check_sources(self, node: Node) -> None:
        """Mark a step as unsure whose context changed while it was read, or that builds on such a one."""
        for edge in node.vertex.inputs:
            source = self._nodes[edge.digest]
            node.unsure = node.unsure or source.unsure
            if source.local and isinstance(source.vertex.op, SourceOp):
                changed = self._env.sources.changed(source.vertex.op)
                if changed:
                    node.unsure = True
                    node.reporter.warn(
                        f"{changed[0]!r} changed while it was copied: this step will run again next time"
                    )

    def _snapshot(self, vertex: Vertex, position: int) -> str | None:
        edge = vertex.inputs[position]
        return self._results[edge.digest].outputs[edge.index]

    def _publish(self, node: Node, result: Result) -> None:
        for snapshot in result.outputs:
            if snapshot:
                self._env.hold.snapshot(snapshot)
        self._results[node.vertex.digest] = result
        if self._env.on_snapshot is not None and node.vertex.digest in self._layered and result.outputs[0]:
            self._env.on_snapshot(node.vertex, result.outputs[0])

    def _step_lock(self, node: Node) -> AbstractContextManager[None]:
        """Between processes, one runs a step and the others take its result.

        A step that may not use the cache does not wait.
        """
        if node.vertex.meta.ignore_cache or isinstance(node.vertex.op, SourceOp):
            return nullcontext()
        return self._env.store.lock(
            f"step-{node.key}" if isinstance(node.vertex.op, ExecOp) else f"file-{node.key}",
            on_wait=self._env.cancel.check,
        )


def _worse(first: BaseException | None, second: BaseException) -> BaseException:
    """The failure to show: the first that is not just the cancellation that it caused."""
    if first is None or (isinstance(first, Cancelled) and not isinstance(second, Cancelled)):
        return second
    return first
