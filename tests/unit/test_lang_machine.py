"""Devices by name (EXE-29, RUN-08), grants (ENT-01, ENT-02), and programs for other processors (PLT-04)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from builder.build.entitlements import granted
from builder.errors import SolveError, UsageError
from builder.oci.platform import Platform, host_platform
from builder.solver.ops import machine
from runtime import emulation
from runtime.cdi import Registry
from runtime.spec import BindMount, Device, TmpfsMount


def write_spec(root: Path, name: str = "one.json", **changes: Any) -> None:
    spec = {
        "cdiVersion": "0.6.0",
        "kind": "example.com/gpu",
        "containerEdits": {"env": ["ALL=1"]},
        "devices": [
            {
                "name": "zero",
                "containerEdits": {
                    "env": ["GPU=zero"],
                    "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero"}],
                    "mounts": [
                        {"hostPath": "/etc", "containerPath": "/gpu", "options": ["ro", "nosuid"]},
                        {"hostPath": "x", "containerPath": "/t", "type": "tmpfs"},
                    ],
                },
            },
            {"name": "one", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}},
        ],
        **changes,
    }
    root.mkdir(exist_ok=True)
    (root / name).write_text(json.dumps(spec))


def test_a_device_and_what_it_brings(tmp_path: Path) -> None:
    write_spec(tmp_path)
    registry = Registry([str(tmp_path)])
    edits = registry.edits(registry.find("example.com/gpu=*"))
    assert edits.env == ("ALL=1", "GPU=zero")
    info = os.stat("/dev/zero")
    assert edits.devices == (Device(path="/dev/gpu0", type="c", major=1, minor=5, mode=info.st_mode & 0o777),)
    assert edits.mounts == (
        BindMount(target="/gpu", source="/etc", readonly=True, nosuid=True),
        TmpfsMount(target="/t"),
    )
    assert edits.hooks == 1


def test_names_kinds_and_classes(tmp_path: Path) -> None:
    write_spec(tmp_path, annotations={"org.mobyproject.buildkit.device.class": "gpu"})
    registry = Registry([str(tmp_path), str(tmp_path / "missing")])

    def names(text: str) -> list[str]:
        return [device.name for device in registry.find(text)]

    assert names("example.com/gpu=zero") == ["example.com/gpu=zero"]
    assert names("example.com/gpu") == ["example.com/gpu=one"]
    assert names("gpu") == ["example.com/gpu=one", "example.com/gpu=zero"]
    assert names("example.com/gpu=none") == names("other") == []


def test_later_directories_win_and_bad_files_are_told(tmp_path: Path) -> None:
    write_spec(tmp_path / "a")
    write_spec(tmp_path / "b", devices=[{"name": "zero", "containerEdits": {"env": ["NEW=1"]}}])
    (tmp_path / "b/bad.yaml").write_text("kind: example.com/net\n")
    (tmp_path / "b/odd.json").write_text('{"kind": "nothing", "devices": []}')
    registry = Registry([str(tmp_path / "a"), str(tmp_path / "b")])
    assert registry.edits(registry.find("example.com/gpu=zero")).env == ("ALL=1", "NEW=1")
    assert "bad.yaml: 'devices'" in registry.unread[0]
    assert "is not vendor/class" in registry.unread[1]
    (tmp_path / "b/one.json").write_text('{"kind": "a.b/c", "devices": [{"name": "d", "containerEdits": 7}]}')
    registry = Registry([str(tmp_path / "b")])
    with pytest.raises(ValueError, match="cannot be used"):
        registry.edits(registry.find("a.b/c=d"))


def test_specifications_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: example.com/net\ndevices:\n- name: n0\n  containerEdits:\n"
        "    env: [NET=0]\n    deviceNodes:\n    - {path: /dev/n0, hostPath: /dev/zero, fileMode: 0600}\n"
    )
    (tmp_path / "two.yml").write_text("kind: [\n")
    (tmp_path / "three.yaml").write_text("!!python/object/apply:os.system ['touch /tmp/never']\n")
    registry = Registry([str(tmp_path)])
    edits = registry.edits(registry.find("example.com/net=n0"))
    assert edits.env == ("NET=0",)
    assert [(node.path, node.mode) for node in edits.devices] == [("/dev/n0", 0o600)]
    assert len(registry.unread) == 2
    assert all("no valid YAML" in text for text in registry.unread)


def test_grants_ent_01() -> None:
    found = granted(("network.host,security.insecure", "device=a/b=c", "alias=mine", "fs.read=*"))
    assert found.names == {"network.host", "security.insecure"}
    assert (found.real_name("mine"), found.real_name("a/b=c")) == ("a/b=c", "a/b=c")
    assert granted((), network="host").names == {"network.host"}
    with pytest.raises(UsageError, match=r"unknown entitlement network\.hots") as caught:
        granted(("network.hots",))
    assert caught.value.hint == "did you mean network.host?"


def test_small_programs_run() -> None:
    """The probe's programs are right: the kernel runs its own, and an emulator each of the others it knows."""
    host = host_platform().architecture
    assert emulation.runs(host)
    assert emulation.is_native(host, host)
    assert not emulation.runs("no-such")


def test_emulators_run_the_programs_of_their_processors(tmp_path: Path) -> None:
    tried = 0
    for arch in emulation.MACHINES:
        emulator = emulation.find_emulator(arch)
        if emulator is None or arch == "loong64":
            continue
        program = tmp_path / arch
        program.write_bytes(emulation.small_program(arch))
        program.chmod(0o755)
        assert subprocess.run([emulator, str(program)], check=False).returncode == 0, arch
        tried += 1
    assert tried > 3, "tests/setup.sh installs qemu-user-static"


def test_an_emulator_is_found_on_the_path_only(tmp_path: Path) -> None:
    fake = tmp_path / "qemu-s390x-static"
    fake.write_bytes(Path(emulation.find_emulator("s390x") or "/bin/busybox").read_bytes()[:4096])
    fake.chmod(0o755)
    assert emulation.find_emulator("s390x", str(tmp_path)) == str(fake)
    assert emulation.is_static(str(fake))
    assert not emulation.is_static("/bin/sh")
    assert emulation.find_emulator("s390x", "/nowhere:relative") is None


def test_a_platform_that_nothing_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SolveError, match="no support for running processes with linux/s390x platform, supp"
    ) as caught:
        machine.emulation_for(Platform("linux", "s390x"), str(tmp_path))
    assert "qemu-user-static" in str(caught.value.hint)
    assert machine.emulation_for(host_platform(), str(tmp_path)) is None
    assert machine.emulation_for(None, "") is None


def test_levels_of_amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "cpu_level", lambda: 2)
    monkeypatch.setattr(machine, "host_platform", lambda: Platform("linux", "amd64"))
    assert machine.emulation_for(Platform("linux", "amd64", "v2"), "") is None
    with pytest.raises(
        SolveError, match=r"with linux/amd64/v3 platform, supported: linux/amd64/v2, linux/amd64$"
    ):
        machine.emulation_for(Platform("linux", "amd64", "v3"), "")
