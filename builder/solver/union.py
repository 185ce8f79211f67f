"""Several definitions as one graph, so that what they share is done once (SLV-04, SLV-11, SLV-18)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from builder.llb.definition import Definition, LinuxResources, Vertex, VertexMeta
from builder.oci.digest import Digest


def union(definitions: Sequence[Definition]) -> Definition:
    """Every vertex of ``definitions`` once, inputs first; it has no head of its own.

    A vertex that several ask for gets the most relaxed limits of them, and runs anew if one wants that.
    """
    if len(definitions) == 1:
        return definitions[0]
    found: dict[Digest, Vertex] = {}
    for definition in definitions:
        for vertex in definition.vertices:
            known = found.get(vertex.digest)
            if known is None:
                found[vertex.digest] = vertex
            elif known.meta != vertex.meta:
                found[vertex.digest] = replace(known, meta=_shared(known.meta, vertex.meta))
    return Definition(vertices=tuple(found.values()))


def _shared(one: VertexMeta, other: VertexMeta) -> VertexMeta:
    return replace(
        one,
        ignore_cache=one.ignore_cache or other.ignore_cache,
        export_cache=one.export_cache or other.export_cache,
        resources=relaxed(one.resources, other.resources),
    )


def relaxed(one: LinuxResources | None, other: LinuxResources | None) -> LinuxResources | None:
    """The limits that leave most room; what one of the two does not limit is not limited (SLV-11)."""
    if one is None or other is None:
        return None
    by_quota = one if _share(one) >= _share(other) else other
    return LinuxResources(
        memory_bytes=_larger(one.memory_bytes, other.memory_bytes),
        memory_swap_bytes=_swap(one.memory_swap_bytes, other.memory_swap_bytes),
        cpu_shares=_larger(one.cpu_shares, other.cpu_shares),
        cpu_period=by_quota.cpu_period,
        cpu_quota=by_quota.cpu_quota,
        cpuset_cpus=_either(one.cpuset_cpus, other.cpuset_cpus),
        cpuset_mems=_either(one.cpuset_mems, other.cpuset_mems),
    )


def _larger(one: int, other: int) -> int:
    return max(one, other) if one and other else 0


def _swap(one: int, other: int) -> int:
    return -1 if -1 in (one, other) else _larger(one, other)


def _share(limits: LinuxResources) -> float:
    """CPU time as a part of one CPU's."""
    if limits.cpu_quota <= 0:
        return float("inf")
    return limits.cpu_quota / (limits.cpu_period or 100_000)


def _either(one: str, other: str) -> str:
    """A list of numbers and ranges (``0-2,4``) that allows what either does; all when one is not limited."""
    if not one or not other:
        return ""
    return one if one == other else f"{one},{other}"
