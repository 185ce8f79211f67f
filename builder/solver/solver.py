"""The solver's facade: a definition in, the head's snapshot out."""

from __future__ import annotations

from dataclasses import dataclass

from builder.llb.definition import Definition, Vertex
from builder.llb.ops import ExecOp, MergeOp, SourceOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.planning import Node, Nodes, needed, plan, primary_input
from builder.solver.types import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedStep:
    """One vertex of a solve: how it is shown, the key of its record ('' for a source) and, if the solve had
    a use for them, its outputs.
    """

    digest: str
    name: str
    inputs: tuple[str, ...]
    key: str
    source: str
    outputs: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What a solve gave. Counts are of steps (sources not counted)."""

    snapshot: str | None
    cached_steps: int
    total_steps: int
    steps: tuple[SolvedStep, ...] = ()
    sure: bool = True
    """False when a context changed while it was read."""


def solve(definition: Definition, env: SolveEnv) -> Solved:
    """Realise the head of ``definition``; everything already there is used, the rest runs.

    Raises SolveError.
    """
    nodes = plan(definition, env)
    if env.on_planned is not None:
        env.on_planned(nodes)
    wanted = needed(definition, nodes)
    results: dict[Digest, Result] = {}
    for digest, node in nodes.items():
        if node.record is not None:
            results[digest] = Result(node.record.outputs)
            for snapshot in node.record.outputs:
                if snapshot:
                    env.hold.snapshot(snapshot)
    to_do = [node for digest, node in nodes.items() if digest in wanted and node.record is None]
    _report_cached(definition, nodes, wanted)
    layered = chain(definition, nodes)
    _tell_snapshots(layered, results, env)
    if any(not node.local for node in to_do):
        from builder.solver.driver import Driver
        from builder.solver.ops.exec import clear_cache_mounts

        anew = [node.vertex.op for node in to_do if node.vertex.meta.ignore_cache]
        clear_cache_mounts([op for op in anew if isinstance(op, ExecOp)], env)
        Driver(env, nodes, results, layered).run(to_do)
    head = definition.head
    steps = [node for node in nodes.values() if not isinstance(node.vertex.op, SourceOp)]
    return Solved(
        snapshot=None if head is None else results[head.digest].outputs[head.index],
        cached_steps=sum(1 for node in steps if node.record is not None),
        total_steps=len(steps),
        steps=tuple(_step(node, results.get(digest)) for digest, node in nodes.items()),
        sure=not any(node.unsure for node in nodes.values()),
    )


def chain(definition: Definition, nodes: Nodes) -> dict[Digest, Vertex]:
    """The vertices whose results are layers of the head, from the head down."""
    found: dict[Digest, Vertex] = {}
    if definition.head is None:
        return found
    stack = [definition.head.digest]
    while stack:
        vertex = nodes[stack.pop()].vertex
        if vertex.digest in found or isinstance(vertex.op, SourceOp):
            continue
        found[vertex.digest] = vertex
        if isinstance(vertex.op, MergeOp):
            stack.extend(vertex.inputs[position].digest for position in vertex.op.inputs)
        else:
            position = primary_input(vertex)
            if position >= 0:
                stack.append(vertex.inputs[position].digest)
    return found


def _step(node: Node, result: Result | None) -> SolvedStep:
    vertex = node.vertex
    is_source = isinstance(vertex.op, SourceOp)
    return SolvedStep(
        digest=str(vertex.digest),
        name=vertex.name,
        inputs=tuple(str(edge.digest) for edge in vertex.inputs),
        key="" if is_source else node.key,
        source=vertex.op.identifier if isinstance(vertex.op, SourceOp) else "",
        outputs=result.outputs if result is not None else None,
    )


def _report_cached(definition: Definition, nodes: Nodes, wanted: set[Digest]) -> None:
    """Show every step whose result is there, and every source that only feeds such steps, as cached.

    Local sources are read in place: they are done once their content is known.
    """
    for vertex in definition.vertices:
        node = nodes[vertex.digest]
        if node.record is not None:
            node.reporter.cached()
        elif node.local:
            node.reporter.done()
        elif isinstance(vertex.op, SourceOp) and vertex.digest not in wanted:
            node.reporter.cached()


def _tell_snapshots(layered: dict[Digest, Vertex], results: dict[Digest, Result], env: SolveEnv) -> None:
    if env.on_snapshot is None:
        return
    for digest, vertex in layered.items():
        result = results.get(digest)
        if result is not None and result.outputs and result.outputs[0]:
            env.on_snapshot(vertex, result.outputs[0])
