"""Analysis and drawing of a definition (the door to networkx, which is imported on first use)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.llb.definition import Definition
from builder.llb.ops import DiffOp, ExecOp, FileOp, MergeOp, SourceOp

if TYPE_CHECKING:
    import networkx

_SHAPES = {SourceOp: "ellipse", ExecOp: "box", FileOp: "note", MergeOp: "invtriangle", DiffOp: "doublecircle"}


def to_networkx(definition: Definition) -> networkx.MultiDiGraph[str]:
    """The graph with edges from input to user; nodes carry ``vertex``, edges the input's ``position``."""
    import networkx

    graph: networkx.MultiDiGraph[str] = networkx.MultiDiGraph()
    for vertex in definition.vertices:
        graph.add_node(str(vertex.digest), vertex=vertex)
        for position, edge in enumerate(vertex.inputs):
            graph.add_edge(str(edge.digest), str(vertex.digest), position=position, output=edge.index)
    return graph


def critical_path(definition: Definition) -> tuple[str, ...]:
    """Digests along the longest chain of steps, first to last."""
    import networkx

    longest: list[str] = networkx.dag_longest_path(networkx.DiGraph(to_networkx(definition)))
    return tuple(longest)


def to_dot(definition: Definition) -> str:
    """The graph in DOT: shapes by kind of op, edges labelled with where they are mounted (OPJ-02)."""
    graph = to_networkx(definition)
    lines = ["digraph {"]
    for digest, data in graph.nodes(data=True):
        vertex = data["vertex"]
        shape = _SHAPES.get(type(vertex.op), "plaintext")
        lines.append(f'  "{digest}" [label={_quote(vertex.name)} shape="{shape}"];')
    for start, end, data in graph.edges(data=True):
        label = _edge_label(graph.nodes[end]["vertex"].op, data["position"])
        suffix = f" [label={_quote(label)}]" if label else ""
        lines.append(f'  "{start}" -> "{end}"{suffix};')
    return "\n".join([*lines, "}"]) + "\n"


def _edge_label(op: Any, position: int) -> str:
    if not isinstance(op, ExecOp):
        return ""
    return ", ".join(mount.dest for mount in op.mounts if mount.input == position and mount.dest != "/")


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
