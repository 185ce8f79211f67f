"""The network of a container that a monitor starts: its namespace, its links and its published ports."""

from __future__ import annotations

import os

from runtime import statefile, wire
from runtime.errors import ContainerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.eventloop import Loop
    from runtime.monitor_client import Client


def make(
    loop: Loop, client: Client, options: dict[str, Any], monitor: tuple[Any, ...]
) -> tuple[int, dict[str, Any]]:
    """Bind published ports, then make a namespace and have the starter connect it.

    Gives the namespace's descriptor, -1 for this process's own, and what the state says of the network.
    """
    bindings = []
    if options["ports"]:
        from runtime import proxy

        bindings = proxy.bind_all(tuple(port) for port in options["ports"])
    netns = -1
    network = {**statefile.NO_NETWORK, "mode": options["network_mode"]}
    if options["bridge"]:
        netns = _new_netns()
        network.update(_ask_for_links(client, netns, monitor))
    elif options["netns_path"]:
        # The path may be another container's /proc/<pid>/ns/net: keep what it means now.
        netns = os.open(options["netns_path"], os.O_RDONLY | os.O_CLOEXEC)
    if netns >= 0:
        network["sandbox_key"] = f"/proc/{os.getpid()}/fd/{netns}"
    if bindings:
        from runtime import proxy

        proxy.serve(loop, bindings, str(network["ip_address"]))
        network["ports"] = [list(binding.port) for binding in bindings]
    return netns, network


def _ask_for_links(client: Client, netns: int, monitor: tuple[Any, ...]) -> dict[str, Any]:
    """Have the starter, who may import more than we do, connect the namespace; blocks for its answer."""
    _, start, boot = monitor
    question = {"pid": os.getpid(), "fd": netns, "start": start, "boot": boot}
    kind, payload = client.ask(wire.NETWORK, wire.pack(question))
    if kind != wire.NETWORK:
        raise ContainerError("the network of the container could not be set up", code="network-failed")
    answer: dict[str, Any] = wire.unpack(payload)
    return answer


def _new_netns() -> int:
    """A new network namespace; this process stays where it is."""
    from runtime.syscalls.constants import CLONE_NEWNET
    from runtime.syscalls.linux import KERNEL

    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        KERNEL.unshare(CLONE_NEWNET)
        made = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        KERNEL.setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
    return made
