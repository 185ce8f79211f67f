"""State files, logs, frames, addresses, hosts files: the parts below a running container."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime import hosts, ipam, specfile, state, statefile, wire
from runtime.detachkeys import DetachKeys, parse_detach_keys
from runtime.errors import ContainerError, NoSuchContainer
from runtime.hosts import BadHostEntry
from runtime.jsonlog import parse_time, read_log
from runtime.logwriter import PIECE, LogWriter
from runtime.spec import BindMount, ContainerSpec, Device, FileMount, Limits, OverlayRoot, Rlimit, TmpfsMount
from runtime.specfile import MonitorOptions, RestartPolicy
from runtime.state import NetworkState, PortState, ProcessRef, State


def test_state_round_trip(tmp_path: Path) -> None:
    found = State(
        status="running",
        process=state.process_ref(os.getpid()),
        monitor=state.process_ref(os.getpid()),
        exit_code=3,
        error='quote " and \u00e9',
        network=NetworkState(mode="bridge", ports=(PortState(container_port=80, host_port=8080),)),
        execs=("a",),
    )
    state.write(tmp_path, found)
    assert state.read(tmp_path) == state.observe(tmp_path) == found


def test_plain_state_writer_makes_the_same_json() -> None:
    """The monitor writes without the json module."""
    import json

    document = statefile.new_document()
    assert json.loads(statefile.to_json(document)) == json.loads(json.dumps(document))
    assert state.from_json(json.loads(statefile.to_json(document))) == State()
    odd = {"a": [1, None, True, -2.5, 'x\n"\\\u20ac\udc80'], "b": {}}
    assert json.loads(statefile.to_json(odd)) == odd
    with pytest.raises(TypeError):
        statefile.to_json(object())


def test_processes_are_known_by_start_time() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ref = state.process_ref(child.pid)
    assert ref.alive()
    assert not ProcessRef(ref.pid, ref.start + 1, ref.boot).alive()
    assert not ProcessRef(ref.pid, ref.start, "another boot").alive()
    child.kill()
    child.wait()
    assert not ref.alive()
    assert not ProcessRef().alive()


def test_running_without_processes_becomes_exited(tmp_path: Path) -> None:
    """LIF-BOOT."""
    gone = ProcessRef(2**22, 1, state.boot_id())
    state.write(tmp_path, State(status="running", process=gone, monitor=gone))
    found = state.observe(tmp_path)
    assert (found.status, found.exit_code) == ("exited", 255)
    assert found.error == state.MONITOR_LOST
    assert state.read(tmp_path) == found
    state.write(tmp_path, State(status="running", process=state.process_ref(os.getpid()), monitor=gone))
    assert state.observe(tmp_path).monitor_lost


@pytest.mark.parametrize("text", ["", "{", "[]", '{"status": "wat"}', "null"])
def test_damaged_state_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ContainerError) as caught:
        state.read(tmp_path)
    assert caught.value.code == "container-state-damaged"
    with pytest.raises(NoSuchContainer):
        state.read(tmp_path / "none")


def test_spec_round_trip(tmp_path: Path) -> None:
    spec = ContainerSpec(
        id="x",
        root=OverlayRoot(lowers=("/a", "/b"), upper="/u", work="/w"),
        args=("sh", "-c", "\udcff"),
        env=("A=1",),
        mounts=(
            BindMount(target="/t", source="/s", readonly=True),
            TmpfsMount(target="/m", size_bytes=1),
            FileMount(target="/f", data=b"\0\xff"),
        ),
        shared=(("pid", ""), ("ipc", "/proc/1/ns/ipc")),
        devices=(Device(path="/dev/x", type="c", major=1, minor=2),),
        rlimits=(Rlimit(name="nofile", soft=1, hard=-1),),
        limits=Limits(memory_bytes=1),
        oom_score_adj=5,
    )
    options = MonitorOptions(
        stdin=True,
        restart=RestartPolicy(name="on-failure", maximum=2),
        ports=(PortState(container_port=1),),
        on_exit=("a", "b"),
    )
    specfile.write(tmp_path, spec, options)
    assert specfile.read(tmp_path) == (spec, options)
    (tmp_path / "spec.json").write_text('{"spec": {"": "Nope"}, "options": {}}')
    with pytest.raises(ContainerError):
        specfile.read(tmp_path)


def test_frames_survive_any_cut() -> None:
    data = (
        wire.frame(wire.STDOUT, b"abc")
        + wire.frame(wire.EXIT, wire.pack({"code": 3}))
        + wire.frame(wire.WAIT)
    )
    for size in (1, 2, 7, len(data)):
        reader = wire.FrameReader()
        frames = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
        assert [kind for kind, _ in frames] == [wire.STDOUT, wire.EXIT, wire.WAIT]
        assert wire.unpack(frames[1][1]) == {"code": 3}
    with pytest.raises(wire.BrokenFrame):
        wire.FrameReader().feed(b"O\xff\xff\xff\xff")


def test_log_lines_pieces_and_bytes(tmp_path: Path) -> None:
    """IO-LOGS-2."""
    path = tmp_path / "log"
    log = LogWriter(str(path))
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"err\r\n")
    log.write("stdout", b"o\n" + b"x" * (PIECE + 5) + b"\n\xff\xfe\n")
    log.write("stdout", b"rest")
    log.close()
    entries = list(read_log(path))
    assert b"".join(e.data for e in entries if e.stream == "stdout") == (
        b"one\ntwo\n" + b"x" * (PIECE + 5) + b"\n\xff\xfe\nrest"
    )
    assert [e.data for e in entries if e.stream == "stderr"] == [b"err\r\n"]
    assert [e.data for e in read_log(path, tail=1)] == [b"rest"]
    assert b"".join(e.data for e in read_log(path, tail=3)) == b"x" * (PIECE + 5) + b"\n\xff\xfe\nrest"
    assert list(read_log(path, tail=0)) == []
    last = entries[-1].time_ns
    assert [e.data for e in read_log(path, since_ns=last)][-1] == b"rest"
    assert list(read_log(path, since_ns=last + 1)) == []
    assert list(read_log(tmp_path / "none")) == []


def test_log_rotates(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogWriter(str(path), max_size=400, max_files=3)
    for number in range(30):
        log.write("stdout", f"{number:03d}\n".encode())
    log.close()
    assert {p.name for p in tmp_path.iterdir()} == {"log", "log.1", "log.2"}
    kept = [int(e.data) for e in read_log(path)]
    assert kept == list(range(kept[0], 30))


def test_log_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogWriter(str(path))
    log.write("stdout", b"1\n")
    running = [True]

    def more() -> None:
        log.write("stdout", b"2\n")
        log.close()
        running[0] = False

    entries = read_log(path, follow=lambda: running[0], poll_s=0.01)
    assert next(entries).data == b"1\n"
    threading.Timer(0.05, more).start()
    assert [e.data for e in entries] == [b"2\n"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10 * 10**9),
        ("1.5", 1_500_000_000),
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T01:00:00.000000007+01:00", 7),
        ("wat", None),
        ("", None),
    ],
)
def test_times(text: str, value: int | None) -> None:
    assert parse_time(text) == value


def test_detach_keys() -> None:
    keys = DetachKeys(parse_detach_keys("ctrl-p,ctrl-q"))
    assert keys.feed(b"abc") == (b"abc", False)
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b") == (b"\x10b", False)
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x11z") == (b"", True)
    assert parse_detach_keys("a,ctrl-[") == b"a\x1b"
    assert parse_detach_keys("") == b""
    for text in ("ctrl-", "ab", "ctrl-1"):
        with pytest.raises(ContainerError):
            parse_detach_keys(text)


def test_addresses_are_given_once_and_come_back(tmp_path: Path) -> None:
    network = ipaddress.IPv4Network("10.0.0.0/29")
    me = state.process_ref(os.getpid())
    with ipam.locked(tmp_path):
        got = [ipam.allocate(tmp_path, network, me) for _ in range(5)]
        assert got == [f"10.0.0.{n}" for n in range(2, 7)]
        with pytest.raises(ipam.NoFreeAddress):
            ipam.allocate(tmp_path, network, me)
        ipam.release(tmp_path, "10.0.0.4")
        assert ipam.allocate(tmp_path, network, ProcessRef(2**22, 1, state.boot_id())) == "10.0.0.4"
        assert ipam.allocate(tmp_path, network, me) == "10.0.0.4"  # its owner is dead
    (tmp_path / "addresses.json").write_text("damaged")
    with ipam.locked(tmp_path):
        assert ipam.allocate(tmp_path, network, me) == "10.0.0.2"
    assert ipam.mac_address("172.17.0.2") == "02:42:ac:11:00:02"


def test_hosts_file() -> None:
    """EXE-14, NET-08."""
    text = hosts.hosts_file("box", extra=(("db", "10.0.0.1"), ("six", "fe80::1")))
    assert text == (
        "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\nfe80::1\tsix\n"
    )
    assert hosts.hosts_file("box", address="10.0.0.9").endswith("10.0.0.9\tbox\n")
    assert hosts.hostname_file("box") == "box\n"
    assert hosts.parse_add_host("n:::1") == ("n", "::1")
    assert hosts.parse_add_host("n=[::1]") == ("n", "::1")
    assert hosts.parse_add_host("h:host-gateway", gateway="10.0.0.1") == ("h", "10.0.0.1")
    for entry in ("", "x", "x:", ":1.2.3.4", "x:nope", "x:1.2.3.4\nevil", "a b:1.2.3.4", "x:host-gateway"):
        with pytest.raises(BadHostEntry):
            hosts.parse_add_host(entry)


def test_resolv_conf(tmp_path: Path) -> None:
    """EXE-15, NET-09."""
    host = "# comment\nsearch a b\nnameserver 127.0.0.1\nnameserver 10.0.0.1\noptions ndots:2\n"
    assert hosts.resolv_conf(host, isolated=False) == host
    assert hosts.resolv_conf(host, isolated=True) == "search a b\noptions ndots:2\nnameserver 10.0.0.1\n"
    only_local = hosts.resolv_conf("nameserver ::1\n", isolated=True)
    assert hosts.nameservers(only_local) == hosts.PUBLIC_NAMESERVERS
    given = hosts.resolv_conf(host, isolated=True, dns=("10.9.9.9",), search=("x",), options=("rotate",))
    assert given == "nameserver 10.9.9.9\nsearch x\noptions rotate\n"
    assert "search" not in hosts.resolv_conf(host, isolated=False, search=(".",))
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "real").write_text("nameserver 10.1.1.1\n")
    found = hosts.host_resolv_conf(path=tmp_path / "stub", systemd_path=tmp_path / "real")
    assert hosts.nameservers(found) == ("10.1.1.1",)


def test_monitor_imports_little() -> None:
    """A monitor must start quickly: nothing that a bare interpreter does without."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import runtime.monitor;"
        "print([m for m in ('re', 'json', 'enum', 'dataclasses', 'typing', 'pathlib', 'socket', 'signal', 'subprocess')"
        " if m in sys.modules])"
    )
    root = str(Path(state.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
