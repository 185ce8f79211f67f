"""Before anything runs: the cache key of every step, and which results are there already.

Keys depend only on operations, on immutable source identities and on selected context content, never on
running a step, so all of them are known first. A step whose record exists needs none of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from builder.cache import keys
from builder.cache.types import CacheRecord
from builder.errors import Cancelled, PybuildError, SolveError
from builder.frontend.redact import redact
from builder.llb.definition import Definition, Vertex
from builder.llb.ops import EMPTY, BuildOp, Copy, ExecOp, FileOp, SourceOp
from builder.oci.digest import Digest
from builder.solver.env import SolveEnv
from builder.solver.reporter import Reporter
from builder.sources.transfer import Transfer


@dataclass(slots=True)
class Node:
    """A vertex with what planning found out about it."""

    vertex: Vertex
    reporter: Reporter
    op: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[keys.InputPart, ...] = ()
    key: str = ""
    local: bool = False
    pin: str = ""
    """The commit or content of a git or http source, as ``algorithm:hex``."""
    transfer: Transfer | None = None
    """What was read of a local source."""
    tainted: bool = False
    """No stored key may answer for it: it, or a step before it, must run anew."""
    record: CacheRecord | None = None
    remote: tuple[object, ...] | None = None
    """Results of imported caches, best first, in the terms of whoever found them (``solver.remote``)."""
    outputs: tuple[str | None, ...] | None = None
    """Its result, once there is one."""
    error: SolveError | None = None
    """Why it cannot even be keyed."""
    blocked: bool = False
    """It needs a step of which that is so."""
    unsure: bool = False
    """What it read changed meanwhile: its result is not what its key says, nor is anything made from it."""


Nodes = dict[Digest, Node]


def plan(definition: Definition, env: SolveEnv, nodes: Nodes) -> None:
    """Key and probe every vertex, inputs first, into ``nodes``.

    Raises what a source raises, with the step's name and lines; with ``env.keep_going`` such a failure is
    kept in its node.
    """
    for vertex in definition.vertices:
        env.cancel.check()
        node = Node(vertex=vertex, reporter=Reporter(vertex, env.emit))
        nodes[vertex.digest] = node
        inputs = [nodes[edge.digest] for edge in vertex.inputs]
        node.blocked = any(item.blocked or item.error is not None for item in inputs)
        if node.blocked:
            continue
        try:
            _key_reported(node, nodes, env)
        except SolveError as error:
            if not env.keep_going:
                raise
            node.error = error
            continue
        if not node.local and not node.tainted and not isinstance(vertex.op, SourceOp):
            node.record = env.store.records.lookup(node.key)


@contextmanager
def ended(nodes: Nodes) -> Iterator[None]:
    """Whatever was shown of a step has an end when something fails inside (PRG-03).

    A local source is done when it was looked at; everything else, and all when the build is cancelled, was
    stopped.
    """
    try:
        yield
    except BaseException as error:
        for node in nodes.values():
            if node.reporter.is_open and node.local and not isinstance(error, Cancelled):
                node.reporter.done()
            elif node.reporter.is_open:
                node.reporter.cancelled()
        raise


def _fail(node: Node, error: PybuildError, nodes: Nodes, env: SolveEnv) -> None:
    """Show the failure. When it ends the build, the local sources, only looked at here, end before it."""
    for other in () if env.keep_going else nodes.values():
        if other.local:
            other.reporter.done()
    node.reporter.fail(error.message)


def _key_reported(node: Node, nodes: Nodes, env: SolveEnv) -> None:
    vertex = node.vertex
    try:
        _key(node, nodes, env)
    except Cancelled:
        node.reporter.cancelled()
        raise
    except SolveError as error:
        attribute(error, vertex)
        _fail(node, error, nodes, env)
        raise
    except PybuildError as error:
        _fail(node, error, nodes, env)
        raise attribute(
            SolveError(error.message, context=error.context, hint=error.hint, code=error.code), vertex
        ) from error


def attribute(error: SolveError, vertex: Vertex) -> SolveError:
    """Say in ``error`` which step it belongs to, unless it says so already."""
    if not error.vertex_name:
        error.vertex_name = vertex.name
        error.vertex_digest = str(vertex.digest)
    if not error.filename and vertex.meta.source is not None:
        error.filename = vertex.meta.source.filename
        error.first_line = vertex.meta.source.start
        error.last_line = vertex.meta.source.end
    return error


def needed(definition: Definition, nodes: Nodes) -> set[Digest]:
    """The vertices that must be realised: the head, and the inputs of every step without a record."""
    if definition.head is None:
        return set()
    wanted: set[Digest] = set()
    stack = [definition.head.digest]
    while stack:
        digest = stack.pop()
        if digest in wanted:
            continue
        wanted.add(digest)
        node = nodes[digest]
        if node.record is None and node.remote is None:
            stack.extend(edge.digest for edge in node.vertex.inputs)
    return wanted


def _key(node: Node, nodes: Nodes, env: SolveEnv) -> None:
    vertex = node.vertex
    if isinstance(vertex.op, SourceOp):
        node.local = env.sources.tree(vertex.op) is not None
        node.tainted = vertex.meta.ignore_cache
        if node.local:
            node.reporter.start()
            node.transfer = Transfer(vertex.op.identifier.removeprefix("local://"), node.reporter)
        else:
            node.key = _source_key(node, vertex.op, env)
            node.pin = env.sources.pin(vertex.op)
        return
    node.op, node.parts = keys.op_digest(vertex.op, vertex.platform)
    node.tainted = (
        vertex.meta.ignore_cache
        or isinstance(vertex.op, BuildOp)  # its own steps are looked up one by one
        or any(nodes[edge.digest].tainted for edge in vertex.inputs)
    )
    node.inputs = tuple(_input_part(node, position, nodes, env) for position in range(len(vertex.inputs)))
    node.key = keys.step_key(node.op, node.inputs)


def _source_key(node: Node, op: SourceOp, env: SolveEnv) -> str:
    def ask(_: bool = True) -> str:
        return env.sources.key(op, node.vertex.platform, node.reporter)

    if not env.retries:
        return ask()
    from builder.solver.retrying import retrying

    return retrying(ask, env.retries, say=node.reporter.say, cancel=env.cancel)


def _input_part(node: Node, position: int, nodes: Nodes, env: SolveEnv) -> keys.InputPart:
    edge = node.vertex.inputs[position]
    source = nodes[edge.digest]
    selector = selected_paths(node.vertex, position)
    if not source.local:
        key = source.key if edge.index == 0 else f"{source.key}@{edge.index}"
        return keys.InputPart(key=key, selector="\0".join(selector))
    assert isinstance(source.vertex.op, SourceOp)
    on_read = source.transfer.add if source.transfer is not None else None
    copies = copies_of(node.vertex, position)
    return keys.InputPart(content=env.sources.select(source.vertex.op, copies, on_read))


def selected_paths(vertex: Vertex, position: int) -> tuple[str, ...]:
    """The paths of an input that a step mounts or copies; () = all of it."""
    op = vertex.op
    if isinstance(op, FileOp) and all(item.input != position for item in op.actions):
        return tuple(copy.src for copy in copies_of(vertex, position))
    if not isinstance(op, ExecOp):
        return ()
    paths = {mount.selector for mount in op.mounts if mount.input == position}
    return () if paths == {""} else tuple(sorted(paths))


def copies_of(vertex: Vertex, position: int) -> tuple[Copy, ...]:
    """What a step reads of an input, as copies: its copy actions, or one copy per mounted path, those below
    another left out (CKY-04).
    """
    op = vertex.op
    if isinstance(op, FileOp):
        return tuple(
            item.action for item in op.actions if item.secondary == position and isinstance(item.action, Copy)
        )
    if isinstance(op, ExecOp):
        paths = {mount.selector.strip("/") for mount in op.mounts if mount.input == position}
        return tuple(
            Copy(src=f"/{path}", dest="/", follow_symlink=True)
            for path in sorted(paths)
            if not any(
                path != other and f"{path}/".startswith(f"{other}/" if other else "") for other in paths
            )
        )
    return (Copy(src="/", dest="/"),)


def primary_input(vertex: Vertex) -> int:
    """The position of the input that a step's first result is built on; -1 when there is none."""
    op = vertex.op
    if isinstance(op, ExecOp):
        return next((mount.input for mount in op.mounts if mount.dest == "/"), EMPTY)
    if isinstance(op, FileOp):
        count = len(vertex.inputs)
        position = next((item.input for item in reversed(op.actions) if item.output == 0), EMPTY)
        while position >= count:
            position = op.actions[position - count].input
        return position
    return EMPTY


def record_parts(node: Node, nodes: Nodes, inputs: Mapping[int, str | None]) -> dict[str, Any]:
    """What is kept beside a key to explain a later miss: the operation, and each input by key and content.

    An input that is a step of its own is named, one that comes from outside is identified.
    """
    meta = node.vertex.meta
    sources = [nodes[edge.digest] for edge in node.vertex.inputs]
    return {
        **({"platform": str(node.vertex.platform)} if node.vertex.platform else {}),
        **node.parts,
        "inputs": [
            {
                **part.to_json(),
                "snapshot": inputs.get(position) or "",
                "name": _input_name(source.vertex),
                **({"pin": source.pin} if source.pin else {}),
            }
            for position, (part, source) in enumerate(zip(node.inputs, sources, strict=False))
        ],
        "command": meta.command or node.vertex.name,
        **({"args": list(meta.arguments)} if meta.arguments else {}),
    }


def _input_name(vertex: Vertex) -> str:
    return redact(vertex.op.identifier) if isinstance(vertex.op, SourceOp) else vertex.name
