"""A build within the build: solves the definition that a file of an input holds (OPM-10)."""

from __future__ import annotations

from dataclasses import replace

from builder.cache.tree import View
from builder.errors import PathNotFound, SolveError
from builder.llb.definition import Vertex
from builder.llb.ops import DEFINITION_INPUT, LLB_BUILDER, BuildOp, ExecOp
from builder.llb.wire import decode
from builder.llb.wire_decode import MAX_BYTES
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.runnable import runnable
from builder.solver.types import Result

FILE_ATTR = "llbbuild.filename"
MAX_NESTING = 8


def run_nested(vertex: Vertex, results: dict[Digest, Result], env: SolveEnv) -> Result:
    """Solve the inner definition; its head is the result. Its steps have no more rights than the outer ones.

    Raises SolveError, GraphError, PathNotFound.
    """
    from builder.solver.solver import solve

    op = vertex.op
    assert isinstance(op, BuildOp)
    if op.builder != LLB_BUILDER:
        raise SolveError("a build op with a builder of its own is not supported", code="unsupported-op")
    if env.nesting >= MAX_NESTING:
        raise SolveError(f"builds are nested more than {MAX_NESTING} deep", code="nested-too-deep")
    data = _definition(op, vertex, results, env)
    definition = decode(data, vertex.platform).definition
    for inner in definition.vertices:
        if isinstance(inner.op, ExecOp) and inner.op.devices and "device" not in env.allow:
            raise SolveError(
                "devices are requested by a nested build but not allowed",
                code="entitlement-needed",
                hint="grant all of them for this build with --allow device",
            )
    env.place.leave()  # its steps need the place
    found = solve(
        runnable(definition),
        replace(env, nesting=env.nesting + 1, on_snapshot=None, direct=None, durations=None),
    )
    return Result((found.snapshot,))


def _definition(op: BuildOp, vertex: Vertex, results: dict[Digest, Result], env: SolveEnv) -> bytes:
    position = dict(op.inputs).get(DEFINITION_INPUT)
    if position is None or position < 0:
        raise SolveError(f"a build op needs an input {DEFINITION_INPUT}", code="bad-build-op")
    edge = vertex.inputs[position]
    snapshot = results[edge.digest].outputs[edge.index]
    name = dict(op.attrs).get(FILE_ATTR) or DEFINITION_INPUT
    layers = env.store.snapshots.layers(snapshot)
    with View(layers, userxattr=env.store.snapshots.userxattr) as tree:
        path = tree.resolve(name.strip("/"))
        if tree.lstat(path) is None:
            raise PathNotFound(f'the definition of a nested build "/{path}": not found', path=f"/{path}")
        return tree.read(path, MAX_BYTES)
