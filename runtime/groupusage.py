"""What a container used up, read from its control groups of either version just before they go (ATT-08).

Figures are pairs of a name and a number, so that they can travel to the launcher's client; what a machine
does not count is left out. Names are those of BuildKit's resource samples, a group and a field.
"""

from __future__ import annotations

from runtime.hierarchies import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cgroups import Group

Usage = tuple[tuple[str, int], ...]
_NUMBERS = (
    ("cpuStat.usageNanos", "cpuacct", "cpuacct.usage", 1),
    ("cpuStat.userNanos", "cpuacct", "cpuacct.usage_user", 1),
    ("cpuStat.systemNanos", "cpuacct", "cpuacct.usage_sys", 1),
    ("memoryStat.peak", "memory", "memory.max_usage_in_bytes", 1),
    ("memoryStat.peak", "", "memory.peak", 1),
)
_KEYED = (
    ("cpuStat.usageNanos", "", "cpu.stat", "usage_usec", 1000),
    ("cpuStat.userNanos", "", "cpu.stat", "user_usec", 1000),
    ("cpuStat.systemNanos", "", "cpu.stat", "system_usec", 1000),
    ("cpuStat.nrPeriods", "", "cpu.stat", "nr_periods", 1),
    ("cpuStat.nrThrottled", "", "cpu.stat", "nr_throttled", 1),
    ("cpuStat.throttledNanos", "", "cpu.stat", "throttled_usec", 1000),
    ("cpuStat.nrPeriods", "cpu", "cpu.stat", "nr_periods", 1),
    ("cpuStat.nrThrottled", "cpu", "cpu.stat", "nr_throttled", 1),
    ("cpuStat.throttledNanos", "cpu", "cpu.stat", "throttled_time", 1),
    ("memoryStat.pgfault", "", "memory.stat", "pgfault", 1),
    ("memoryStat.pgmajfault", "", "memory.stat", "pgmajfault", 1),
    ("memoryStat.pgfault", "memory", "memory.stat", "total_pgfault", 1),
    ("memoryStat.pgmajfault", "memory", "memory.stat", "total_pgmajfault", 1),
)


def measure(group: Group) -> Usage:
    """The figures as they stand; where both versions count something, version 1 does."""
    found: dict[str, int] = {}
    for name, controller, file, unit in _NUMBERS:
        text = _text(group, controller, file).strip()
        if text.isdigit():
            found.setdefault(name, int(text) * unit)
    for name, controller, file, key, unit in _KEYED:
        for line in _text(group, controller, file).splitlines():
            left, _, value = line.partition(" ")
            if left == key and value.strip().isdigit():
                found.setdefault(name, int(value) * unit)
    return (*found.items(), *_io(group))


def _io(group: Group) -> Usage:
    """Bytes and operations of all disks."""
    found: dict[str, int] = {}
    names = {"rbytes": "readBytes", "wbytes": "writeBytes", "rios": "readIOs", "wios": "writeIOs"}
    for line in _text(group, "", "io.stat").splitlines():
        for word in line.split()[1:]:
            key, _, value = word.partition("=")
            if key in names and value.isdigit():
                found[names[key]] = found.get(names[key], 0) + int(value)
    for file, end in (("blkio.throttle.io_service_bytes", "Bytes"), ("blkio.throttle.io_serviced", "IOs")):
        for line in _text(group, "blkio", file).splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in ("Read", "Write") and words[2].isdigit():
                name = words[1].lower() + end
                found[name] = found.get(name, 0) + int(words[2])
    return tuple((f"ioStat.{name}", value) for name, value in found.items())


def _text(group: Group, controller: str, file: str) -> str:
    place = group.v1.get(controller, "") if controller else group.unified
    if not place:
        return ""
    try:
        return read(f"{place}/{file}")
    except OSError:
        return ""
