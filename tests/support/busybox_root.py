"""A tiny root file system made of busybox, and container specs on it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from runtime import capabilities, plan
from runtime.launcher import Launcher
from runtime.spec import ContainerSpec, ExitStatus, OverlayRoot

BUSYBOX = Path("/bin/busybox")
APPLETS = [
    "sh",
    "true",
    "false",
    "id",
    "ls",
    "cat",
    "mount",
    "umount",
    "ps",
    "head",
    "tail",
    "mkdir",
    "rmdir",
    "rm",
    "mv",
    "ln",
    "chown",
    "chmod",
    "touch",
    "grep",
    "sed",
    "awk",
    "hostname",
    "readlink",
    "stat",
    "sleep",
    "kill",
    "mknod",
    "dd",
    "env",
    "pwd",
    "echo",
    "test",
    "printf",
    "find",
    "ip",
    "ifconfig",
    "tty",
    "wc",
    "sort",
    "cp",
    "nproc",
    "ulimit",
    "chroot",
    "unshare",
    "seq",
    "dmesg",
    "date",
    "sync",
    "od",
    "cut",
    "tr",
    "xargs",
    "nc",
]
_counter = itertools.count(1)


def make_root(base: Path, *, system_dirs: bool = True) -> Path:
    """Fill ``base`` with busybox and a passwd and group file."""
    for name in ("bin", "etc", "tmp", "root", *(("proc", "sys", "dev") if system_dirs else ())):
        (base / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, base / "bin" / "busybox")
    for applet in APPLETS:
        (base / "bin" / applet).symlink_to("busybox")
    (base / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n"
    )
    (base / "etc" / "group").write_text("root:x:0:\nbob:x:1000:\nvideo:x:44:root,bob\nstaff:x:50:\n")
    return base


class Lab:
    """Runs containers on a busybox root and collects their output."""

    def __init__(self, base: Path, work: Path, launcher: Launcher) -> None:
        self.base = base
        self.work = work
        self.launcher = launcher
        self.upper = work

    def spec(self, *args: str, **options: Any) -> ContainerSpec:
        """A spec of an ordinary container with a fresh writable layer (``self.upper``)."""
        number = next(_counter)
        if "root" not in options:
            place = self.work / f"s{number}"
            upper = self.upper = place / "fs"  # the attribute is only for tests with one thread
            upper.mkdir(parents=True)
            (place / "work").mkdir()
            root = OverlayRoot(
                lowers=(str(self.base),), upper=str(upper), work=str(place / "work"), volatile=True
            )
            options["root"] = root
        options.setdefault("env", ("PATH=/bin",))
        options.setdefault("capabilities", capabilities.DEFAULT)
        options.setdefault("masked_paths", plan.MASKED_PATHS)
        options.setdefault("readonly_paths", plan.READONLY_PATHS)
        options.setdefault("hostname", "lab")
        return ContainerSpec(id=f"lab{os.getpid()}-{number}", args=args, **options)

    def run(self, *args: str, **options: Any) -> tuple[ExitStatus, str]:
        """Run to the end: (status, output of both streams)."""
        return self.run_spec(self.spec(*args, **options))

    def run_spec(self, spec: ContainerSpec) -> tuple[ExitStatus, str]:
        """The same for a spec."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            handle = self.launcher.run(spec, stdout=write, stderr=write)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        with open(read, "rb") as stream:
            output = stream.read()
        return handle.wait(), output.decode("utf-8", "replace")

    def sh(self, script: str, **options: Any) -> str:
        """Run a shell script that has to succeed; its output."""
        status, output = self.run("sh", "-c", script, **options)
        assert status.code == 0, output
        return output


def mounts_below(path: Path) -> list[str]:
    """Mount points of this mount namespace below a directory."""
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    return [row.split()[4] for row in rows if row.split()[4].startswith(str(path))]


def have_root() -> bool:
    """Whether containers can be made here as root."""
    return os.geteuid() == 0 and BUSYBOX.exists() and subprocess.run(["true"]).returncode == 0
