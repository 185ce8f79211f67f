"""Options as a ContainerSpec: what is known at creation, and what only the moment of the start can tell.

``base_spec`` is kept in the container directory. ``live_spec`` completes it at each start: where the layers
are, which process another container's namespaces belong to, which device nodes the host has, which network
it gets.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from builder.cache.store import Store
from builder.containers.types import BadOption, Conflict, CreateRequest, Propagation
from builder.oci.config import DEFAULT_PATH
from runtime import capabilities, hosts, specfile, state
from runtime.errors import NoSuchContainer
from runtime.plan import MASKED_PATHS, READONLY_PATHS
from runtime.spec import (
    BindMount,
    ContainerSpec,
    Device,
    DirRoot,
    Mount,
    Network,
    OverlayRoot,
    Root,
    TmpfsMount,
)
from runtime.specfile import MonitorOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MIN_MEMORY = 4 << 20
_SIGTERM = 15
_OWN_DEV = (
    *("pts", "ptmx", "shm", "mqueue", "hugepages", "fd", "console", "stdin", "stdout", "stderr", "core"),
    *("null", "zero", "full", "random", "urandom", "tty"),
)
"""What every container's /dev has of its own; a privileged one gets the rest of the host's nodes."""


def check(request: CreateRequest) -> tuple[str, ...]:
    """Refuse what cannot be meant (RUN-43); returns warnings."""
    _check_limits(request)
    _check_modes(request)
    for name in (*request.cap_add, *request.cap_drop):
        if name.upper() != "ALL":
            try:
                capabilities.normalise(name)
            except ValueError as error:
                raise BadOption(f"invalid capability {name!r}") from error
    if request.workdir and not request.workdir.startswith("/"):
        raise BadOption(f"the working directory {request.workdir!r} is not an absolute path")
    if request.auto_remove and request.restart.name != "no":
        raise BadOption("Conflicting options: --restart and --rm")
    for text in request.extra_hosts:
        hosts.parse_add_host(text, gateway="127.0.0.1")
    for address in request.dns:
        hosts.checked_address(address)
    if request.hostname:
        hosts.hostname_file(request.hostname)
    if request.stop_signal:
        _signal_number(request.stop_signal)
    if request.mac_address and not _is_mac(request.mac_address):
        raise BadOption(f"invalid MAC address {request.mac_address!r}")
    warning = hosts.loopback_warning(request.dns)
    return (*((warning,) if warning else ()), *_security_warnings(request.security_opt))


def _signal_number(text: str) -> int:
    from builder.containers.options import signal_number

    return signal_number(text)


def _is_mac(text: str) -> bool:
    parts = text.lower().split(":")
    return len(parts) == 6 and all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts)


def _check_limits(request: CreateRequest) -> None:
    limits = request.limits
    memory, swap = limits.memory_bytes, limits.memory_swap_bytes
    if memory is not None and 0 < memory < MIN_MEMORY:
        raise BadOption("Minimum memory limit allowed is 4MB")
    if swap and swap > 0:
        if not memory:
            raise BadOption("You should always set the Memory limit when using Memoryswap limit")
        if swap < memory:
            raise BadOption("Minimum memoryswap limit should be larger than memory limit")
    if memory and limits.memory_reservation_bytes and limits.memory_reservation_bytes > memory:
        raise BadOption("Minimum memory limit should be larger than the memory reservation")
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise BadOption(f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100")
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise BadOption("Range of blkio weight is from 10 to 1000")
    if limits.cpu_quota_us and 0 < limits.cpu_quota_us < 1000:
        raise BadOption("CPU cfs quota cannot be less than 1ms (i.e. 1000)")


def _check_modes(request: CreateRequest) -> None:
    for flag, value, known in (
        ("--pid", request.pid, ("", "host")),
        ("--ipc", request.ipc, ("", "private", "shareable", "host", "none")),
        ("--uts", request.uts, ("", "host")),
        ("--network", request.network, ("", "default", "bridge", "host", "none")),
    ):
        if value not in known and not (value.startswith("container:") and flag != "--uts" and value[10:]):
            raise BadOption(f"invalid value {value!r} for {flag}")
    if request.network.startswith("container:") and (request.ports or request.publish_all):
        raise BadOption("conflicting options: port publishing and the container type network mode")
    if request.hostname and request.uts == "host":
        raise BadOption("conflicting options: hostname and the UTS mode")


def _security_warnings(given: tuple[str, ...]) -> tuple[str, ...]:
    warnings: list[str] = []
    for text in given:
        key, _, value = text.replace("=", ":", 1).partition(":")
        if key == "seccomp" and value not in ("unconfined", "builtin", "default"):
            raise BadOption(
                f"security option {text!r}: only the built-in seccomp profile and 'unconfined' are known"
            )
        if key in ("apparmor", "label") and value not in ("unconfined", "disable"):
            warnings.append(f"security option {text!r} has no effect: pybuild applies no such label")
        elif key not in ("seccomp", "apparmor", "label", "no-new-privileges", "systempaths"):
            raise BadOption(f"invalid security option {text!r}")
    return tuple(warnings)


def base_spec(
    container_id: str, request: CreateRequest, data: dict[str, Any], directory: Path
) -> ContainerSpec:
    """What is known at creation."""
    config = data["Config"]
    security = {text.replace("=", ":", 1) for text in request.security_opt}
    privileged = request.privileged
    open_paths = privileged or "systempaths:unconfined" in security
    unconfined = privileged or "seccomp:unconfined" in security
    return ContainerSpec(
        id=container_id,
        root=DirRoot(path="/"),  # replaced at the start
        args=(data["Path"], *data["Args"]),
        env=_environment(config, request.tty),
        cwd=config["WorkingDir"] or "/",
        user=config["User"],
        groups=request.groups,
        hostname="" if request.uts == "host" else config["Hostname"],
        mounts=_mounts(data, directory, request),
        capabilities=_capabilities(request),
        no_new_privileges=any(text in ("no-new-privileges", "no-new-privileges:true") for text in security),
        seccomp="unconfined" if unconfined else "default",
        masked_paths=() if open_paths else MASKED_PATHS,
        readonly_paths=() if open_paths else READONLY_PATHS,
        sysfs_writable=privileged,
        readonly_root=request.readonly_root,
        all_devices=privileged,
        shm_size_bytes=request.shm_size,
        rlimits=request.ulimits,
        limits=_limits(request),
        cgroup_parent=request.cgroup_parent,
        oom_score_adj=request.oom_score_adj,
        terminal=request.tty,
        accounting=_wants_every_group(request),
    )


def _wants_every_group(request: CreateRequest) -> bool:
    """Whether to join every version 1 hierarchy, which is how ``stats`` gets exact numbers there.

    Moving a process into such a group costs tens of milliseconds in the kernel. Where version 2 is mounted
    beside version 1 a container in the foreground does without: it can be paused and listed all the same.
    """
    from runtime.hierarchies import layout

    place = layout()
    foreground = request.attach_stdin or request.attach_stdout or request.attach_stderr
    return not (foreground and place.unified and place.v1)


def _environment(config: dict[str, Any], tty: bool) -> tuple[str, ...]:
    """HOSTNAME and TERM are defaults that the container's own environment overrides (RUN-45)."""
    defaults = {"PATH": DEFAULT_PATH, "HOSTNAME": config["Hostname"]}
    if tty:
        defaults["TERM"] = "xterm"
    set_already = {entry.partition("=")[0] for entry in config["Env"]}
    added = [f"{name}={value}" for name, value in defaults.items() if value and name not in set_already]
    return (*added, *config["Env"])


def _mounts(data: dict[str, Any], directory: Path, request: CreateRequest) -> tuple[Mount, ...]:
    found: list[Mount] = []
    taken = {entry["Destination"] for entry in data["Mounts"]}
    for name in ("resolv.conf", "hostname", "hosts"):
        if f"/etc/{name}" not in taken:
            found.append(BindMount(target=f"/etc/{name}", source=str(directory / name)))
    for entry in data["Mounts"]:
        target, readonly = entry["Destination"], not entry["RW"]
        if entry["Type"] == "tmpfs":
            found.append(
                TmpfsMount(
                    target=target,
                    size_bytes=entry["TmpfsSize"],
                    mode=entry["TmpfsMode"],
                    readonly=readonly,
                    noexec=True,
                )
            )
        else:
            propagation: Propagation = entry["Propagation"] or "rprivate"
            found.append(
                BindMount(target=target, source=entry["Source"], readonly=readonly, propagation=propagation)
            )
    if request.ipc == "host":
        found.append(BindMount(target="/dev/shm", source="/dev/shm"))
    return tuple(found)


def _capabilities(request: CreateRequest) -> tuple[str, ...]:
    """The default set, or all, with what was added and without what was dropped (RUN-05)."""
    add = {name.upper() for name in request.cap_add}
    drop = {name.upper() for name in request.cap_drop}
    every = request.privileged or "ALL" in add
    start = () if "ALL" in drop else capabilities.ALL if every else capabilities.DEFAULT
    names = dict.fromkeys(start)
    names.update(dict.fromkeys(capabilities.normalise(name) for name in sorted(add - {"ALL"})))
    for name in drop - {"ALL"}:
        names.pop(capabilities.normalise(name), None)
    return tuple(names)


def _limits(request: CreateRequest) -> Any:
    """A memory limit alone bounds memory and swap at twice that (ISO-10)."""
    limits = request.limits
    if limits.memory_bytes and limits.memory_swap_bytes is None:
        return replace(limits, memory_swap_bytes=2 * limits.memory_bytes)
    return limits


def options(request: CreateRequest, data: dict[str, Any], image_stop_signal: str) -> MonitorOptions:
    """How the container is looked after."""
    text = request.stop_signal or image_stop_signal
    return MonitorOptions(
        stdin=request.interactive,
        stdin_once=data["Config"]["StdinOnce"],
        restart=request.restart,
        log=request.log,
        stop_signal=_signal_number(text) if text else _SIGTERM,
        on_exit=tuple(data["OnExit"]),
    )


# -- at the start


def live_spec(
    store: Store, spec: ContainerSpec, snapshot: str, data: dict[str, Any], network: Network
) -> ContainerSpec:
    """``base_spec`` completed for a start that happens now."""
    host_config = data["HostConfig"]
    shared: list[tuple[str, str]] = []
    for kind, mode in (
        ("pid", host_config["PidMode"]),
        ("ipc", host_config["IpcMode"]),
        ("uts", host_config["UTSMode"]),
    ):
        if mode == "host":
            shared.append((kind, ""))
        elif mode.startswith("container:"):
            pid = running_pid(store, mode[10:])
            shared.append((kind, f"/proc/{pid}/ns/{kind}"))
    hostname = spec.hostname
    if data["HostConfig"]["NetworkMode"].startswith("container:"):
        hostname = os.uname().nodename if network.mode == "host" else hostname
    return replace(
        spec,
        root=root_of(store, snapshot),
        network=network,
        shared=tuple(shared),
        hostname=hostname,
        devices=_devices(host_config),
    )


def root_of(store: Store, snapshot: str) -> Root:
    """The writable root of a container."""
    active = store.snapshots.reopen(snapshot)
    if active.driver == "native" or not active.lowers:
        return DirRoot(path=str(active.upper))
    return OverlayRoot(
        lowers=tuple(str(path) for path in active.lowers),
        upper=str(active.upper),
        work=str(active.work or ""),
        userxattr=active.userxattr,
    )


def running_pid(store: Store, ref: str) -> int:
    """The first process of another container, which has to run."""
    row = store.containers.get(ref)
    if row is None:
        raise NoSuchContainer(f"No such container: {ref}")
    found = state.observe(store.root / "containers" / row.id)
    if not found.process.alive():
        raise Conflict(f"cannot join the namespaces of container {ref}: it is not running")
    return found.process.pid


def _devices(host_config: dict[str, Any]) -> tuple[Device, ...]:
    found: dict[str, Device] = {}
    if host_config["Privileged"]:
        for path in _nodes_below("/dev", skip=_OWN_DEV):
            device = _device(path, path, "rwm")
            found[device.path] = device
    for entry in host_config["Devices"]:
        host, inside, access = entry["PathOnHost"], entry["PathInContainer"], entry["CgroupPermissions"]
        paths = _nodes_below(host) if os.path.isdir(host) else [host]
        for path in paths:
            device = _device(path, inside + path[len(host) :], access)
            found[device.path] = device
    return tuple(found.values())


def _nodes_below(top: str, skip: tuple[str, ...] = ()) -> list[str]:
    found: list[str] = []
    for directory, names, files in os.walk(top):
        if directory == top:
            names[:] = [name for name in names if name not in skip]
            files = [name for name in files if name not in skip]
        found += [path for path in (os.path.join(directory, name) for name in files) if _is_node(path)]
    return sorted(found)


def _is_node(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _device(host: str, inside: str, access: str) -> Device:
    try:
        status = os.stat(host)
    except OSError as error:
        raise BadOption(f"cannot use the device {host}: {error.strerror}", code="no-such-device") from error
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise BadOption(f"{host} is not a device node", code="no-such-device")
    return Device(
        path=inside,
        type="b" if stat.S_ISBLK(status.st_mode) else "c",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        access=access,
    )


def write_live(directory: Path, spec: ContainerSpec, options: MonitorOptions) -> None:
    """Keep what is about to run."""
    specfile.write(directory, spec, options)
