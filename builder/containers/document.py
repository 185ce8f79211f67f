"""What the store keeps about a container, in the shape that ``inspect`` shows (CRE-11, CRE-12)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from builder.cache.containerstore import ContainerRow
from builder.cache.store import Store
from builder.cache.types import StoredImage
from builder.containers.mounts import Entry
from builder.containers.types import BadOption, CreateRequest, PortRequest
from builder.oci.config import DEFAULT_PATH, ImageConfig, healthcheck_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def command(config: ImageConfig, request: CreateRequest) -> tuple[str, ...]:
    """The words to execute: entrypoint and command of image and request (RUN-15, RUN-40, RUN-41)."""
    if request.entrypoint is not None:
        words = (*request.entrypoint, *request.command)
    else:
        words = (*(config.entrypoint or ()), *(request.command or config.cmd or ()))
    if not words:
        raise BadOption(
            "No command specified", hint="the image has neither ENTRYPOINT nor CMD; give a command"
        )
    return words


def environment(image: Iterable[str], given: Iterable[str]) -> list[str]:
    """The image's ENV with what was given on top: an entry without ``=`` removes the variable."""
    found: dict[str, str] = {}
    for entry in image:
        name, _, value = entry.partition("=")
        found[name] = value
    for entry in given:
        name, sign, value = entry.partition("=")
        if sign:
            found[name] = value
        else:
            found.pop(name, None)
    return [f"{name}={value}" for name, value in found.items()]


def make(
    store: Store,
    container_id: str,
    request: CreateRequest,
    image: StoredImage,
    words: tuple[str, ...],
    entries: list[Entry],
) -> dict[str, Any]:
    """The document of a new container."""
    config = image.config
    env = environment(config.env, request.env)
    if not any(entry.startswith("PATH=") for entry in env):
        env.insert(0, f"PATH={DEFAULT_PATH}")
    return {
        "Image": request.image,
        "Path": words[0],
        "Args": list(words[1:]),
        "Driver": store.snapshots.driver,
        "Platform": config.platform.os or "linux",
        "Config": _config(container_id, request, config, env),
        "HostConfig": host_config(request),
        "Mounts": entries,
    }


def _config(container_id: str, request: CreateRequest, config: ImageConfig, env: list[str]) -> dict[str, Any]:
    exposed = {*config.exposed_ports}
    if request.expose:
        from builder.containers.options import exposed as parse

        exposed |= {f"{port}/{kind}" for text in request.expose for port, kind in parse(text)}
    exposed |= {f"{port.container_port}/{port.protocol}" for port in request.ports}
    kept = config.entrypoint if request.entrypoint is None else request.entrypoint or None
    cmd = request.command or (config.cmd if request.entrypoint is None else None) or None
    out: dict[str, Any] = {
        "Hostname": request.hostname or ("" if request.uts == "host" else container_id[:12]),
        "Domainname": request.domainname,
        "User": request.user or config.user,
        "AttachStdin": request.attach_stdin,
        "AttachStdout": request.attach_stdout,
        "AttachStderr": request.attach_stderr,
        "Tty": request.tty,
        "OpenStdin": request.interactive,
        "StdinOnce": request.interactive and request.attach_stdin,
        "Env": env,
        "Cmd": list(cmd) if cmd is not None else None,
        "Image": request.image,
        "Volumes": {path: {} for path in config.volumes} or None,
        "WorkingDir": request.workdir or config.workdir,
        "Entrypoint": list(kept) if kept is not None else None,
        "OnBuild": list(config.on_build) or None,
        "Labels": {**dict(config.labels), **dict(request.labels)},
    }
    if exposed:
        out["ExposedPorts"] = {port: {} for port in sorted(exposed)}
    if request.stop_signal or config.stop_signal:
        out["StopSignal"] = request.stop_signal or config.stop_signal
    if request.stop_timeout_s is not None:
        out["StopTimeout"] = request.stop_timeout_s
    if config.healthcheck is not None:
        out["Healthcheck"] = healthcheck_json(config.healthcheck)
    if config.shell is not None:
        out["Shell"] = list(config.shell)
    if request.mac_address:
        out["MacAddress"] = request.mac_address
    return out


def host_config(request: CreateRequest) -> dict[str, Any]:
    """``HostConfig``: what the machine is asked for."""
    limits = request.limits
    return {
        "Binds": [_bind_text(volume) for volume in request.volumes if volume.source] or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": request.log.driver, "Config": _log_config(request)},
        "NetworkMode": request.network or "default",
        "PortBindings": _bindings(request.ports),
        "RestartPolicy": {"Name": request.restart.name, "MaximumRetryCount": request.restart.maximum},
        "AutoRemove": request.auto_remove,
        "VolumesFrom": list(request.volumes_from) or None,
        "CapAdd": list(request.cap_add) or None,
        "CapDrop": list(request.cap_drop) or None,
        "Dns": list(request.dns),
        "DnsOptions": list(request.dns_options),
        "DnsSearch": list(request.dns_search),
        "ExtraHosts": list(request.extra_hosts) or None,
        "GroupAdd": list(request.groups) or None,
        "IpcMode": request.ipc or "private",
        "Links": None,
        "LxcConf": [],
        "OomScoreAdj": request.oom_score_adj or 0,
        "PidMode": request.pid,
        "Privileged": request.privileged,
        "PublishAllPorts": request.publish_all,
        "ReadonlyRootfs": request.readonly_root,
        "SecurityOpt": list(request.security_opt) or None,
        "Tmpfs": {v.target: "" for v in request.tmpfs} or None,
        "UTSMode": request.uts,
        "ShmSize": request.shm_size,
        "CgroupParent": request.cgroup_parent,
        "Memory": limits.memory_bytes or 0,
        "MemoryReservation": limits.memory_reservation_bytes or 0,
        "MemorySwap": limits.memory_swap_bytes or 0,
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids,
        "CpuShares": limits.cpu_shares or 0,
        "CpuPeriod": limits.cpu_period_us or 0,
        "CpuQuota": limits.cpu_quota_us or 0,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "BlkioWeight": limits.blkio_weight or 0,
        "Devices": [
            {"PathOnHost": d.host, "PathInContainer": d.container, "CgroupPermissions": d.access}
            for d in request.devices
        ],
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in request.ulimits] or None,
    }


def _log_config(request: CreateRequest) -> dict[str, str]:
    if not request.log.max_size:
        return {}
    return {"max-size": str(request.log.max_size), "max-file": str(request.log.max_files)}


def _bind_text(volume: Any) -> str:
    mode = ":ro" if volume.readonly else ""
    return f"{volume.source}:{volume.target}{mode}"


def _bindings(ports: tuple[PortRequest, ...]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        entry = {"HostIp": port.host_ip, "HostPort": str(port.host_port) if port.host_port else ""}
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(entry)
    return found


def mount_points(entries: list[Entry]) -> list[tuple[str, bool]]:
    """Where the mounts of a container go, and whether to a directory."""
    return [
        (entry["Destination"].lstrip("/"), entry["Type"] != "bind" or not _is_file(entry["Source"]))
        for entry in entries
    ]


def _is_file(source: str) -> bool:
    path = Path(source)
    return path.exists() and not path.is_dir()


def event_attributes(row: ContainerRow, **more: str) -> dict[str, str]:
    """What an event says about a container."""
    labels = row.data["Config"].get("Labels") or {}
    return {**labels, "image": row.data["Image"], "name": row.name, **more}
