"""What is on disk about one container, and whether it is still true.

A container directory belongs to one container::

    containers/<id>/                 0700
      spec.json                      what to run: specification and monitor options; replaced while stopped
      only state.json                     what became of it; always replaced whole, never edited in place
      monitor.lock                   flock held by the monitor for as long as it lives attach.sock
      the monitor's door, present while it lives <id>-json.log                  output, one JSON object per
      line hosts  resolv.conf  hostname   generated files that are bind-mounted

While a monitor lives it is the only writer of ``state.json``. What the file says about processes is never
believed by pid alone: a process is the same one only if boot, pid and start time agree
(``/proc/<pid>/stat``, field 22).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from runtime.errors import ContainerError, NoSuchContainer
from runtime.statefile import (
    LOCK_FILE,
    NEVER,
    SOCKET_FILE,
    SPEC_FILE,
    STATE_FILE,
    boot_id,
    start_time,
    timestamp,
    write_file,
)

__all__ = [
    "LOCK_FILE",
    "MONITOR_LOST",
    "NEVER",
    "SOCKET_FILE",
    "SPEC_FILE",
    "STATE_FILE",
    "NetworkState",
    "PortState",
    "ProcessRef",
    "State",
    "Status",
    "boot_id",
    "from_json",
    "network_from_json",
    "network_json",
    "observe",
    "process_ref",
    "read",
    "start_time",
    "timestamp",
    "to_json",
    "write",
    "write_file",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Status = Literal["created", "running", "paused", "restarting", "exited", "dead"]
else:  # typing would take a millisecond of every start
    Status = str

MONITOR_LOST = "the monitor process of this container died; output and exit status were not recorded"
_LOST_EXIT_CODE = 255


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """One process, for good: pid plus start time in clock ticks since boot."""

    pid: int = 0
    start: int = 0
    boot: str = ""

    def alive(self) -> bool:
        """Whether exactly this process still runs (a zombie does not)."""
        if not self.pid or self.boot != boot_id():
            return False
        found = start_time(self.pid)
        return found is not None and found == self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class PortState:
    """A published port as it is in force: container port and protocol, host address and port."""

    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_ip: str = "0.0.0.0"  # noqa: S104  (publishing to every address is the documented default)
    host_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkState:
    """The network of a running container (NET-06)."""

    mode: str = "none"
    ip_address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    mac_address: str = ""
    bridge: str = ""
    sandbox_key: str = ""
    note: str = ""
    ports: tuple[PortState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What became of a container (CRE-10)."""

    status: Status = "created"
    process: ProcessRef = ProcessRef()
    monitor: ProcessRef = ProcessRef()
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at: str = NEVER
    finished_at: str = NEVER
    restart_count: int = 0
    manually_stopped: bool = False
    cgroups: tuple[str, ...] = ()
    network: NetworkState = NetworkState()
    execs: tuple[str, ...] = ()
    monitor_lost: bool = field(default=False, compare=False)
    """Set by ``observe`` only: the container still runs but nobody watches over it."""

    @property
    def running(self) -> bool:
        """Docker's ``Running``: also true while paused or between two restarts."""
        return self.status in ("running", "paused", "restarting")


def process_ref(pid: int) -> ProcessRef:
    """The lasting name of a process that runs now; an empty one when it is already gone."""
    found = start_time(pid)
    return ProcessRef(pid, found, boot_id()) if found is not None else ProcessRef()


def write(directory: Path, state: State) -> None:
    """Record ``state``; only the monitor, or a verb that knows there is none, may call this."""
    write_file(directory, STATE_FILE, json.dumps(to_json(state), separators=(",", ":")).encode())


def read(directory: Path) -> State:
    """What the file says, unchecked; NoSuchContainer when there is no such directory."""
    try:
        data = (directory / STATE_FILE).read_bytes()
    except FileNotFoundError as error:
        raise NoSuchContainer(f"no state of container {directory.name[:12]}") from error
    try:
        return from_json(json.loads(data))
    except (ValueError, TypeError, KeyError) as error:
        raise ContainerError(
            f"the state file of container {directory.name[:12]} is damaged",
            context=(str(directory / STATE_FILE), str(error)),
            hint="remove the container with rm -f",
            code="container-state-damaged",
        ) from error


def observe(directory: Path) -> State:
    """What is true now: the file, corrected by which processes live (LIF-BOOT).

    A container whose monitor is gone but whose process lives is reported as running with ``monitor_lost``;
    one whose process is gone too becomes ``exited`` with status 255 and an error that says why, and that is
    written back.
    """
    found = read(directory)
    if not found.running:
        return found
    if found.monitor.alive():
        return found
    found = read(directory)  # the monitor may have written its last word between the two looks
    if not found.running:
        return found
    if found.process.alive():
        return replace(found, monitor_lost=True, error=MONITOR_LOST)
    lost = replace(
        found,
        status="exited",
        exit_code=_LOST_EXIT_CODE,
        process=ProcessRef(),
        monitor=ProcessRef(),
        error=MONITOR_LOST,
        finished_at=timestamp(_mtime_ns(directory / STATE_FILE)),
    )
    try:
        write(directory, lost)
    except OSError:
        pass  # a reader without the right to write still gets the right answer
    return lost


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def to_json(state: State) -> dict[str, Any]:
    """The state as it is written."""
    return {
        "status": state.status,
        "process": _ref_json(state.process),
        "monitor": _ref_json(state.monitor),
        "exit_code": state.exit_code,
        "oom_killed": state.oom_killed,
        "error": state.error,
        "started_at": state.started_at,
        "finished_at": state.finished_at,
        "restart_count": state.restart_count,
        "manually_stopped": state.manually_stopped,
        "cgroups": list(state.cgroups),
        "execs": list(state.execs),
        "network": network_json(state.network),
    }


def network_json(network: NetworkState) -> dict[str, Any]:
    """The network part as it is written."""
    return {
        "mode": network.mode,
        "ip_address": network.ip_address,
        "prefix_length": network.prefix_length,
        "gateway": network.gateway,
        "mac_address": network.mac_address,
        "bridge": network.bridge,
        "sandbox_key": network.sandbox_key,
        "note": network.note,
        "ports": [[p.container_port, p.protocol, p.host_ip, p.host_port] for p in network.ports],
    }


def from_json(value: dict[str, Any]) -> State:
    """The state from its written form; ValueError, TypeError or KeyError on anything else."""
    if value["status"] not in ("created", "running", "paused", "restarting", "exited", "dead"):
        raise ValueError(f"unknown status {value['status']!r}")
    return State(
        status=value["status"],
        process=ProcessRef(*value["process"]),
        monitor=ProcessRef(*value["monitor"]),
        exit_code=int(value["exit_code"]),
        oom_killed=bool(value["oom_killed"]),
        error=str(value["error"]),
        started_at=str(value["started_at"]),
        finished_at=str(value["finished_at"]),
        restart_count=int(value["restart_count"]),
        manually_stopped=bool(value["manually_stopped"]),
        cgroups=tuple(value.get("cgroups", ())),
        execs=tuple(value.get("execs", ())),
        network=network_from_json(value["network"]),
    )


def network_from_json(value: dict[str, Any]) -> NetworkState:
    """The network part; unknown keys are an error like everywhere else."""
    ports = tuple(
        PortState(container_port=p[0], protocol=p[1], host_ip=p[2], host_port=p[3])
        for p in value.get("ports", ())
    )
    return NetworkState(**{**value, "ports": ports})


def _ref_json(ref: ProcessRef) -> list[Any]:
    return [ref.pid, ref.start, ref.boot]
