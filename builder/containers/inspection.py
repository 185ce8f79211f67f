"""``inspect`` of a container: docker's keys (CRE-10 to CRE-12, NET-06, EX-51, EX-87)."""

from __future__ import annotations

from typing import Any

from builder.cache.store import Store
from builder.containers.lookup import find
from builder.containers.types import Container
from runtime.state import NetworkState, State


def inspect_container(store: Store, ref: str, *, size: bool = False) -> dict[str, Any]:
    """Everything about a container as docker shows it; with ``size`` also ``SizeRw`` and ``SizeRootFs``."""
    container = find(store, ref)
    data, directory = container.data, container.directory
    destinations = {entry["Destination"]: entry for entry in data["Mounts"] if entry["Type"] != "tmpfs"}
    out: dict[str, Any] = {
        "Id": container.id,
        "Created": created(container),
        "Path": data["Path"],
        "Args": data["Args"],
        "State": state_json(container.state),
        "Image": container.row.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": log_path(container),
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": data["Driver"],
        "Platform": data["Platform"],
        "ExecDriver": "native",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(container.state.execs) or None,
        "HostConfig": data["HostConfig"],
        "GraphDriver": _driver(store, container),
        "Mounts": [_mount(entry) for entry in data["Mounts"]],
        "Volumes": {path: entry["Source"] for path, entry in destinations.items()},
        "VolumesRW": {path: entry["RW"] for path, entry in destinations.items()},
        "Config": data["Config"],
        "NetworkSettings": _network(container),
    }
    if size:
        from builder.containers.listing import sizes

        out["SizeRw"], out["SizeRootFs"] = sizes(store, container)
    return out


def created(container: Container) -> str:
    """RFC 3339 time of the creation."""
    from runtime.statefile import timestamp

    return timestamp(container.row.created_ns)


def log_path(container: Container) -> str:
    """Where the log is; empty when there is none."""
    if container.data["HostConfig"]["LogConfig"]["Type"] != "json-file":
        return ""
    return str(container.directory / f"{container.id}-json.log")


def state_json(found: State) -> dict[str, Any]:
    """``State``: while it restarts it counts as running, as docker has it (CRE-10)."""
    return {
        "Status": found.status,
        "Running": found.running,
        "Paused": found.status == "paused",
        "Restarting": found.status == "restarting",
        "OOMKilled": found.oom_killed,
        "Dead": found.status == "dead",
        "Pid": found.process.pid if found.running else 0,
        "ExitCode": found.exit_code,
        "Error": found.error,
        "StartedAt": found.started_at,
        "FinishedAt": found.finished_at,
    }


def ports_json(container: Container) -> dict[str, Any]:
    """``Ports``: what is published now, and what is only exposed."""
    found: dict[str, Any] = dict.fromkeys(container.data["Config"].get("ExposedPorts") or {})
    for port in container.state.network.ports:
        key = f"{port.container_port}/{port.protocol}"
        entry = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
        found[key] = [*(found.get(key) or []), entry]
    return found


def _network(container: Container) -> dict[str, Any]:
    network = container.state.network if container.state.running else NetworkState()
    mode = container.data["HostConfig"]["NetworkMode"]
    name = network.mode if container.state.running else "bridge" if mode == "default" else mode
    endpoint = {
        "Gateway": network.gateway,
        "IPAddress": network.ip_address,
        "IPPrefixLen": network.prefix_length,
        "MacAddress": network.mac_address,
        "EndpointID": "",
        "NetworkID": network.bridge,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
    }
    shared = name.startswith("container:")
    return {
        "Bridge": "",
        "SandboxID": container.id if container.state.running else "",
        "SandboxKey": network.sandbox_key,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports_json(container) if container.state.running else {},
        **endpoint,
        "Networks": {}
        if shared
        else {name: {"IPAMConfig": None, "Links": None, "Aliases": None, **endpoint}},
    }


def _mount(entry: dict[str, Any]) -> dict[str, Any]:
    hidden = ("Anonymous", "TmpfsSize", "TmpfsMode")
    return {key: value for key, value in entry.items() if key not in hidden}


def _driver(store: Store, container: Container) -> dict[str, Any]:
    if container.row.snapshot is None:
        return {"Name": container.data["Driver"], "Data": None}
    base = store.root / "snapshots" / container.row.snapshot
    return {"Name": container.data["Driver"], "Data": {"UpperDir": str(base / "fs")}}
