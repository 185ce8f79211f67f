"""What goes on in a running container: ``top``, ``stats``, ``port`` (IO-TOP, IO-STATS, IO-PORT)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from builder.cache.store import Store
from builder.containers.lookup import find
from builder.containers.types import Conflict, Container
from builder.errors import PybuildError

_NO_LIMIT = 1 << 60


class NoPublicPort(PybuildError):
    """A port of a container is not published."""

    code = "port-not-published"


@dataclass(frozen=True, slots=True)
class PortRow:
    """One published port."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counters of a container at one moment; bytes and nanoseconds. ``limit`` is the machine's memory when
    unlimited.
    """

    read_ns: int
    cpu_ns: int
    system_cpu_ns: int
    cpus: int
    memory: int
    limit: int
    received: int
    sent: int
    blocks_read: int
    blocks_written: int
    pids: int


def port(store: Store, ref: str, text: str = "") -> tuple[PortRow, ...]:
    """Published ports, or those of one container port ``PORT[/PROTO]``; NoPublicPort when it has none."""
    container = find(store, ref)
    rows = tuple(
        PortRow(p.container_port, p.protocol, p.host_ip, p.host_port) for p in container.state.network.ports
    )
    if not text:
        return tuple(sorted(rows, key=lambda row: (row.container_port, row.protocol)))
    number, _, protocol = text.partition("/")
    wanted = (number, protocol or "tcp")
    found = tuple(row for row in rows if (str(row.container_port), row.protocol) == wanted)
    if not found:
        raise NoPublicPort(f"No public port '{number}/{protocol or 'tcp'}' published for {container.name}")
    return found


def top(
    store: Store, ref: str, ps_args: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Titles and rows of the host's ``ps`` for the container's processes."""
    import shutil
    import subprocess

    container = _running(store, ref)
    pids = {str(pid) for pid in _pids(container)}
    if shutil.which("ps") is None:
        return _top_from_proc(sorted(pids, key=int))
    done = subprocess.run(["ps", *(ps_args or ("-ef",))], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise Conflict(f"ps failed: {done.stderr.strip() or 'no output'}", code="ps-failed")
    titles = tuple(lines[0].split())
    if "PID" not in titles:
        raise Conflict("Couldn't find PID field in ps output", code="ps-failed")
    at = titles.index("PID")
    rows = (tuple(line.split(None, len(titles) - 1)) for line in lines[1:])
    return titles, tuple(row for row in rows if len(row) > at and row[at] in pids)


def _top_from_proc(pids: list[str]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Without a ``ps`` on the host: what /proc says."""
    rows = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                parent = file.read().rpartition(b") ")[2].split()[1].decode()
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            rows.append((str(os.stat(f"/proc/{pid}").st_uid), pid, parent, command))
        except (OSError, IndexError):
            continue
    return ("UID", "PID", "PPID", "CMD"), tuple(rows)


def _running(store: Store, ref: str) -> Container:
    container = find(store, ref)
    if not container.state.process.alive():
        raise Conflict(f"Container {ref} is not running", code="container-not-running")
    return container


def _pids(container: Container) -> tuple[int, ...]:
    for place in container.state.cgroups:
        found = _read(f"{place}/cgroup.procs")
        if found:
            return tuple(int(word) for word in found.split())
    return (container.state.process.pid,)


def sample(store: Store, ref: str) -> Sample:
    """The counters of a running container now."""
    container = _running(store, ref)
    places = container.state.cgroups
    received, sent = _network(container.state.process.pid)
    blocks_read, blocks_written = _blocks(places)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _first_number(places, "memory.max", "memory.limit_in_bytes")
    return Sample(
        read_ns=time.time_ns(),
        cpu_ns=_cpu_ns(places),
        system_cpu_ns=_system_cpu_ns(),
        cpus=os.cpu_count() or 1,
        memory=_memory(places) or _resident(_pids(container)),
        limit=limit if limit is not None and limit < min(_NO_LIMIT, total) else total,
        received=received,
        sent=sent,
        blocks_read=blocks_read,
        blocks_written=blocks_written,
        pids=len(_pids(container)),
    )


def cpu_percent(before: Sample, now: Sample) -> float:
    """Share of one processor, times 100, between two samples; 0 when nothing can be said."""
    used, passed = now.cpu_ns - before.cpu_ns, now.system_cpu_ns - before.system_cpu_ns
    if used <= 0 or passed <= 0:
        return 0.0
    return used / passed * now.cpus * 100.0


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _first_number(places: tuple[str, ...], *names: str) -> int | None:
    for place in places:
        for name in names:
            text = _read(f"{place}/{name}").strip()
            if text.isdigit():
                return int(text)
    return None


def _keyed(text: str, key: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.strip().isdigit():
            return int(value)
    return 0


def _cpu_ns(places: tuple[str, ...]) -> int:
    found = _first_number(places, "cpuacct.usage")
    if found is not None:
        return found
    return max((_keyed(_read(f"{place}/cpu.stat"), "usage_usec") for place in places), default=0) * 1000


def _memory(places: tuple[str, ...]) -> int:
    """Used memory without the part of the page cache that can go at once."""
    for place in places:
        for name, key in (
            ("memory.current", "inactive_file"),
            ("memory.usage_in_bytes", "total_inactive_file"),
        ):
            text = _read(f"{place}/{name}").strip()
            if text.isdigit():
                return max(0, int(text) - _keyed(_read(f"{place}/memory.stat"), key))
    return 0


def _resident(pids: tuple[int, ...]) -> int:
    """Without a memory group: what the processes have in memory, shared pages counted for each."""
    words = (_read(f"/proc/{pid}/statm").split() for pid in pids)
    return sum(int(found[1]) for found in words if len(found) > 1) * os.sysconf("SC_PAGE_SIZE")


def _system_cpu_ns() -> int:
    words = _read("/proc/stat").split("\n", 1)[0].split()[1:8]
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(int(word) for word in words) * (1_000_000_000 // ticks)


def _network(pid: int) -> tuple[int, int]:
    received = sent = 0
    for line in _read(f"/proc/{pid}/net/dev").splitlines()[2:]:
        name, _, counters = line.partition(":")
        words = counters.split()
        if name.strip() != "lo" and len(words) > 8:
            received, sent = received + int(words[0]), sent + int(words[8])
    return received, sent


def _blocks(places: tuple[str, ...]) -> tuple[int, int]:
    read = written = 0
    for place in places:
        for line in _read(f"{place}/io.stat").splitlines():
            fields = dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)
            read, written = read + int(fields.get("rbytes", 0)), written + int(fields.get("wbytes", 0))
        for line in _read(f"{place}/blkio.throttle.io_service_bytes").splitlines():
            words = line.split()
            if len(words) == 3 and words[2].isdigit():
                read += int(words[2]) if words[1] == "Read" else 0
                written += int(words[2]) if words[1] == "Write" else 0
    return read, written
