"""Samples of what the machine has done and has left, for provenance with ``capture-usage`` (ATT-05)."""

from __future__ import annotations

import time
from typing import Any

from builder.exporter.times import rfc3339

_CPU = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guestNice")
_PROCESSES = {"ctxt": "contextSwitches", "processes": "processCreated", "procs_running": "processesRunning"}
_MEMORY = {
    "MemTotal": "total", "MemFree": "free", "MemAvailable": "available", "Buffers": "buffers",
    "Cached": "cached", "Active": "active", "Inactive": "inactive", "SwapTotal": "swapTotal",
    "SwapFree": "swapFree", "Dirty": "dirty", "Writeback": "writeback", "Slab": "slab",
}  # fmt: skip
_TICKS_PER_S = 100


def sample() -> dict[str, Any]:
    """Now: processor times in seconds, counts of processes, memory in bytes; as far as they can be read."""
    found: dict[str, Any] = {"timestamp": rfc3339(time.time_ns())}
    processes: dict[str, int] = {}
    for name, *values in _lines("/proc/stat"):
        if name == "cpu":
            pairs = zip(_CPU, values, strict=False)
            found["cpuStat"] = {key: int(value) / _TICKS_PER_S for key, value in pairs}
        elif name in _PROCESSES:
            processes[_PROCESSES[name]] = int(values[0])
    if processes:
        found["procStat"] = processes
    memory = {
        _MEMORY[name.rstrip(":")]: int(values[0]) * 1024
        for name, *values in _lines("/proc/meminfo")
        if name.rstrip(":") in _MEMORY
    }
    if memory:
        found["memoryStat"] = memory
    return found


def step_sample(figures: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """What a step's container used up until now, grouped as in BuildKit's samples (ATT-08)."""
    found: dict[str, Any] = {"timestamp": rfc3339(time.time_ns())}
    for name, value in figures:
        group, _, key = name.partition(".")
        found.setdefault(group, {})[key] = value
    return found


def _lines(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return [line.split() for line in file if line.strip()]
    except OSError:
        return []
