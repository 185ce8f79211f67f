"""The solver's facade: a definition in, the head's snapshot out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.llb.definition import Definition, Vertex
from builder.llb.ops import ExecOp, MergeOp, SourceOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.planning import Node, Nodes, ended, needed, plan, primary_input
from builder.solver.types import Result
from builder.solver.union import union


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
    group: str = ""
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
    return solve_all((definition,), env)[0]


def solve_all(definitions: Sequence[Definition], env: SolveEnv) -> tuple[Solved, ...]:
    """Realise the heads of several definitions at the same time; what they share is done once (SLV-04).

    Raises the first failure, which ends the others; with ``env.keep_going`` SeveralFailed when there are
    more.
    """
    whole = union(definitions)
    nodes: Nodes = {}
    with ended(nodes):
        plan(whole, env, nodes)
        if env.on_planned is not None:
            env.on_planned(nodes)
        _hold_records(nodes, env)
        if env.remote is not None:
            from builder.solver.remote import use_remote

            use_remote(definitions, nodes, env, env.remote)
    wanted: set[Digest] = set().union(*(needed(definition, nodes) for definition in definitions))
    results: dict[Digest, Result] = {}
    for digest, node in nodes.items():
        if node.record is not None:
            results[digest] = Result(node.record.outputs)
            node.outputs = node.record.outputs
    failures: list[BaseException] = [node.error for node in nodes.values() if node.error is not None]
    to_do = [node for digest, node in nodes.items() if digest in wanted and _is_open(node)]
    _report_cached(whole, nodes, wanted)
    layered = {k: v for definition in definitions for k, v in chain(definition, nodes).items()}
    _tell_snapshots(layered, results, env)
    if failures or any(not node.local for node in to_do):
        from builder.solver.driver import Driver
        from builder.solver.ops.execmounts import clear_cache_mounts

        anew = [node.vertex.op for node in to_do if node.vertex.meta.ignore_cache]
        clear_cache_mounts([op for op in anew if isinstance(op, ExecOp)], env)
        if env.remote is not None:
            kept = [node.vertex.op for node in to_do if not node.vertex.meta.ignore_cache]
            env.remote.fill_mounts([op for op in kept if isinstance(op, ExecOp)], env)
        with ended(nodes):
            Driver(env, nodes, results, layered).run(to_do, failures)
    return tuple(_solved(definition, nodes, results) for definition in definitions)


def _hold_records(nodes: Nodes, env: SolveEnv) -> None:
    """Hold what was found in the cache; what a prune took since is not found after all."""
    found = [node for node in nodes.values() if node.record is not None]
    if env.hold.snapshots([item for node in found if node.record for item in node.record.outputs if item]):
        return
    for node in found:
        if node.record and not env.hold.snapshots([item for item in node.record.outputs if item]):
            node.record = None


def _is_open(node: Node) -> bool:
    return node.record is None and node.remote is None and node.error is None and not node.blocked


def _solved(definition: Definition, everything: Nodes, results: dict[Digest, Result]) -> Solved:
    head = definition.head
    nodes = {vertex.digest: everything[vertex.digest] for vertex in definition.vertices}
    steps = [node for node in nodes.values() if not isinstance(node.vertex.op, SourceOp)]
    elsewhere = head is not None and head.digest not in results and nodes[head.digest].remote is not None
    return Solved(
        snapshot=None if head is None or elsewhere else results[head.digest].outputs[head.index],
        cached_steps=sum(1 for node in steps if node.record is not None or node.remote is not None),
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
        group=vertex.meta.progress_group,
        outputs=result.outputs if result is not None else None,
    )


def _report_cached(definition: Definition, nodes: Nodes, wanted: set[Digest]) -> None:
    """Show every step whose result is there, and every source that only feeds such steps, as cached.

    Local sources are read in place: they are done once their content is known.
    """
    for vertex in definition.vertices:
        node = nodes[vertex.digest]
        if node.record is not None or node.remote is not None:
            node.reporter.cached()
        elif node.transfer is not None:
            node.transfer.done()
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
