"""Programs for another processor in a user namespace of their own (EXE-28, PLT-04)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder.oci.platform import Platform, host_platform
from builder.solver.ops import machine
from runtime import binfmt, emulation

FOREIGN = "s390x" if host_platform().architecture != "s390x" else "amd64"
INSIDE = """
import os, subprocess, sys
from builder.oci.platform import Platform
from builder.solver.ops import machine
from runtime import binfmt, emulation
arch, folder = sys.argv[1:]
print(machine.emulation_for(Platform("linux", arch), folder))
emulation.runs.cache_clear()
print(emulation.runs(arch), subprocess.run(["sh", "-c", "./foreign && ./foreign"], cwd=folder).returncode)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An "emulator" that is static and says that all went well, and a program for another processor."""
    host = host_platform().architecture
    emulator = tmp_path / f"qemu-{emulation.MACHINES[FOREIGN].qemu}-static"
    emulator.write_bytes(emulation.small_program(host))
    (tmp_path / "foreign").write_bytes(emulation.small_program(FOREIGN))
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    return tmp_path


def test_the_rule_matches_programs_by_their_header() -> None:
    fields = binfmt.rule("arm64", "/usr/bin/q").decode().split(":")
    assert fields[1:4] == ["pybuild-arm64", "M", ""]
    magic, mask = (bytes.fromhex(text.replace("\\x", "")) for text in fields[4:6])
    assert magic == emulation.small_program("arm64")[:20]
    assert fields[6:] == ["/usr/bin/q", "FPOC"]
    shared = bytearray(magic)
    shared[16], shared[7] = 3, 9  # position independent, another system's mark
    assert all(a & m == b & m for a, b, m in zip(magic, shared, mask, strict=True))
    other = emulation.small_program("riscv64")[:20]
    assert any(a & m != b & m for a, b, m in zip(magic, other, mask, strict=True))


@pytest.mark.skipif(
    not emulation.is_native("amd64", host_platform().architecture), reason="the fake emulator is for amd64"
)
def test_a_rootless_build_registers_for_itself_alone(folder: Path) -> None:
    if shutil.which("unshare") is None or "binfmt_misc" not in Path("/proc/filesystems").read_text():
        pytest.skip("needs user namespaces and binfmt_misc")
    own = emulation.is_registered(FOREIGN)
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        sys.executable,
        "-c",
        INSIDE,
        FOREIGN,
        str(folder),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if "Emulation(" in done.stdout:
        pytest.skip(f"Linux {os.uname().release} has one registry for all")
    assert done.stdout.splitlines() == ["None", "True 0"], done.stderr
    emulation.runs.cache_clear()
    assert emulation.is_registered(FOREIGN) == own, "the machine itself is as before"


def test_outside_of_a_user_namespace_a_step_is_warned_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if emulation.runs(FOREIGN):
        pytest.skip("this machine runs everything")
    monkeypatch.setattr(binfmt, "in_user_namespace", lambda: False)
    binfmt.register_here.cache_clear()
    platform = Platform("linux", FOREIGN)
    found = machine.emulation_for(platform, str(folder))
    assert found is not None
    assert "but not those that it starts" in found.warning(platform)
    assert f"linux/{FOREIGN}" in found.warning(platform)
