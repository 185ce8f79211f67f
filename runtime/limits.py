"""Limits as the writes that put them in force, in the files of cgroup version 1 and version 2.

Nothing is written here: ``cgroups`` does that.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Setting = tuple[str, str, str]
"""Controller, file (version 1's name, or ``v2.`` and version 2's), value."""

_V2_NAMES = {
    "memory.limit_in_bytes": "memory.max",
    "memory.soft_limit_in_bytes": "memory.low",
    "cpuset.cpus": "cpuset.cpus",
    "cpuset.mems": "cpuset.mems",
    "pids.max": "pids.max",
    "v2.memory.swap.max": "memory.swap.max",
    "v2.cpu.max": "cpu.max",
}


def to_v2(file: str, value: str) -> tuple[str, str]:
    """The version 2 file and value of a version 1 setting; ``""`` for what version 2 does not have."""
    if file == "cpu.shares":
        shares = min(max(int(value), 2), 262_144)
        return "cpu.weight", str(1 + (shares - 2) * 9999 // 262_142)
    if file == "blkio.weight":
        return "io.weight", f"default {min(max(int(value), 10), 1000) * 10}"
    return _V2_NAMES.get(file, ""), value


def settings(limits: Mapping[str, int | str | bool], *, v1: bool) -> tuple[Setting, ...]:
    """The writes that put limits in force, in order; ``limits`` holds the fields of ``spec.Limits`` that are
    set."""
    rows: list[Setting] = []
    memory, swap = limits.get("memory_bytes"), limits.get("memory_swap_bytes")
    if memory is not None:
        rows.append(("memory", "memory.limit_in_bytes", str(memory)))
    if swap is not None:
        if v1:
            rows.append(("memory", "memory.memsw.limit_in_bytes", str(swap)))
        else:
            only_swap = "max" if int(swap) < 0 else str(max(int(swap) - int(memory or 0), 0))
            rows.append(("memory", "v2.memory.swap.max", only_swap))
    for field, controller, file in _PLAIN:
        if field in limits:
            rows.append((controller, file, str(limits[field])))
    if limits.get("oom_kill_disable"):
        rows.append(("memory", "memory.oom_control", "1"))
    rows += _cpu_settings(limits, v1=v1)
    if "blkio_weight" in limits:
        rows.append(("blkio" if v1 else "io", "blkio.weight", str(limits["blkio_weight"])))
    if "pids" in limits:
        pids = int(limits["pids"])
        rows.append(("pids", "pids.max", "max" if pids < 0 else str(pids)))
    return tuple(rows)


_PLAIN = (
    ("memory_reservation_bytes", "memory", "memory.soft_limit_in_bytes"),
    ("memory_swappiness", "memory", "memory.swappiness"),
    ("cpu_shares", "cpu", "cpu.shares"),
    ("cpuset_cpus", "cpuset", "cpuset.cpus"),
    ("cpuset_mems", "cpuset", "cpuset.mems"),
)


def _cpu_settings(limits: Mapping[str, int | str | bool], *, v1: bool) -> list[Setting]:
    quota, period = limits.get("cpu_quota_us"), limits.get("cpu_period_us")
    if not v1:
        if quota is None and period is None:
            return []
        budget = "max" if quota is None or int(quota) < 0 else str(quota)
        return [("cpu", "v2.cpu.max", f"{budget} {period or 100_000}")]
    rows: list[Setting] = []
    if period is not None:
        rows.append(("cpu", "cpu.cfs_period_us", str(period)))
    if quota is not None:
        rows.append(("cpu", "cpu.cfs_quota_us", str(quota)))
    return rows
