"""What a test run must not leave behind: mounts, processes, cgroups, network links."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
DEPTH = 4


@dataclass(frozen=True)
class Snapshot:
    """What there is at one moment."""

    links: frozenset[str]
    cgroups: frozenset[str]


def take() -> Snapshot:
    """Look at the machine."""
    return Snapshot(frozenset(_links()), frozenset(_cgroups(CGROUPS, 0)))


def remove_bridge(before: Snapshot) -> None:
    """Take down the bridge that builds and containers share, if this run made it: it is meant to stay."""
    from runtime.network import BridgeConfig, teardown

    config = BridgeConfig()
    if config.name in _links() and config.name not in before.links and os.geteuid() == 0:
        teardown(config)


def remove_cgroup_parents(before: Snapshot) -> None:
    """Remove the groups that those of containers and steps stand in, if this run made them: they are meant to stay."""
    for path in _cgroups(CGROUPS, 0):
        if path not in before.cgroups and os.path.basename(path) == "pybuild":
            try:
                os.rmdir(path)
            except OSError:
                continue  # not empty: a leak, which is told


def left(before: Snapshot, base: Path, *, everything: bool) -> list[str]:
    """What is there now and was not before, a moment later: the kernel takes links down in its own time."""
    for _ in range(50):
        found = _left(before, base, everything=everything)
        if not found:
            break
        time.sleep(0.1)
    return found


def _left(before: Snapshot, base: Path, *, everything: bool) -> list[str]:
    """What is there now and was not before.

    Mounts and processes are told by ``base``, a directory of this run. Links and cgroups have nothing that says
    whose they are, so they count only with ``everything``, when nothing else runs on the machine.
    """
    found = [f"mount {line}" for line in mounts_below(base)]
    found += [f"process {line}" for line in _processes(base)]
    if everything:
        now = take()
        found += [f"network link {name}" for name in sorted(now.links - before.links)]
        ours = sorted(path for path in now.cgroups - before.cgroups if "pybuild" in path)
        found += [f"cgroup {path}" for path in ours]
    return found


def mounts_below(base: Path) -> list[str]:
    """Mounts that are at, or made of, something below ``base``."""
    text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return [line for line in text.splitlines() if str(base) in line]


def _processes(base: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            links = [os.readlink(entry / "cwd"), os.readlink(entry / "root")]
        except OSError:
            continue
        if os.fsencode(base) in command or any(link.startswith(str(base)) for link in links):
            found.append(
                f"{entry.name}: {command.replace(bytes(1), b' ').decode(errors='replace').strip()[:200]}"
            )
    return found


def _links() -> list[str]:
    try:
        return [name for name in os.listdir("/sys/class/net") if name != "lo"]
    except OSError:
        return []


def _cgroups(base: Path, depth: int) -> list[str]:
    found: list[str] = []
    try:
        below = [entry for entry in os.scandir(base) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return found
    for entry in below:
        found.append(entry.path)
        if depth < DEPTH:
            found += _cgroups(Path(entry.path), depth + 1)
    return found
