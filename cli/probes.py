"""What this machine allows: each probe answers with a finding and, where something is missing, what would
lift it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Level = Literal["ok", "note", "bad"]


class Finding(NamedTuple):
    """``ok``: all is well; ``note``: it works with less; ``bad``: builds that need it fail."""

    topic: str
    level: Level
    text: str
    remedy: str = ""


def run_probes(root: Path) -> Iterator[Finding]:
    """Every finding about this machine and the state directory ``root``."""
    probes: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        _identity,
        _namespaces,
        _state_directory,
        _snapshots,
        _cgroups,
        _network,
        _seccomp,
        _emulation,
        _programs,
        _packages,
    )
    for probe in probes:
        try:
            yield from probe(root)
        except OSError as error:
            yield Finding(probe.__name__.strip("_"), "note", f"could not be probed: {error}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _capabilities() -> int:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def is_rootful() -> bool:
    """Whether this process is root and may mount."""
    return os.geteuid() == 0 and bool(_capabilities() & 1 << 21)


def _identity(_root: Path) -> Iterator[Finding]:
    yield Finding("kernel", "ok", f"{os.uname().sysname} {os.uname().release} on {os.uname().machine}")
    from runtime import idmap, rootless

    rung = rootless.rung()
    outside = idmap.current().to_outside(0)
    if os.geteuid() != 0:
        yield Finding(
            "user",
            "bad",
            f"uid {os.geteuid()}, and no user namespace can be made: see below",
            "allow user namespaces, or run as root",
        )
    elif rung == "range":
        count = sum(r.size for r in idmap.current().ranges)
        yield Finding("user", "ok", f"rootless: uid {outside} is root of a user namespace with {count} ids")
    elif rung == "single":
        reason, remedy = rootless.why_single(outside or 0)
        yield Finding(
            "user",
            "note",
            f"rootless: uid {outside} is the only id of its user namespace ({reason}); other owners of files "
            "are recorded, not set",
            remedy,
        )
    elif is_rootful():
        yield Finding("user", "ok", "root with CAP_SYS_ADMIN: containers are made directly")
    else:
        yield Finding(
            "user",
            "note",
            "root without CAP_SYS_ADMIN (an unprivileged container?)",
            "run the outer container with --privileged, or with --cap-add SYS_ADMIN and an unmasked /proc",
        )


def _namespaces(_root: Path) -> Iterator[Finding]:
    most = _read("/proc/sys/user/max_user_namespaces")
    if most == "0":
        yield Finding(
            "user namespaces",
            "bad" if os.geteuid() else "note",
            "switched off",
            "sysctl user.max_user_namespaces=15000",
        )
    elif _read("/proc/sys/kernel/unprivileged_userns_clone") == "0" and os.geteuid():
        yield Finding("user namespaces", "bad", "only for root", "sysctl kernel.unprivileged_userns_clone=1")
    elif _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" and os.geteuid():
        yield Finding(
            "user namespaces",
            "note",
            "restricted by AppArmor",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for python",
        )
    else:
        yield Finding("user namespaces", "ok", f"up to {most or 'unlimited'}")


def _state_directory(root: Path) -> Iterator[Finding]:
    place = root
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            "state directory", "bad", f"{root}: not writable", "choose another with --root or PYBUILD_ROOT"
        )
        return
    from cli.render.text import human_size

    usage = shutil.disk_usage(place)
    level: Level = "note" if usage.free < 2 << 30 else "ok"
    remedy = "free some space, or: pybuild prune" if level == "note" else ""
    yield Finding("state directory", level, f"{root}: {human_size(usage.free, 3)} free", remedy)


def _snapshots(root: Path) -> Iterator[Finding]:
    from builder.cache.store import Store
    from builder.errors import PybuildError

    try:
        store = Store.open(root)
        driver = store.snapshots.driver
        store.close()
    except PybuildError as error:
        yield Finding("snapshots", "bad", error.message, error.hint or "")
        return
    if driver == "overlay":
        yield Finding("snapshots", "ok", "overlay mounts")
    else:
        yield Finding(
            "snapshots",
            "note",
            "copies (slower): overlay mounts do not work in the state directory",
            "put the state directory on ext4, xfs or btrfs instead of an overlay (--root)",
        )


def _cgroups(_root: Path) -> Iterator[Finding]:
    from runtime import hierarchies

    found = hierarchies.probe()
    if not found.unified and not found.v1:
        yield Finding(
            "cgroups", "note", "not mounted: no limits on memory, CPU or processes", "mount /sys/fs/cgroup"
        )
        return
    kind = "version 2" if found.pure_v2 else "version 1" if not found.unified else "hybrid"
    known = sorted(found.v1) if found.v1 else sorted(found.controllers)
    places = [found.unified] if found.pure_v2 else list(found.v1.values())
    if all(os.access(place, os.W_OK) for place in places):
        yield Finding("cgroups", "ok", f"{kind}: {', '.join(known)}")
    else:
        yield Finding(
            "cgroups",
            "note",
            f"{kind}, not writable: limits do not apply",
            "run in a delegated group: systemd-run --user --scope -p Delegate=yes",
        )


def _network(_root: Path) -> Iterator[Finding]:
    from runtime.network import unavailable_reason

    reason = unavailable_reason()
    if reason is None:
        tools = [name for name in ("nft", "iptables") if shutil.which(name)]
        if tools:
            yield Finding("network", "ok", f"bridge with address translation ({tools[0]})")
        else:
            yield Finding(
                "network",
                "note",
                "a bridge, but no nft or iptables for address translation",
                "apt install nftables",
            )
        return
    yield Finding("network", "note", f"the host's network: {reason}", "run as root for networks of their own")


def _seccomp(_root: Path) -> Iterator[Finding]:
    if "errno" in _read("/proc/sys/kernel/seccomp/actions_avail"):
        yield Finding("seccomp", "ok", "filters are available")
    else:
        yield Finding(
            "seccomp", "bad", "the kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER"
        )


def _emulation(_root: Path) -> Iterator[Finding]:
    place = Path("/proc/sys/fs/binfmt_misc")
    names = sorted(path.name.removeprefix("qemu-") for path in place.glob("qemu-*")) if place.is_dir() else []
    if names:
        yield Finding("emulation", "ok", f"programs for {', '.join(names)} can run")
    else:
        yield Finding(
            "emulation",
            "note",
            "only this machine's own platform can run programs",
            "apt install qemu-user-static binfmt-support",
        )


def _programs(_root: Path) -> Iterator[Finding]:
    if shutil.which("git"):
        yield Finding("git", "ok", "git contexts and ADD of repositories work")
    else:
        yield Finding("git", "note", "not installed: no git contexts", "apt install git")


def _packages(_root: Path) -> Iterator[Finding]:
    from importlib.util import find_spec

    wanted = {
        "lark": ("bad", "Dockerfiles cannot be read"),
        "zstandard": ("note", "no zstd layers"),
        "isal": ("note", "gzip layers are made with zlib, about four times slower"),
        "requests": ("note", "no registries"),
        "pyroute2": ("note", "no bridge networks"),
    }
    missing = [name for name in wanted if find_spec(name) is None]
    if not missing:
        yield Finding("packages", "ok", "all present")
    for name in missing:
        level, effect = wanted[name]
        yield Finding(
            "packages", "bad" if level == "bad" else "note", f"{name}: {effect}", f"pip install {name}"
        )
