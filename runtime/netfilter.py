"""Masquerading and forwarding rules of the bridge, through ``iptables`` or, where that does not work,
``nft``.

``iptables`` comes first because a machine with another container engine usually drops forwarded packets by
policy there, and only a rule in the same table lifts that. Every rule carries a comment, and adding is
idempotent.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from runtime.errors import NotPermitted

_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def install(bridge: str, subnet: str) -> str:
    """Let containers of ``bridge`` reach the outside; returns the tool in use. NotPermitted when none
    works.
    """
    enable_forwarding()
    problems: list[str] = []
    for tool, attempt in (("iptables", _install_iptables), ("nft", _install_nft)):
        if shutil.which(tool) is None:
            problems.append(f"{tool}: not installed")
            continue
        problem = attempt(bridge, subnet)
        if problem is None:
            return tool
        problems.append(f"{tool}: {problem}")
    raise NotPermitted(
        "cannot set up address translation for the bridge",
        context=tuple(problems),
        hint="install iptables or nftables, or use --network host",
        code="no-masquerade",
    )


def installed(bridge: str, subnet: str, tool: str) -> bool:
    """Whether the masquerading rule is still there; ``tool`` is what ``install`` returned."""
    if tool == "iptables":
        return _run("iptables", "-w", "-t", "nat", "-C", *_masquerade(bridge, subnet)) is None
    if tool == "nft":
        return _run("nft", "list", "table", "ip", _nft_table(bridge)) is None
    return False


def remove(bridge: str, subnet: str) -> None:
    """Take back what ``install`` did; missing rules are fine. Forwarding stays on: others may rely on it."""
    if shutil.which("iptables") is not None:
        _run("iptables", "-w", "-t", "nat", "-D", *_masquerade(bridge, subnet))
        for rule in _forward(bridge):
            _run("iptables", "-w", "-D", *rule)
    if shutil.which("nft") is not None:
        _run("nft", "delete", "table", "ip", _nft_table(bridge))


def enable_forwarding() -> None:
    """Turn on IPv4 forwarding; NotPermitted when the kernel refuses."""
    try:
        if _IP_FORWARD.read_text().strip() == "1":
            return
        _IP_FORWARD.write_text("1\n")
    except OSError as error:
        raise NotPermitted(
            "cannot turn on IPv4 forwarding",
            context=(str(error),),
            hint="set net.ipv4.ip_forward=1, or use --network host",
            code="no-forwarding",
        ) from error


def _masquerade(bridge: str, subnet: str) -> tuple[str, ...]:
    return (
        *("POSTROUTING", "-s", subnet, "!", "-o", bridge),
        *("-m", "comment", "--comment", "pybuild", "-j", "MASQUERADE"),
    )


def _forward(bridge: str) -> tuple[tuple[str, ...], ...]:
    return (
        ("FORWARD", "-i", bridge, "-m", "comment", "--comment", "pybuild", "-j", "ACCEPT"),
        (
            *("FORWARD", "-o", bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"),
            *("-m", "comment", "--comment", "pybuild", "-j", "ACCEPT"),
        ),
    )


def _install_iptables(bridge: str, subnet: str) -> str | None:
    rule = _masquerade(bridge, subnet)
    if _run("iptables", "-w", "-t", "nat", "-C", *rule) is not None:
        problem = _run("iptables", "-w", "-t", "nat", "-A", *rule)
        if problem is not None:
            return problem
    for rule in _forward(bridge):
        if _run("iptables", "-w", "-C", *rule) is not None:
            problem = _run("iptables", "-w", "-I", *rule)
            if problem is not None:
                return problem
    return None


def _install_nft(bridge: str, subnet: str) -> str | None:
    table = _nft_table(bridge)
    script = f"""
add table ip {table}
flush table ip {table}
add chain ip {table} postrouting {{ type nat hook postrouting priority srcnat; }}
add rule ip {table} postrouting ip saddr {subnet} oifname != "{bridge}" masquerade
"""
    return _run("nft", "-f", "-", stdin=script)


def _nft_table(bridge: str) -> str:
    return "pybuild_" + "".join(c if c.isalnum() else "_" for c in bridge)


def _run(*command: str, stdin: str = "") -> str | None:
    """None when the command succeeds, else the last line of what it says."""
    import subprocess

    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
