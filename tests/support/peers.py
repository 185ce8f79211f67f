"""podman, buildah and skopeo with storage of their own, in the way that works here.

Both are run as root over directories of the test. What differs between machines is found by trying: crun does not
take hybrid cgroups, a container may not raise limits beyond ours, overlay may be missing.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.leaks import mounts_below
from tests.support.machine import tool

TIMEOUT_S = 600


def run(
    command: list[str], *, check: bool = True, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a peer; its output is in the failure."""
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(command)}: {done.returncode}\n{done.stderr.decode(errors='replace')[-3000:]}"
        )
    return done


@functools.cache
def storage_driver() -> str:
    """overlay where buildah can use it, else vfs."""
    if os.geteuid() != 0:
        pytest.skip("peers are run as root")
    with tempfile.TemporaryDirectory() as work:
        flags = ["--root", f"{work}/r", "--runroot", f"{work}/rr", "--storage-driver", "overlay"]
        driver = "overlay" if run([tool("buildah"), *flags, "info"], check=False).returncode == 0 else "vfs"
        run(["umount", f"{work}/r/overlay"], check=False)
    return driver


@dataclass
class Peer:
    """One storage for podman and buildah together; its paths are short, because podman wants that."""

    base: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pb-peer-", dir="/tmp")))

    @property
    def storage(self) -> list[str]:
        return [
            "--root", str(self.base / "root"),
            "--runroot", str(self.base / "runroot"),
            "--storage-driver", storage_driver(),
        ]  # fmt: skip

    def podman(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """podman, without its service, journal or systemd."""
        flags = ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        return run([tool("podman"), *self.storage, *flags, *self._runtime(), *words], check=check)

    def podman_run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """``podman run --rm`` without a network of its own."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = ["--ulimit", f"nofile={min(soft, 1024)}:{min(soft, 1024)}", "--ulimit", "nproc=4096:4096"]
        return self.podman("run", "--rm", "--pull=never", "--network=none", *limits, *words, check=check)

    def buildah(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """buildah with chroot isolation, which every machine allows."""
        env = ["env", "BUILDAH_ISOLATION=chroot"]
        return run([*env, tool("buildah"), *self.storage, *words], check=check)

    def build(
        self, context: Path, tag: str, *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """``buildah build`` in docker's format."""
        flags = ["--format=docker", "--pull-never", "--network=host", "--layers", "--tag", tag]
        return self.buildah("bud", *flags, *words, str(context), check=check)

    def load(self, archive: Path) -> str:
        """Load a docker archive; gives the name that the image got."""
        said = self.podman("load", "--input", str(archive)).stdout.decode()
        return said.strip().splitlines()[-1].partition(": ")[2]

    def inspect(self, image: str) -> dict[str, Any]:
        """The image's config as stored."""
        found = json.loads(self.podman("inspect", "--type=image", image).stdout)
        assert isinstance(found[0], dict)
        return found[0]

    def close(self) -> None:
        """Remove everything, mounts of the storage driver and of failed builds included."""
        self.podman("rm", "--all", "--force", check=False)
        places = [line.split()[4] for line in mounts_below(self.base)]
        for place in reversed([place for place in places if place.startswith(str(self.base))]):
            run(["umount", place], check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    def _runtime(self) -> list[str]:
        return ["--runtime", runtime()]


@functools.cache
def runtime() -> str:
    """The first OCI runtime that takes this machine's cgroups: crun refuses hybrid ones."""
    hybrid = Path("/sys/fs/cgroup/unified/cgroup.procs").exists()
    for name in ("runc", "crun") if hybrid else ("crun", "runc"):
        try:
            return tool(name)
        except pytest.skip.Exception:
            continue
    pytest.skip("needs runc or crun")


def skopeo(*words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """skopeo, without signature policy or TLS towards the loopback."""
    return run([tool("skopeo"), "--insecure-policy", *words], check=check)
