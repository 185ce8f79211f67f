"""Letting the kernel run programs of another processor, for one user namespace alone (rows EXE-28, PLT-04).

From Linux 6.7 on every user namespace may have a binfmt_misc registry of its own. What a rootless build
registers there serves its steps, and every program that these start, and ends with the build; the machine's
own registry is never written.
"""

from __future__ import annotations

import functools
import os

from runtime.emulation import MACHINES, small_program
from runtime.spawn import in_user_namespace

_NO_TYPE_BYTE = 7  # the byte of e_ident that systems use for their own ends
_FLAGS = "FPOC"
_MOUNT_FLAGS = 0x2 | 0x4 | 0x8  # nosuid, nodev, noexec
_kept: list[int] = []
"""Open registries: what is registered in one goes with its last user."""


def rule(arch: str, interpreter: str) -> bytes:
    """The registry's line for programs of ``arch``: by the first 20 bytes of their ELF header."""
    magic = bytearray(small_program(arch)[:20])
    mask = bytearray(b"\xff" * 20)
    mask[_NO_TYPE_BYTE] = 0
    mask[9:16] = bytes(7)
    kind = 16 if MACHINES[arch].little else 17
    mask[kind] = 0xFE  # executable, or position independent executable
    fields = [f"pybuild-{arch}", "M", "", _escaped(magic), _escaped(mask), interpreter, _FLAGS]
    return (":" + ":".join(fields)).encode()


def _escaped(data: bytearray) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


@functools.cache
def register_here(arch: str, interpreter: str) -> bool:
    """Register ``interpreter``, a static emulator, in this process's user namespace; False when that is not
    possible: not in one, a kernel that is too old or built without.
    """
    if arch not in MACHINES or ":" in interpreter or not in_user_namespace():
        return False
    import tempfile

    from runtime.syscalls.linux import KERNEL

    place = tempfile.mkdtemp(prefix="pybuild-binfmt-")
    try:
        KERNEL.mount("binfmt_misc", place, "binfmt_misc", _MOUNT_FLAGS)
        try:
            if not _is_own(place):
                return False
            with open(f"{place}/register", "wb", buffering=0) as file:
                file.write(rule(arch, interpreter))
            _kept.append(os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        finally:
            KERNEL.umount(place, 2)
    except OSError:
        return False
    finally:
        os.rmdir(place)
    return True


def _is_own(place: str) -> bool:
    """Whether the registry belongs to this user namespace: an older kernel would show the machine's."""
    return os.access(f"{place}/register", os.W_OK) and os.stat(f"{place}/register").st_uid == os.geteuid()
