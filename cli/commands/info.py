"""``pybuild info`` (row IC-INFO)."""

from __future__ import annotations

import os
from typing import Any

from cli.app import App
from cli.flags import Args, Command, text
from cli.render.text import human_size


def facts(app: App) -> dict[str, Any]:
    """What is known about this installation, in docker's keys where there are such."""
    from builder.containers import every
    from builder.oci.platform import host_platform
    from cli.commands.version import facts as version_facts
    from runtime import hierarchies
    from runtime.rootless import rung

    store = app.store
    states = [container.state for container in every(store)]
    groups = hierarchies.probe()
    running = sum(state.running and state.status != "paused" for state in states)
    paused = sum(state.status == "paused" for state in states)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(store.images.list()),
        "Driver": store.snapshots.driver,
        "LoggingDriver": "json-file",
        "CgroupVersion": "2" if groups.pure_v2 else "1",
        "KernelVersion": os.uname().release,
        "OperatingSystem": _os_name(),
        "OSType": "linux",
        "Architecture": host_platform().architecture,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": memory,
        "Name": os.uname().nodename,
        "DockerRootDir": str(store.root),
        "Rootless": rung() != "root",
        "ServerVersion": version_facts()["Version"],
        "HttpProxy": _proxy(app, "http_proxy"),
        "HttpsProxy": _proxy(app, "https_proxy"),
        "NoProxy": _proxy(app, "no_proxy"),
        "Warnings": _warnings(groups.unified, groups.v1, groups.controllers),
    }


def _proxy(app: App, name: str) -> str:
    return next((value for key, value in app.settings.proxies if key.lower() == name), "")


def _warnings(unified: str, v1: dict[str, str], controllers: frozenset[str]) -> list[str]:
    known = set(v1) | set(controllers)
    out = []
    if not unified and not v1:
        return ["No cgroups: limits do not apply"]
    if "memory" not in known:
        out.append("No memory limit support")
    if "pids" not in known:
        out.append("No limit on processes")
    try:
        with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
            if file.read().strip() == "0":
                out.append("IPv4 forwarding is disabled")
    except OSError:
        pass
    return out


def _os_name() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.strip().partition("=")
                if key == "PRETTY_NAME":
                    return value.strip('"')
    except OSError:
        pass
    return "Linux"


def run(app: App, args: Args) -> int:
    """Print the facts."""
    found = facts(app)
    if args.text("format"):
        from cli.render.format import formatted

        app.say(formatted(args.text("format"), found))
        return 0
    lines = (
        ("Containers", found["Containers"]),
        (" Running", found["ContainersRunning"]),
        (" Paused", found["ContainersPaused"]),
        (" Stopped", found["ContainersStopped"]),
        ("Images", found["Images"]),
        ("Version", found["ServerVersion"]),
        ("Storage Driver", found["Driver"]),
        ("Logging Driver", found["LoggingDriver"]),
        ("Cgroup Version", found["CgroupVersion"]),
        ("Kernel Version", found["KernelVersion"]),
        ("Operating System", found["OperatingSystem"]),
        ("Architecture", found["Architecture"]),
        ("CPUs", found["NCPU"]),
        ("Total Memory", human_size(found["MemTotal"])),
        ("Name", found["Name"]),
        ("Rootless", str(found["Rootless"]).lower()),
        ("Root Dir", found["DockerRootDir"]),
        ("HTTP Proxy", found["HttpProxy"]),
        ("HTTPS Proxy", found["HttpsProxy"]),
        ("No Proxy", found["NoProxy"]),
    )
    for name, value in lines:
        if value != "":
            app.say(f"{name}: {value}")
    for warning in found["Warnings"]:
        app.note(f"WARNING: {warning}")
    return 0


COMMANDS = (
    Command(
        "info",
        "[OPTIONS]",
        "Show facts about this installation",
        run,
        flags=(text("format", "f", "Template, or json"),),
    ),
)
