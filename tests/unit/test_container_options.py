"""Docker's option texts as values."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from builder.containers import names, options
from builder.containers.types import BadOption, CreateRequest, PortRequest, VolumeRequest
from runtime.spec import Limits, Rlimit


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512", 512),
        ("1k", 1024),
        ("512mb", 512 << 20),
        ("2G", 2 << 30),
        ("1.5g", 3 << 29),
        ("1GiB", 1 << 30),
        ("-1", -1),
        ("0", 0),
        ("64b", 64),
    ],
)
def test_sizes(text: str, value: int) -> None:
    """ISO-15."""
    assert options.size(text) == value


@pytest.mark.parametrize("text", ["", "x", "12q", "1.2.3m", "-5m", "nan", "inf", "k"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(BadOption):
        options.size(text)


def test_volumes() -> None:
    """VOL-01, VOL-12."""
    cwd = Path("/here")
    assert options.volume("/data") == VolumeRequest(target="/data")
    assert options.volume("name:/data:ro") == VolumeRequest(target="/data", source="name", readonly=True)
    assert options.volume("/h:/c:ro,rslave") == VolumeRequest(
        target="/c", source="/h", kind="bind", readonly=True, propagation="rslave"
    )
    assert options.volume("./rel:/c", cwd=cwd).source == "/here/rel"
    assert options.volume(".:/c", cwd=cwd).source == "/here"
    assert options.volume("/c:ro") == VolumeRequest(target="/c", readonly=True)
    assert options.volume("/h:/a/../c/").target == "/c"
    assert options.volume("n:/c:nocopy").copy is False


@pytest.mark.parametrize(
    "text", ["", ":", "/a:", ":/a", "/a:/b:ro:x", "/h:relative", "/h:/", "/h:/c:wat", "rel"]
)
def test_bad_volumes(text: str) -> None:
    with pytest.raises(BadOption):
        options.volume(text)


def test_mounts_and_tmpfs() -> None:
    assert options.mount("type=bind,src=/h,dst=/c,readonly") == VolumeRequest(
        target="/c", source="/h", kind="bind", readonly=True, create_source=False
    )
    assert options.mount("type=volume,source=v,target=/c,volume-nocopy") == VolumeRequest(
        target="/c", source="v", copy=False
    )
    assert options.mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").tmpfs_mode == 0o700
    assert options.tmpfs("/run:size=64m,mode=1770,ro") == VolumeRequest(
        target="/run", kind="tmpfs", readonly=True, tmpfs_size=64 << 20, tmpfs_mode=0o1770
    )
    for text in ("type=nfs,target=/x", "type=bind,source=/a", "type=volume,target=/x,zzz=1"):
        with pytest.raises(BadOption):
            options.mount(text)
    with pytest.raises(BadOption):
        options.tmpfs("/x:wat")


def test_ports() -> None:
    """RUN-28."""
    assert options.ports("80") == (PortRequest(container_port=80),)
    assert options.ports("8080:80/udp") == (PortRequest(container_port=80, protocol="udp", host_port=8080),)
    assert options.ports("127.0.0.1::80") == (PortRequest(container_port=80, host_ip="127.0.0.1"),)
    assert options.ports("[::1]:81:80") == (PortRequest(container_port=80, host_ip="::1", host_port=81),)
    assert [(p.host_port, p.container_port) for p in options.ports("7000-7001:80-81")] == [
        (7000, 80),
        (7001, 81),
    ]
    assert options.ports("127.0.0.1:0:80") == options.ports("127.0.0.1::80")
    assert options.exposed("1-2/udp") == ((1, "udp"), (2, "udp"))


@pytest.mark.parametrize(
    "text", ["", "x", "0", "70000", "1:2:3:4", "1-3:1-2", "80/sctp", "1.2.3:1:2", "[::1]80", "5-4"]
)
def test_bad_ports(text: str) -> None:
    with pytest.raises(BadOption):
        options.ports(text)


def test_devices_ulimits_restart() -> None:
    device = options.device("/dev/x:/dev/y:r")
    assert (device.host, device.container, device.access) == ("/dev/x", "/dev/y", "r")
    assert options.device("/dev/x").container == "/dev/x"
    assert options.device("/dev/x:rw").access == "rw"
    assert options.ulimit("nofile=10:20") == Rlimit(name="nofile", soft=10, hard=20)
    assert options.ulimit("core=-1") == Rlimit(name="core", soft=-1, hard=-1)
    assert options.restart("on-failure:50").maximum == 50
    assert options.restart("always").name == "always"
    for call, text in (
        (options.device, "x"),
        (options.ulimit, "nofile=3:2"),
        (options.ulimit, "wat=1"),
        (options.ulimit, "nofile=a"),
        (options.restart, "sometimes"),
        (options.restart, "always:3"),
        (options.restart, "on-failure:x"),
    ):
        with pytest.raises(BadOption):
            call(text)


def test_signals() -> None:
    """LIF-KILL-1."""
    assert options.signal_number("HUP") == options.signal_number("sighup") == options.signal_number("1") == 1
    assert options.signal_number("SIGRTMIN+3") == int(signal.SIGRTMIN) + 3
    for text in ("", "0", "99", "WAT", "SIGRTMIN+99", "-9"):
        with pytest.raises(BadOption) as caught:
            options.signal_number(text)
        assert caught.value.code == "invalid-signal"


def test_env_and_label_files(tmp_path: Path) -> None:
    """RUN-14."""
    path = tmp_path / "env"
    path.write_text("\ufeffA=1\n# comment\n\nB\nC\n D=x y \n")
    assert options.env_file(path, {"B": "host"}) == ("A=1", "B=host", "D=x y ")
    path.write_text("A B=1\n")
    with pytest.raises(BadOption):
        options.env_file(path, {})
    path.write_text("a=1\nb\n")
    assert options.label_file(path) == (("a", "1"), ("b", ""))
    with pytest.raises(BadOption):
        options.label_file(tmp_path / "none")


def test_names_and_ids() -> None:
    """CRE-03 to CRE-05."""
    assert len(names.new_id()) == 64
    assert names.checked_name("/a_b.c-1") == "a_b.c-1"
    for name in ("", "/", "-a", "a b", "ä", "a/b", ".x"):
        with pytest.raises(BadOption):
            names.checked_name(name)
    assert all(names.checked_name(names.random_name()) for _ in range(50))


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": Limits(memory_bytes=1 << 20)},
        {"limits": Limits(memory_swap_bytes=1 << 30)},
        {"limits": Limits(memory_bytes=1 << 30, memory_swap_bytes=1 << 29)},
        {"limits": Limits(blkio_weight=5)},
        {"limits": Limits(memory_swappiness=101)},
        {"cap_add": ("WAT",)},
        {"workdir": "relative"},
        {"auto_remove": True, "restart": options.restart("always")},
        {"network": "bogus"},
        {"network": "container:"},
        {"network": "container:x", "publish_all": True},
        {"pid": "bogus"},
        {"uts": "container:x"},
        {"hostname": "h", "uts": "host"},
        {"mac_address": "02:42"},
        {"security_opt": ("wat",)},
        {"security_opt": ("seccomp=/profile.json",)},
        {"stop_signal": "WAT"},
    ],
)
def test_contradictions_are_refused(changes: dict[str, object]) -> None:
    """RUN-43, RUN-32."""
    from builder.containers import specs

    with pytest.raises(BadOption) as caught:
        specs.check(CreateRequest(image="x", **changes))  # type: ignore[arg-type]
    assert caught.value.exit_status == 125


def test_warnings() -> None:
    """NET-11, RUN-47."""
    from builder.containers import specs

    warnings = specs.check(CreateRequest(image="x", dns=("127.0.0.1",), security_opt=("apparmor=mine",)))
    assert len(warnings) == 2
    assert "127.0.0.1" in warnings[0]
