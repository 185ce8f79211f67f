"""What a RUN step sees: namespaces, mounts, rights, devices, network, limits (EXE-01, 03…09, 13…15, 17, 18, 24)."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import SolveError
from builder.llb.definition import LinuxResources
from builder.llb.ops import Ulimit
from builder.solver.progress import LogEvent
from builder.solver.solver import solve
from runtime import capabilities, hierarchies
from runtime.hosts import host_resolv_conf, resolv_conf
from runtime.launcher import Launcher
from runtime.plan import MASKED_PATHS, READONLY_PATHS
from runtime.spec import Limits
from tests.support.buildlab import Built, Lab
from tests.support.rows import row
from tests.support.solving import BASE, definition, env_for, run

pytestmark = pytest.mark.root
DEFAULT_CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
]
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


@pytest.fixture(scope="module")
def seen(lab: Lab) -> Built:
    """One step that writes down what it sees."""
    return lab.quick(
        "FROM busybox\nRUN mkdir /seen; cd /seen; cat /proc/self/mountinfo > mounts; cat /proc/self/status > status; echo $$ > pid;"
        " for n in pid ipc uts mnt net cgroup; do readlink /proc/self/ns/$n >> ns; done;"
        " cat /etc/hosts > hosts; cat /etc/resolv.conf > resolv; ls /dev > dev; hostname > hostname; ls /run > run; ls /sys/class/net > net;"
        " (echo x > /etc/hosts; echo x > /etc/resolv.conf; echo x > /proc/sys/kernel/hostname; echo x > /proc/sysrq-trigger) 2> refused;"
        " cat > stdin; ulimit -n > nofile; for p in " + " ".join(MASKED) + "; do test -e $p && echo $p $(ls -A $p 2>/dev/null | grep -v ^$p$ | wc -l)"
        " $(head -c 9 $p 2>/dev/null | wc -c) >> masked; done;"
        " mknod=$(busybox mknod b b 8 0 && head -c 1 b 2>&1); echo $mknod > disk; busybox unshare -U true 2> unshare;"
        " echo to-out; echo to-err >&2; (sleep 200; touch /late) > /dev/null 2>&1 & true\n"
    )  # fmt: skip


def mounts(built: Built, path: str = "seen/mounts") -> dict[str, tuple[str, set[str], str]]:
    """By mount point: type, options of mount and file system, optional fields. The last one counts."""
    found = {}
    for line in built.read(path).splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        found[fields[4]] = (more[0], {*fields[5].split(","), *more[2].split(",")}, " ".join(fields[6:]))
    return found


@row("EXE-01")
def test_namespaces_are_new_and_all_ends_with_the_command(seen: Built) -> None:
    names = seen.read("seen/ns").split()
    assert len(names) == 6
    assert not set(names) & {
        os.readlink(f"/proc/self/ns/{n}") for n in ("pid", "ipc", "uts", "mnt", "net", "cgroup")
    }
    assert seen.read("seen/pid") == "1\n"
    assert not seen.has("late")
    assert (
        "sleep 200"
        not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    )


@row("EXE-03")
def test_default_mounts(seen: Built) -> None:
    found = mounts(seen)
    wanted = {
        "/proc": ("proc", {"nosuid", "noexec", "nodev"}),
        "/dev": ("tmpfs", {"nosuid", "mode=755", "size=65536k"}),
        "/dev/pts": ("devpts", {"gid=5", "mode=620", "ptmxmode=666"}),
        "/dev/shm": ("tmpfs", {"nosuid", "noexec", "nodev", "size=65536k"}),
        "/dev/mqueue": ("mqueue", {"nosuid", "noexec", "nodev"}),
        "/sys": ("sysfs", {"ro", "nosuid", "noexec", "nodev"}),
    }
    for path, (kind, options) in wanted.items():
        assert found[path][0] == kind
        assert options <= found[path][1], path
    assert {"ro", "nosuid", "noexec", "nodev"} <= found["/sys/fs/cgroup"][1]
    assert "/run" not in found


@row("EXE-04")
def test_generated_files_are_read_only_and_in_no_layer(seen: Built) -> None:
    found = mounts(seen)
    for path in ("/etc/hosts", "/etc/resolv.conf"):
        assert {"ro", "nosuid", "noexec", "nodev"} <= found[path][1]
    assert seen.read("seen/refused").count("Read-only") + seen.read("seen/refused").count("can't create") >= 2
    assert not seen.has("etc/hosts") and not seen.has("etc/resolv.conf")


@row("EXE-05")
def test_masked_and_read_only_paths(seen: Built) -> None:
    assert set(MASKED_PATHS) == set(MASKED)
    assert set(READONLY_PATHS) == set(READONLY)
    found = mounts(seen)
    rows = [line.split() for line in seen.read("seen/masked").splitlines()]
    assert rows
    for path, listed, size in rows:
        assert (path in found, listed, size) == (True, "0", "0"), path
    for path in READONLY:
        if os.path.exists(path):
            assert "ro" in found[path][1], path


@row("EXE-06")
def test_capabilities(seen: Built) -> None:
    status = dict(line.split(":", 1) for line in seen.read("seen/status").splitlines())
    mask = capabilities.mask(tuple(f"CAP_{name}" for name in DEFAULT_CAPABILITIES))
    assert {name: int(status[name], 16) for name in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")} == {
        "CapBnd": mask, "CapEff": mask, "CapPrm": mask, "CapInh": 0, "CapAmb": 0,
    }  # fmt: skip
    assert status["NoNewPrivs"].strip() == "0"


@row("EXE-07")
def test_system_calls_are_filtered(seen: Built) -> None:
    status = dict(line.split(":", 1) for line in seen.read("seen/status").splitlines())
    assert status["Seccomp"].strip() == "2"
    assert "not permitted" in seen.read("seen/unshare"), (
        "a new user namespace needs no capability: the filter refuses it"
    )


@row("EXE-08")
def test_devices(seen: Built) -> None:
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts"} <= set(
        seen.read("seen/dev").split()
    )
    assert not {"sda", "kmsg", "mem", "fuse", "kvm"} & set(seen.read("seen/dev").split())
    assert "not permitted" in seen.read("seen/disk"), "a node can be made, but not opened"


@row("EXE-09")
def test_insecure(lab: Lab) -> None:
    text = (
        "FROM busybox\nRUN --security=insecure grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status > /s;"
        " cat /proc/self/mountinfo > /m; ls /dev > /d; busybox unshare -U true && echo y > /u\n"
    )
    with pytest.raises(SolveError, match=r"security\.insecure is not allowed"):
        lab.quick(text)
    built = lab.quick(text, allow=("security.insecure",))
    effective, bounding, seccomp = (line.split()[1] for line in built.read("s").splitlines())
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    ours = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    assert int(effective, 16) == int(bounding, 16) == int(ours, 16) & ((2 << last) - 1)
    assert seccomp == "0"
    found = mounts(built, "m")
    assert not set(found) & {*MASKED, *READONLY}
    assert "rw" in found["/sys"][1] and "rw" in found["/sys/fs/cgroup"][1] - {"ro"}
    assert built.read("u") == "y\n"
    for name in ("kmsg", "fuse", "kvm", "loop-control"):
        assert (name in built.read("d").split()) == os.path.exists(f"/dev/{name}"), name


@row("EXE-13", "EXE-14")
def test_hostname_and_hosts(lab: Lab, seen: Built) -> None:
    assert seen.read("seen/hostname") == "buildkitsandbox\n"
    assert (
        seen.read("seen/hosts")
        == "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    )
    built = lab.quick(
        "FROM busybox\nRUN hostname > /n; cat /etc/hosts > /h\n",
        build_args=(("BUILDKIT_SANDBOX_HOSTNAME", "mine"),),
        extra_hosts=(("db", "10.0.0.1"), ("six", "::2")),
    )
    assert built.read("n") == "mine\n"
    assert built.read("h") == (
        "127.0.0.1\tlocalhost mine\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n::2\tsix\n"
    )


@row("EXE-15")
def test_name_servers(lab: Lab, seen: Built, tmp_path: Path) -> None:
    host = host_resolv_conf()
    text = "FROM busybox\nRUN cat /etc/resolv.conf > /r\n"
    assert lab.quick(text, network="host").read("r") == host
    assert seen.read("seen/resolv") == resolv_conf(host, isolated=True)
    assert resolv_conf("nameserver 127.0.0.1\nnameserver 9.9.9.9\n", isolated=True) == "nameserver 9.9.9.9\n"
    assert resolv_conf("nameserver ::1\n", isolated=True) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n")
    real.write_text("nameserver 10.1.1.1\n")
    assert host_resolv_conf(path=stub, systemd_path=real) == "nameserver 10.1.1.1\n"
    own = resolv_conf(
        "search a\noptions x\n", isolated=False, dns=("1.1.1.1",), search=("b",), options=("ndots:1",)
    )
    assert own == "nameserver 1.1.1.1\nsearch b\noptions ndots:1\n"


@row("EXE-17")
def test_control_groups(lab: Lab) -> None:
    assert hierarchies.group_path("id", "/my/parent") == "my/parent/pybuild/id"
    assert hierarchies.group_path("id", "system.slice:") == "system.slice/id.scope"
    parent = f"parent{os.getpid()}"
    head = run("sleep 1", BASE, meta={"cgroup_parent": parent})
    head = replace(head, meta=replace(head.meta, resources=LinuxResources(memory_bytes=32 << 20)))
    limits: set[str] = set()
    with Launcher.start() as launcher, env_for(lab.store, launcher) as env:
        worker = threading.Thread(target=solve, args=(definition(head, BASE), env))
        worker.start()
        while worker.is_alive():
            for group in Path("/sys/fs/cgroup").glob(f"**/{parent}/pybuild/build-*"):
                for name in ("memory.limit_in_bytes", "memory.max"):
                    if (group / name).exists():
                        limits.add((group / name).read_text().strip())
            time.sleep(0.05)
        worker.join()
    for place in Path("/sys/fs/cgroup").glob(f"**/{parent}"):
        (place / "pybuild").rmdir()
        place.rmdir()
    assert str(32 << 20) in limits
    text = "FROM busybox\nRUN head -c 100m /dev/zero | tail > /dev/null\n"
    with pytest.raises(SolveError, match="cannot allocate memory"):
        lab.quick(text, limits=Limits(memory_bytes=24 << 20, memory_swap_bytes=24 << 20))


@row("EXE-18")
def test_ulimits(lab: Lab, seen: Built) -> None:
    soft = subprocess.run(["sh", "-c", "ulimit -n"], capture_output=True, text=True, check=True).stdout
    assert seen.read("seen/nofile") == soft
    built = lab.quick(
        "FROM busybox\nRUN ulimit -Sn > /s; ulimit -Hn > /h; ulimit -Sc > /c\n",
        ulimits=(Ulimit(name="nofile", soft=64, hard=128), Ulimit(name="core", soft=0, hard=0)),
    )
    assert (built.read("s"), built.read("h"), built.read("c")) == ("64\n", "128\n", "0\n")


@row("EXE-24")
def test_streams(lab: Lab, seen: Built) -> None:
    assert seen.read("seen/stdin") == ""
    lab.quick("FROM busybox\nRUN readlink /proc/self/fd/0; echo err-line >&2\n")
    streams = {event.stream: bytes(event.data) for event in lab.watcher.events if isinstance(event, LogEvent)}
    assert b"/dev/null" in streams[1] and b"err-line" in streams[2]
