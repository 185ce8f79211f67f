"""Networks for RUN steps: on the bridge, reused, gone with their build."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime import network
from runtime.buildnet import BuildNetworks
from runtime.network import BridgeConfig, in_namespace

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeConfig]:
    config = BridgeConfig(
        name=f"pbn{os.getpid() % 100000}",
        subnet=f"10.214.{os.getpid() % 200}.0/24",
        directory=tmp_path_factory.mktemp("net"),
    )
    if network.unavailable_reason():
        pytest.skip(str(network.unavailable_reason()))
    yield config
    network.teardown(config)
    assert not Path(f"/sys/class/net/{config.name}").exists()


@pytest.fixture()
def networks(bridge: BridgeConfig) -> Iterator[BuildNetworks]:
    made = BuildNetworks(bridge)
    yield made
    made.close()


def _ports(bridge: BridgeConfig) -> int:
    return len(os.listdir(f"/sys/class/net/{bridge.name}/brif"))


def test_a_step_reaches_the_gateway(networks: BuildNetworks, bridge: BridgeConfig) -> None:
    with networks.lease() as (lent, reason):
        assert reason == ""
        assert lent.mode == "path"
        assert lent.gateway == bridge.subnet.replace(".0/24", ".1")
        fd = os.open(lent.path, os.O_RDONLY)
        gateway = network.ensure_bridge(bridge).gateway
        with socket.create_server((gateway, 0)) as server:
            port = server.getsockname()[1]

            def call() -> str:
                with socket.create_connection((gateway, port), timeout=5) as client:
                    return str(client.getsockname()[0])

            own = in_namespace(fd, call)
            with server.accept()[0] as seen:
                assert seen.getpeername()[0] == own
        routes = in_namespace(fd, lambda: subprocess.check_output(["ip", "route"], text=True))
        links = in_namespace(fd, lambda: subprocess.check_output(["ip", "-br", "link"], text=True))
        os.close(fd)
    assert f"default via {gateway} dev eth0" in routes
    assert [line.split("@")[0].split()[0] for line in links.splitlines()] == ["lo", "eth0"]


def test_a_returned_network_is_used_again_unless_it_may_be_changed(networks: BuildNetworks) -> None:
    with networks.lease() as (first, _):
        pass
    with networks.lease(reusable=False) as (second, _):
        assert second.path == first.path
        inode = os.stat(second.path).st_ino
    with networks.lease() as (third, _):
        assert os.stat(third.path).st_ino != inode


def test_steps_at_the_same_time_get_different_networks(networks: BuildNetworks) -> None:
    paths: list[str] = []
    barrier = threading.Barrier(6)

    def step() -> None:
        with networks.lease() as (lent, reason):
            assert not reason
            paths.append(lent.path)
            barrier.wait(timeout=20)

    threads = [threading.Thread(target=step) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 6


def test_nothing_is_left_when_the_build_ends(bridge: BridgeConfig) -> None:
    networks = BuildNetworks(bridge)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(networks.lease())
        assert _ports(bridge) >= 3
    networks.close()
    for _ in range(100):
        if _ports(bridge) == 0:
            break
        threading.Event().wait(0.05)
    assert _ports(bridge) == 0
    assert str(bridge.directory) not in Path("/proc/self/mountinfo").read_text()


def test_no_bridge_means_the_hosts_network_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EXE-16."""
    monkeypatch.setattr("runtime.buildnet.unavailable_reason", lambda: "a bridge needs root")
    with BuildNetworks(BridgeConfig(directory=tmp_path)).lease() as (lent, reason):
        assert lent.mode == "host"
        assert reason == "a bridge needs root"
