"""Control groups: one per container, on version 1, version 2 and hosts that have both.

A group is ``/pybuild/<id>`` (``/<parent>/pybuild/<id>`` below a parent) in the version 2 hierarchy, where the
container is born into it, and in those version 1 hierarchies that its limits need. What a machine does not
allow is skipped and said in ``Group.warnings``.
"""

from __future__ import annotations

import os
import time

from runtime import devicefilter
from runtime.hierarchies import HOME, V1_ALL, Layout, group_path, layout, read, words, write
from runtime.syscalls.linux import pidfd_open, pidfd_send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.limits import Setting

_BUSY_TRIES = 50


class Group:
    """The control groups of one container."""

    __slots__ = ("counted", "devices_enforced", "fd", "path", "unified", "v1", "warnings")

    def __init__(self, path: str, unified: str, v1: dict[str, str]) -> None:
        self.path = path
        self.unified = unified
        self.v1 = v1
        self.fd = -1
        self.devices_enforced = False
        self.counted = False
        """Whether what the container uses is to be known."""
        self.warnings: list[str] = []

    def join(self, pid: int) -> None:
        """Move a process into the version 1 groups (the version 2 one is joined at birth)."""
        for place in dict.fromkeys(self.v1.values()):
            write(f"{place}/cgroup.procs", str(pid))

    def oom_kills(self) -> int:
        """How many processes of the group were killed for memory."""
        for path, key in (
            (f"{self.unified}/memory.events", "oom_kill"),
            (f"{self.v1.get('memory', '')}/memory.oom_control", "oom_kill"),
        ):
            try:
                rows = read(path).splitlines()
            except OSError:
                continue
            for row in rows:
                name, _, value = row.partition(" ")
                if name == key and value.isdigit():
                    return int(value)
        return 0

    def freeze(self, frozen: bool) -> None:
        """Pause or resume every process; OSError where no freezer is there."""
        if self.unified:
            write(f"{self.unified}/cgroup.freeze", "1" if frozen else "0")
            self._await_frozen(frozen)
            return
        write(f"{self.v1['freezer']}/freezer.state", "FROZEN" if frozen else "THAWED")

    def _await_frozen(self, frozen: bool) -> None:
        wanted = f"frozen {int(frozen)}"
        for _ in range(200):
            if wanted in read(f"{self.unified}/cgroup.events"):
                return
            time.sleep(0.005)

    def pids(self) -> tuple[int, ...]:
        """The processes of the group, by host pid."""
        for place in (self.unified, *self.v1.values()):
            if place:
                try:
                    return tuple(int(line) for line in read(f"{place}/cgroup.procs").split())
                except OSError:
                    continue
        return ()

    def kill(self) -> None:
        """Kill every process of the group."""
        if self.unified:
            try:
                write(f"{self.unified}/cgroup.kill", "1")
            except OSError:
                pass
            else:
                return
        for pid in self.pids():
            try:
                fd = pidfd_open(pid)
            except OSError:
                continue
            pidfd_send_signal(fd, 9)
            os.close(fd)

    def close(self) -> None:
        """Let go of the descriptor; the groups stay."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Remove the groups; processes that are still ending are waited for, briefly."""
        self.close()
        for place in dict.fromkeys((self.unified, *self.v1.values())):
            if place:
                _remove(place)


def _remove(place: str) -> None:
    for _ in range(_BUSY_TRIES):
        try:
            os.rmdir(place)
        except OSError as error:
            if error.errno != 16:
                return
            for entry in os.scandir(place):
                if entry.is_dir(follow_symlinks=False):
                    _remove(entry.path)
            time.sleep(0.002)
        else:
            return


def discard(path: str) -> None:
    """Remove the groups at ``path`` in every hierarchy, for an owner that has died."""
    place = layout()
    for mount in dict.fromkeys((place.unified, *place.v1.values())):
        if mount and os.path.isdir(f"{mount}/{path}"):
            _remove(f"{mount}/{path}")


def sweep(older_than_s: float = 60.0) -> None:
    """Remove empty groups whose owners were killed; young ones may be about to be filled."""
    place = layout()
    for mount in dict.fromkeys((place.unified, *place.v1.values())):
        try:
            entries = [
                entry for entry in os.scandir(f"{mount}/{HOME}") if entry.is_dir(follow_symlinks=False)
            ]
        except OSError:
            continue
        for entry in entries:
            try:
                if time.time() - entry.stat(follow_symlinks=False).st_ctime > older_than_s:
                    os.rmdir(entry.path)
            except OSError:
                continue  # in use, or not ours to remove


def create(
    container: str,
    parent: str,
    settings: tuple[Setting, ...],
    rules: tuple[devicefilter.Rule, ...] | None,
    *,
    every: bool = False,
) -> Group:
    """Make the groups of a container, with limits and device rules in force.

    ``settings`` are (controller, file, value) triples from ``plan``; ``rules`` None allows all devices.
    ``every`` makes groups in all version 1 hierarchies, for statistics and pausing.
    """
    place = layout()
    path = group_path(container, parent)
    wanted = {controller for controller, _, _ in settings}
    if every:
        wanted |= set(V1_ALL)
    group = Group(path, "", {})
    group.counted = every
    _make_unified(group, place, wanted, asked=bool(settings) or every)
    _enforce_devices(group, place, rules)
    for controller in sorted(wanted):
        _make_v1(group, place, controller)
    _apply(group, place, settings)
    return group


def _make_unified(group: Group, place: Layout, wanted: set[str], *, asked: bool) -> None:
    if not place.unified:
        return
    top = os.path.join(place.unified, group.path)
    try:
        try:
            os.mkdir(top)
        except FileNotFoundError:
            os.makedirs(top)
        except FileExistsError:
            pass
        if place.controllers and wanted:
            _delegate(place.unified, group.path, wanted & place.controllers)
        group.fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        group.unified = top
    except OSError as error:
        if asked:
            group.warnings.append(f"no control group: {error.strerror}")


def _delegate(root: str, path: str, wanted: set[str]) -> None:
    """Switch controllers on from the root down to the group's parent."""
    place = root
    names = path.split("/")
    for name in names:
        missing = wanted - words(f"{place}/cgroup.subtree_control")
        for controller in sorted(missing):
            try:
                write(f"{place}/cgroup.subtree_control", f"+{controller}")
            except OSError:
                continue  # said later, by the limit that cannot be set
        place = f"{place}/{name}"


def _make_v1(group: Group, place: Layout, controller: str) -> None:
    mount = place.v1.get(controller)
    if mount is None or controller in group.v1:
        return
    top = os.path.join(mount, group.path)
    try:
        os.makedirs(top, exist_ok=True)
        if controller == "cpuset":
            _inherit_cpuset(mount, group.path)
    except OSError as error:
        if controller != "devices":  # its absence is said by devices_enforced
            group.warnings.append(f"no control group for {controller}: {error.strerror}")
        return
    group.v1[controller] = top


def _inherit_cpuset(mount: str, path: str) -> None:
    """A version 1 cpuset starts empty and takes no process until it has cpus and memory nodes."""
    place = mount
    for name in path.split("/"):
        below = f"{place}/{name}"
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not read(f"{below}/{file}").strip():
                write(f"{below}/{file}", read(f"{place}/{file}"))
        place = below


def _enforce_devices(group: Group, place: Layout, rules: tuple[devicefilter.Rule, ...] | None) -> None:
    if rules is None:
        group.devices_enforced = True
        return
    if group.fd >= 0:
        try:
            devicefilter.attach(group.fd, rules)
        except OSError:
            pass
        else:
            group.devices_enforced = True
            return
    _make_v1(group, place, "devices")
    top = group.v1.get("devices")
    if top is None:
        return
    try:
        write(f"{top}/devices.deny", "a")
        for line in devicefilter.lines(rules):
            write(f"{top}/devices.allow", line)
    except OSError as error:
        group.warnings.append(f"no device rules: {error.strerror}")
    else:
        group.devices_enforced = True


def _apply(group: Group, place: Layout, settings: tuple[Setting, ...]) -> None:
    if not settings:
        return
    from runtime import limits

    for controller, file, value in settings:
        top = group.v1.get(controller) if controller in place.v1 else group.unified
        name, text = (file, value) if controller in place.v1 else limits.to_v2(file, value)
        if not name:
            continue
        try:
            if not top:
                raise FileNotFoundError(2, "no such controller")
            write(f"{top}/{name}", text)
        except OSError as error:
            group.warnings.append(f"limit {file} not set: {error.strerror}")


def of_process(pid: int) -> Group:
    """The groups that a running process is in and this one is not, to be joined by another."""
    place = layout()
    own = dict(_memberships("self"))
    unified, v1 = "", {}
    for controllers, path in _memberships(pid):
        if not controllers:
            unified = place.unified + path.rstrip("/") if place.unified and path != "/" else ""
        elif own.get(controllers) != path:
            v1.update({name: place.v1[name] + path for name in controllers.split(",") if name in place.v1})
    group = Group("", unified, v1)
    if unified:
        try:
            group.fd = os.open(unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            group.unified = ""
    return group


def _memberships(pid: int | str) -> list[tuple[str, str]]:
    rows = []
    for row in read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = row.split(":", 2)
        rows.append((controllers, path))
    return rows
