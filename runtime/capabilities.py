"""Capabilities: names, numbers and how a process gives up all but a few of them (EXE-06)."""

from __future__ import annotations

from runtime.syscalls import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.syscalls.protocol import Kernel

NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""By number, as the kernel counts them."""

DEFAULT = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
"""What an ordinary container has."""

ALL = NAMES


def normalise(name: str) -> str:
    """``cap_net_admin`` or ``NET_ADMIN`` as ``NET_ADMIN``; ValueError for what is no capability."""
    plain = name.upper().removeprefix("CAP_")
    if plain not in NAMES:
        raise ValueError(f"unknown capability {name!r}")
    return plain


def mask(names: tuple[str, ...]) -> int:
    """The bit set of some names (ValueError for an unknown one)."""
    bits = 0
    for name in names:
        bits |= 1 << NAMES.index(normalise(name))
    return bits


def names_of(bits: int) -> tuple[str, ...]:
    """The known names of a bit set."""
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)


def of_process(pid: int | str, field: str = "CapBnd") -> int:
    """A capability set of a process as /proc shows it."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1], 16)
    return 0


def limit_bounding(kernel: Kernel, keep: int) -> None:
    """Drop everything outside ``keep`` from the bounding set; needs SETPCAP, so it comes before ``apply``."""
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            kernel.prctl(c.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == 22:  # past the last capability of this kernel
                return
            raise


def apply(kernel: Kernel, keep: int, bounding: int) -> None:
    """Permitted and effective become ``keep`` (within ``bounding``); inheritable and ambient become empty."""
    try:
        kernel.prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != 22:  # before 4.3 there is no ambient set
            raise
    kernel.capset(keep & bounding, keep & bounding, 0)
