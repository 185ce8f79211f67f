"""The bridge, published ports, shared namespaces, generated files."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import containers as c
from builder.containers import networking, options
from builder.errors import PybuildError
from runtime import network
from runtime.network import BridgeConfig
from tests.support.containerlab import ContainerLab, container_lab

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeConfig]:
    number = os.getpid() % 200
    config = BridgeConfig(
        name=f"pbt{os.getpid() % 100000}",
        subnet=f"10.213.{number}.0/24",
        directory=tmp_path_factory.mktemp("net"),
    )
    if network.unavailable_reason():
        pytest.skip(str(network.unavailable_reason()))
    yield config
    network.teardown(config)
    assert not Path(f"/sys/class/net/{config.name}").exists()
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True).stdout
    assert config.name not in rules


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, bridge: BridgeConfig) -> Iterator[ContainerLab]:
    patch = pytest.MonkeyPatch()
    patch.setattr(networking, "bridge_config", lambda: bridge)
    with container_lab(tmp_path_factory.mktemp("containers")) as made:
        yield made
    patch.undo()


def test_none_has_only_loopback(lab: ContainerLab) -> None:
    """NET-01."""
    assert lab.sh("ls /sys/class/net; cat /sys/class/net/lo/operstate", network="none").split() == [
        "lo",
        "unknown",
    ]


def test_bridge_gives_an_address_and_a_route(lab: ContainerLab, bridge: BridgeConfig) -> None:
    """NET-04, NET-05, NET-08."""
    made = lab.start(
        "sleep", "100", network="bridge", hostname="web", extra_hosts=("db:10.1.2.3", "up:host-gateway")
    )
    settings = c.inspect_container(lab.store, made.id)["NetworkSettings"]
    address, gateway = settings["IPAddress"], settings["Gateway"]
    assert address.startswith(bridge.subnet.rpartition(".")[0])
    assert settings["MacAddress"] == "02:42:" + ":".join(f"{int(b):02x}" for b in address.split("."))
    _, text = lab.execute(made.id, "sh", "-c", "ip route; cat /etc/hosts; cat /etc/resolv.conf")
    assert f"default via {gateway}" in text
    assert f"{address}\tweb\n" in text
    assert "10.1.2.3\tdb\n" in text
    assert f"{gateway}\tup\n" in text
    assert "nameserver " in text
    assert lab.execute(made.id, "sh", "-c", f"nc -z -w 2 {gateway} 1; true")[0] == 0
    c.kill(lab.store, made.id)
    link = network.host_link_name(bridge.name, address)
    lab.wait_for(lambda: not Path(f"/sys/class/net/{link}").exists())


def test_containers_reach_each_other_and_share_a_stack(lab: ContainerLab) -> None:
    """EX-66, NET-03."""
    server = lab.start("sh", "-c", "echo hello | nc -l -p 7000", network="bridge", name="server")
    address = c.find(lab.store, "server").state.network.ip_address
    time.sleep(0.1)
    assert lab.sh(f"nc -w 2 {address} 7000", network="bridge") == "hello\n"
    assert c.wait(lab.store, server.id) == 0
    other = lab.start("sh", "-c", "echo inner | nc -l -p 7001", network="bridge", name="inner")
    time.sleep(0.1)
    assert lab.sh("nc -w 2 127.0.0.1 7001", network="container:inner") == "inner\n"
    c.wait(lab.store, other.id)
    with pytest.raises(PybuildError) as caught:
        lab.run("true", network="container:inner")
    assert caught.value.code == "container-conflict"


def test_published_ports_work_over_loopback(lab: ContainerLab) -> None:
    """NET-07, EX-69, RUN-28."""
    script = "while :; do echo answer | nc -l -p 8000; done"
    made = lab.start("sh", "-c", script, network="bridge", ports=options.ports("127.0.0.1::8000"))
    (row,) = c.port(lab.store, made.id)
    assert (row.container_port, row.host_ip) == (8000, "127.0.0.1")
    assert 49153 <= row.host_port <= 65535
    assert c.port(lab.store, made.id, "8000") == c.port(lab.store, made.id, "8000/tcp") == (row,)
    with pytest.raises(PybuildError) as caught:
        c.port(lab.store, made.id, "8000/udp")
    assert caught.value.message.startswith("No public port '8000/udp'")
    assert f"127.0.0.1:{row.host_port}->8000/tcp" in c.ps(lab.store)[0].ports
    lab.wait_for(lambda: _ask(row.host_port) == b"answer\n")
    with pytest.raises(PybuildError) as caught:
        lab.run("true", network="bridge", ports=options.ports(f"127.0.0.1:{row.host_port}:80"))
    assert caught.value.code == "port-unavailable"
    c.kill(lab.store, made.id)
    lab.wait_for(lambda: _ask(row.host_port) is None)


def _ask(port: int) -> bytes | None:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
            sock.shutdown(socket.SHUT_WR)
            data = b""
            while chunk := sock.recv(100):
                data += chunk
            return data
    except OSError:
        return None


def test_much_data_through_a_published_port(lab: ContainerLab) -> None:
    made = lab.start(
        "sh", "-c", "nc -l -p 9000 | wc -c", network="bridge", ports=options.ports("127.0.0.1::9000")
    )
    (row,) = c.port(lab.store, made.id)
    data = bytes(5_000_000)
    time.sleep(0.15)
    with socket.create_connection(("127.0.0.1", row.host_port), timeout=5) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert c.wait(lab.store, made.id) == 0
    assert b"".join(e.data for e in c.logs(lab.store, made.id)).strip() == b"5000000"


def test_udp_is_forwarded(lab: ContainerLab) -> None:
    """The echo server is ours, in the container's network namespace: its busybox knows no datagrams."""
    made = lab.start("sleep", "100", network="bridge", ports=options.ports("127.0.0.1::9001/udp"))
    (row,) = c.port(lab.store, made.id)
    found = c.find(lab.store, made.id).state
    netns = os.open(f"/proc/{found.process.pid}/ns/net", os.O_RDONLY)
    inner = network.in_namespace(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    os.close(netns)
    with inner, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outer:
        inner.settimeout(3)
        outer.settimeout(3)
        inner.bind((found.network.ip_address, 9001))
        for word in (b"ping", b"again"):
            outer.sendto(word, ("127.0.0.1", row.host_port))
            data, peer = inner.recvfrom(100)
            inner.sendto(data.upper(), peer)
            assert outer.recv(100) == word.upper()
    c.kill(lab.store, made.id)


def test_publish_all_takes_every_exposed_port(lab: ContainerLab) -> None:
    """EX-68."""
    made = lab.start("sleep", "100", network="bridge", publish_all=True, expose=("9100-9101", "53/udp"))
    rows = {(row.container_port, row.protocol) for row in c.port(lab.store, made.id)}
    assert rows == {(8000, "tcp"), (9100, "tcp"), (9101, "tcp"), (53, "udp")}
    c.kill(lab.store, made.id)


def test_restarted_by_policy_keeps_its_network(lab: ContainerLab) -> None:
    made = lab.start(
        "sh", "-c", "ip -4 addr show eth0; exit 1", network="bridge", restart=options.restart("on-failure:1")
    )
    assert c.wait(lab.store, made.id) == 1
    lines = [e.data for e in c.logs(lab.store, made.id) if b"inet " in e.data]
    assert len(lines) == 2
    assert lines[0] == lines[1]
