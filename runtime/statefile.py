"""The primitives below ``runtime.state`` that the monitor uses too: names of files, processes, replacing a
file.

A monitor has to start quickly, so nothing here imports what a bare interpreter has not loaded already.
"""

from __future__ import annotations

import _thread
import os

try:
    from _json import encode_basestring_ascii
except ImportError:  # another implementation than CPython
    from json.encoder import encode_basestring_ascii

NEVER = "0001-01-01T00:00:00Z"
STATE_FILE = "state.json"
SPEC_FILE = "spec.json"
LOCK_FILE = "monitor.lock"
SOCKET_FILE = "attach.sock"

NO_PROCESS: list[object] = [0, 0, ""]
NO_NETWORK: dict[str, object] = {
    "mode": "none",
    "ip_address": "",
    "prefix_length": 0,
    "gateway": "",
    "mac_address": "",
    "bridge": "",
    "sandbox_key": "",
    "note": "",
    "ports": [],
}

_boot: str | None = None


def boot_id() -> str:
    """The kernel's id of this boot; empty where it cannot be read."""
    global _boot
    if _boot is None:
        try:
            with open("/proc/sys/kernel/random/boot_id") as file:
                _boot = file.read().strip()
        except OSError:
            _boot = ""
    return _boot


def start_time(pid: int) -> int | None:
    """Start time of ``pid`` in clock ticks since boot; None when there is no such process or it is a
    zombie.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The second field is the command in parentheses and may hold anything: count from the last parenthesis.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def process_entry(pid: int) -> list[object]:
    """``[pid, start time, boot]`` of a process that runs now; ``NO_PROCESS`` when it is gone already."""
    found = start_time(pid)
    return [pid, found, boot_id()] if found is not None else NO_PROCESS


def write_file(directory: str | os.PathLike[str], name: str, data: bytes) -> None:
    """Replace ``directory/name`` by ``data`` in one step; readers see the old or the new file."""
    place = os.fspath(directory)
    temporary = os.path.join(place, f".{name}.{os.getpid()}.{_thread.get_native_id()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    os.replace(temporary, os.path.join(place, name))


def to_json(value: object) -> str:
    """Compact JSON of plain values; the ``json`` module costs more to import than the rest of a monitor."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(str(key))}:{to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(to_json, value)) + "]"
    raise TypeError(f"no JSON for {type(value).__name__}")


def timestamp(at_ns: int) -> str:
    """RFC 3339 with nine digits, UTC (IO-LOGS-2)."""
    import time

    seconds, rest = divmod(at_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def new_document() -> dict[str, object]:
    """The state of a container that was never started."""
    return {
        "status": "created",
        "process": NO_PROCESS,
        "monitor": NO_PROCESS,
        "exit_code": 0,
        "oom_killed": False,
        "error": "",
        "started_at": NEVER,
        "finished_at": NEVER,
        "restart_count": 0,
        "manually_stopped": False,
        "cgroups": [],
        "execs": [],
        "network": NO_NETWORK,
    }
