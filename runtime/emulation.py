"""Programs for other processors: whether this machine can run them, and by what (row PLT-04).

In this order: the kernel itself (its own architecture and its 32-bit mode), an interpreter registered with
binfmt_misc, a user-mode emulator ``qemu-<arch>`` or ``qemu-<arch>-static`` on the search path.
"""

from __future__ import annotations

import functools
import os
import struct
from pathlib import Path
from typing import NamedTuple

BINFMT = Path("/proc/sys/fs/binfmt_misc")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine(NamedTuple):
    """What an ELF file for a processor looks like, and a program that only says "done" to the kernel."""

    qemu: str
    number: int
    bits: int
    little: bool
    flags: int
    code: str


# The code is exit(0): the system call's number and its argument into registers, then the trap.
MACHINES = {
    "386": Machine("i386", 3, 32, True, 0, "b80100000031dbcd80"),
    "amd64": Machine("x86_64", 62, 64, True, 0, "b83c00000031ff0f05"),
    "arm": Machine("arm", 40, 32, True, 0x05000000, "0000a0e30170a0e3000000ef"),
    "arm64": Machine("aarch64", 183, 64, True, 0, "000080d2a80b80d2010000d4"),
    "loong64": Machine("loongarch64", 258, 64, True, 0x43, "040080030b74810300002b00"),
    "mips64": Machine("mips64", 8, 64, False, 0x80000000, "240213c2240400000000000c"),
    "mips64le": Machine("mips64el", 8, 64, True, 0x80000000, "c2130224000004240c000000"),
    "ppc64le": Machine("ppc64le", 21, 64, True, 2, "010000380000603802000044"),
    "riscv64": Machine("riscv64", 243, 64, True, 0, "130500009308d00573000000"),
    "s390x": Machine("s390x", 22, 64, False, 0, "a72900000a01"),
}
_COMPATIBLE = {("amd64", "386"), ("arm64", "arm"), ("mips64", "mips"), ("ppc64", "ppc")}
_LEVELS = {
    2: ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"),
    3: ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"),
    4: ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}


def small_program(arch: str, code: bytes | None = None) -> bytes:
    """A whole ELF file for ``arch`` that runs ``code``, or just ends with status 0."""
    machine = MACHINES[arch]
    order = "<" if machine.little else ">"
    body = bytes.fromhex(machine.code) if code is None else code
    wide = machine.bits == 64
    base, header, segment = 0x10000, 64 if wide else 52, 56 if wide else 32
    start = header + segment
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if machine.little else 2, 1]) + bytes(9)
    size = start + len(body)
    fields = struct.pack(order + "HHI", 2, machine.number, 1)
    tail = struct.pack(order + "IHHHHHH", machine.flags, header, segment, 1, 0, 0, 0)
    if wide:
        fields += struct.pack(order + "QQQ", base + start, header, 0)
        load = struct.pack(order + "IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    else:
        fields += struct.pack(order + "III", base + start, header, 0)
        load = struct.pack(order + "IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000)
    return ident + fields + tail + load + body


@functools.cache
def runs(arch: str) -> bool:
    """Whether the kernel starts a program for ``arch``, itself or by an interpreter: by trying."""
    if arch not in MACHINES:
        return False
    fd = os.memfd_create(f"try-{arch}", 0)
    try:
        os.write(fd, small_program(arch))
        os.fchmod(fd, 0o700)
        pid = os.posix_spawn(f"/proc/self/fd/{fd}", ["try"], {})
        return os.waitpid(pid, 0)[1] == 0
    except OSError:
        return False
    finally:
        os.close(fd)


def is_native(host: str, arch: str) -> bool:
    """Whether the kernel runs ``arch`` on ``host`` without help."""
    return arch == host or ((host, arch) in _COMPATIBLE and runs(arch))


def is_registered(arch: str) -> bool:
    """Whether binfmt_misc runs programs for ``arch`` in any root: its interpreter was opened beforehand (F).

    Where the registry cannot be read, a program that starts is proof enough.
    """
    if not runs(arch):
        return False
    entries = [BINFMT / f"qemu-{MACHINES[arch].qemu}", BINFMT / MACHINES[arch].qemu]
    texts = [text for text in map(_text, entries) if text.startswith("enabled")]
    return not texts or any("F" in _flags(text) for text in texts)


def find_emulator(arch: str, search_path: str = DEFAULT_PATH) -> str | None:
    """The user-mode emulator for ``arch`` on the search path."""
    machine = MACHINES.get(arch)
    if machine is None:
        return None
    for suffix in ("-static", ""):
        for directory in search_path.split(":"):
            path = f"{directory}/qemu-{machine.qemu}{suffix}"
            if directory.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    return None


def is_static(path: str) -> bool:
    """Whether an executable needs no dynamic loader, so that it starts in any root."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if head[:5] != b"\x7fELF\x02" or len(head) < 64:
        return False
    order = "<" if head[5] == 1 else ">"
    offset, size, count = (
        *struct.unpack_from(order + "Q", head, 32),
        *struct.unpack_from(order + "HH", head, 54),
    )
    kinds = [
        struct.unpack_from(order + "I", head, offset + index * size)[0]
        for index in range(count)
        if offset + index * size + 4 <= len(head)
    ]
    return 3 not in kinds  # PT_INTERP


@functools.cache
def cpu_level() -> int:
    """The microarchitecture level of an amd64 processor: 1 to 4."""
    flags: set[str] = set()
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            break
    level = 1
    for candidate, wanted in _LEVELS.items():
        if not flags.issuperset(wanted):
            break
        level = candidate
    return level


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _flags(text: str) -> str:
    return next((line.partition(":")[2] for line in text.splitlines() if line.startswith("flags")), "")
