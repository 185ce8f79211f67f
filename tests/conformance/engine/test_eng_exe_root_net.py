"""The root and the network of a RUN step, and what there is instead where they cannot be had (EXE-02, EXE-16)."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from builder.errors import PybuildError
from runtime import network
from runtime.network import in_namespace
from tests.support.buildlab import Built, Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]
LOOK = "FROM busybox\nRUN cat /proc/self/mountinfo > /m && echo new > /bin/made && rm /etc/group && touch /etc/passwd\n"


def root_mount(built: Built) -> tuple[str, set[str]]:
    """Type and options of the root; nothing that the step saw was shared with anybody."""
    found = {}
    for line in built.read("m").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        assert fields[6:] == [], f"propagates: {line}"
        found[fields[4]] = (right.split()[0], set(fields[5].split(",")))
    return found["/"]


@row("EXE-02")
def test_the_root_is_a_private_writable_overlay(lab: Lab) -> None:
    assert lab.store.snapshots.driver == "overlay"
    before = Path("/proc/self/mountinfo").read_text()
    built = lab.quick(LOOK)
    kind, options = root_mount(built)
    assert kind == "overlay" and "rw" in options and not options & {"nosuid", "nodev", "noexec"}
    assert built.read("bin/made") == "new\n" and not built.has("etc/group")
    base = Built(lab, lab.build(lab.context(), "FROM busybox\n"))
    assert base.has("etc/group") and not base.has("bin/made"), "the image below stays as it is"
    assert Path("/proc/self/mountinfo").read_text() == before, "nothing is mounted outside of the step"


@row("EXE-02")
def test_what_a_privileged_step_mounts_stays_in_it(lab: Lab) -> None:
    text = "FROM busybox\nRUN --security=insecure mkdir /inner && mount -t tmpfs mine{} /inner && cat /proc/self/mountinfo > /m\n"
    name = os.getpid()
    built = lab.quick(text.format(name), allow=("security.insecure",))
    root_mount(built)
    assert f"mine{name}" in built.read("m") and f"mine{name}" not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def on_overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory whose file system takes no overlay on top of it, as in many containers."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged):
        path.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    yield merged
    subprocess.run(["umount", merged], check=True)


@row("EXE-02")
def test_where_overlay_cannot_be_had_the_root_is_a_copy(on_overlay: Path) -> None:
    with closing(Lab(on_overlay)) as lab:
        assert lab.store.snapshots.driver == "native", "found out by trying"
        built = lab.quick(LOOK + "RUN cat /bin/made > /seen\n")
        _, options = root_mount(built)
        assert "rw" in options and not options & {"nosuid", "nodev", "noexec"}
        assert built.read("seen") == "new\n" and not built.has("etc/group")
        base = Built(lab, lab.build(lab.context(), "FROM busybox\n"))
        assert base.has("etc/group") and not base.has("bin/made")


NET = "FROM busybox\nRUN --network={} ls /sys/class/net > /n; readlink /proc/self/ns/net > /ns; cat /etc/resolv.conf > /r\n"


@row("EXE-16")
def test_none_is_the_loopback_only(lab: Lab) -> None:
    text = NET.format("none") + "RUN --network=none ip addr show lo > /lo; ip route > /routes\n"
    built = lab.quick(text, network="default")
    assert built.read("n").split() == ["lo"]
    assert "UP" in built.read("lo") and "127.0.0.1/8" in built.read("lo")
    assert built.read("routes") == ""
    assert built.read("ns").strip() != os.readlink("/proc/self/ns/net")


@row("EXE-16", "ENT-02")
def test_host_needs_the_entitlement(lab: Lab) -> None:
    with pytest.raises(PybuildError, match=r"network\.host is not allowed"):
        lab.quick(NET.format("host"))
    assert not lab.steps_run(), "before anything runs"
    built = lab.quick(NET.format("host"), allow=("network.host",))
    assert built.read("ns").strip() == os.readlink("/proc/self/ns/net")


@pytest.fixture
def outside() -> Iterator[tuple[str, int]]:
    """A machine beyond this one, without a way back to the bridge: it answers who it sees."""
    if network.unavailable_reason():
        pytest.skip(str(network.unavailable_reason()))
    net = f"198.18.{os.getpid() % 250}"
    far = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    try:
        while os.readlink(f"/proc/{far.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            pass
        name = f"pbo{os.getpid()}"
        command = f"ip link add {name} type veth peer name far netns {far.pid} && ip addr add {net}.1/24 dev {name} && ip link set {name} up"
        subprocess.run(["sh", "-c", command], check=True)
        ns = os.open(f"/proc/{far.pid}/ns/net", os.O_RDONLY)
        up = f"ip addr add {net}.2/24 dev far && ip link set far up"
        in_namespace(ns, lambda: subprocess.run(["sh", "-c", up], check=True))
        server = in_namespace(ns, lambda: socket.create_server((f"{net}.2", 0)))
        os.close(ns)

        def answer() -> None:
            try:
                with server.accept()[0] as client:
                    client.sendall(f"you are {client.getpeername()[0]}\n".encode())
            except OSError:
                pass

        worker = threading.Thread(target=answer)
        worker.start()
        yield f"{net}.2", server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        worker.join()
    finally:
        far.kill()
        far.wait()


@row("EXE-16")
def test_the_sandbox_has_a_network_of_its_own_and_reaches_others(lab: Lab, outside: tuple[str, int]) -> None:
    host, port = outside
    text = (
        NET.format("default") + f"RUN ip route > /routes; timeout 10 nc {host} {port} < /dev/null > /answer\n"
    )
    built = lab.quick(text, network="default")
    assert built.read("ns").strip() != os.readlink("/proc/self/ns/net")
    assert sorted(built.read("n").split()) == ["eth0", "lo"]
    assert built.read("routes").startswith("default via ")
    assert built.read("answer") == f"you are {host.rpartition('.')[0]}.1\n", (
        "with the address of this machine"
    )


@row("EXE-16")
def test_without_a_bridge_the_sandbox_is_the_hosts_network(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(NET.format("default") + "RUN cat /n /r /ns\n")
    built = subprocess.run(
        ["setpriv", "--bounding-set=-net_admin", *command.prefix, "build", "--progress=plain", "--no-cache", tmp_path],
        env=command.environment(), cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert built.stderr.count("WARN: RUN uses the host's network: a bridge needs CAP_NET_ADMIN") == 1
    assert os.readlink("/proc/self/ns/net") in built.stderr
    servers = [
        line for line in Path("/etc/resolv.conf").read_text().splitlines() if line.startswith("nameserver")
    ]
    assert all(line in built.stderr for line in servers)
