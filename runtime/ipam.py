"""Which address of a bridge belongs to whom; kept in one JSON file under a flock.

The file maps an address to its owner. An owner is a process (boot, pid, start time), so that the addresses
of a monitor that died come back by themselves, or a file that must exist. Nothing has to be released for
correctness; ``release`` only makes it sooner.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import ContainerError
from runtime.state import ProcessRef, write_file

_FILE = "addresses.json"
_LOCK = "lock"


class NoFreeAddress(ContainerError):
    """Every address of the bridge's network is in use."""

    code = "no-free-address"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the network lock of ``directory``; released when the process ends, however it ends."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def allocate(directory: Path, network: ipaddress.IPv4Network, owner: ProcessRef | Path) -> str:
    """A free host address of ``network`` for ``owner``; the first one is the gateway's. Call under
    ``locked``.
    """
    table = _load(directory)
    taken = {address for address, entry in table["owners"].items() if _alive(entry)}
    first = int(network.network_address) + 2
    count = network.num_addresses - 3
    start = max(0, table.get("next", 0)) % max(1, count)
    for step in range(count):
        offset = (start + step) % count
        address = str(ipaddress.IPv4Address(first + offset))
        if address not in taken:
            owners = {a: e for a, e in table["owners"].items() if a in taken}
            owners[address] = _entry(owner)
            _save(directory, {"next": offset + 1, "owners": owners})
            return address
    raise NoFreeAddress(f"no free address in {network}", hint="remove containers that are not needed")


def release(directory: Path, address: str) -> None:
    """Forget the owner of ``address``. Call under ``locked``."""
    table = _load(directory)
    if table["owners"].pop(address, None) is not None:
        _save(directory, table)


def mac_address(address: str) -> str:
    """``02:42:`` and the four bytes of the address (NET-05)."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def _entry(owner: ProcessRef | Path) -> list[object]:
    return [str(owner)] if isinstance(owner, Path) else [owner.pid, owner.start, owner.boot]


def _alive(entry: list[object]) -> bool:
    match entry:
        case [str(path)]:
            return os.path.exists(path)
        case [int(pid), int(start), str(boot)]:
            return ProcessRef(pid, start, boot).alive()
        case _:
            return False


def _load(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / _FILE).read_bytes())
        if isinstance(found["owners"], dict):
            return {"next": int(found.get("next", 0)), "owners": found["owners"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # a damaged table is a new one: live veth names still keep two containers apart
    return {"owners": {}}


def _save(directory: Path, table: dict[str, Any]) -> None:
    write_file(directory, _FILE, json.dumps(table).encode())
