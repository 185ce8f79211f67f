"""Analysis of a definition (the door to networkx, which is imported on first use)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.llb.definition import Definition

if TYPE_CHECKING:
    import networkx


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
