"""How each kind of operation runs: inputs' snapshots in, new snapshots out."""

from __future__ import annotations

from typing import assert_never

from builder.errors import GraphError
from builder.llb.definition import Vertex
from builder.llb.ops import BuildOp, DiffOp, ExecOp, FileOp, MergeOp, PassthroughOp, SourceOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.planning import Nodes
from builder.solver.reporter import Reporter
from builder.solver.types import Result


def run_step(
    vertex: Vertex, nodes: Nodes, results: dict[Digest, Result], env: SolveEnv, reporter: Reporter
) -> Result:
    """Run one step whose inputs all have results.

    Raises SolveError, StoreError, ContainerError, Cancelled.
    """
    match vertex.op:
        case ExecOp():
            from builder.solver.ops.exec import run_exec

            return run_exec(vertex, nodes, results, env, reporter)
        case FileOp():
            from builder.solver.ops.file import run_file

            return run_file(vertex, nodes, results, env, reporter)
        case MergeOp():
            from builder.solver.ops.merge import run_merge

            return run_merge(vertex, results, env)
        case DiffOp():
            from builder.solver.ops.merge import run_diff

            return run_diff(vertex, results, env)
        case BuildOp():
            from builder.solver.ops.nested import run_nested

            return run_nested(vertex, results, env)
        case PassthroughOp():
            edges = [vertex.inputs[position] for position in vertex.op.outputs]
            return Result(tuple(results[edge.digest].outputs[edge.index] for edge in edges))
        case SourceOp():
            raise GraphError("a source is fetched, not run")
        case _:
            assert_never(vertex.op)
