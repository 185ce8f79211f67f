"""Where the hierarchies of control groups are on this machine, and which path in them a container has.

Light: who only plans a container imports this and not ``cgroups``.
"""

from __future__ import annotations

import os

HOME = "pybuild"
V1_ALL = ("memory", "cpu", "cpuacct", "cpuset", "blkio", "pids", "freezer", "devices")
_layout: Layout | None = None


class Layout:
    """Where the hierarchies are: ``unified`` is the version 2 mount or ``""``, ``v1`` maps controllers to
    mounts."""

    __slots__ = ("controllers", "unified", "v1")

    def __init__(self, unified: str, v1: dict[str, str], controllers: frozenset[str]) -> None:
        self.unified = unified
        self.v1 = v1
        self.controllers = controllers

    @property
    def pure_v2(self) -> bool:
        """Whether limits are version 2's."""
        return bool(self.unified) and not self.v1


def layout() -> Layout:
    """Probe once per process."""
    global _layout
    if _layout is None:
        _layout = probe()
    return _layout


def probe(mountinfo: str = "/proc/self/mountinfo") -> Layout:
    """Find the hierarchies in a mountinfo file."""
    unified = ""
    v1: dict[str, str] = {}
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            rows = file.readlines()
    except OSError:
        rows = []
    for row in rows:
        before, _, after = row.partition(" - ")
        if not after.startswith("cgroup"):
            continue
        fields, kind = before.split(), after.split()
        place = fields[4].replace("\\040", " ")
        if kind[0] == "cgroup2":
            unified = unified or place
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                if option in V1_ALL:
                    v1.setdefault(option, place)
    return Layout(unified, v1, words(os.path.join(unified, "cgroup.controllers")) if unified else frozenset())


def words(path: str) -> frozenset[str]:
    """The words of a control file; none when it cannot be read."""
    try:
        return frozenset(read(path).split())
    except OSError:
        return frozenset()


def read(path: str) -> str:
    """A control file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Tell a control file, in one write."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def group_path(container: str, parent: str) -> str:
    """The path of a container's group below every hierarchy, without a leading slash.

    ``system.slice:prefix:`` is systemd's form of a parent. ValueError for names that are no single component.
    """
    if not container or "/" in container or container in {".", ".."} or "\0" in container:
        raise ValueError(f"bad container id {container!r}")
    if ":" in parent and ".slice" in parent:
        place, _, prefix = parent.partition(":")
        prefix = prefix.replace(":", "-").strip("-")
        name = f"{prefix}-{container}.scope" if prefix else f"{container}.scope"
        return _checked(f"{place}/{name}")
    return _checked(f"{parent.strip('/')}/{HOME}/{container}".lstrip("/"))


def _checked(path: str) -> str:
    if ".." in path.split("/") or "\0" in path:
        raise ValueError(f"bad cgroup path {path!r}")
    return path
