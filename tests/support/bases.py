"""Base images without a registry: ``scripts/make-bases`` makes them once, under ``.cache`` of the checkout."""

from __future__ import annotations

import fcntl
import functools
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import REPO

CACHE = REPO / ".cache" / "bases"


@functools.cache
def archive(name: str) -> Path:
    """The docker archive of a base; the test is skipped when it cannot be made here."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{name}.docker.tar"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            command = [sys.executable, str(REPO / "scripts/make-bases"), "--archives-only", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"base image {name} cannot be made: {done.stderr.strip()[-500:]}")
    return path


def rootfs(archive_path: Path, target: Path) -> Path:
    """Unpack the only layer of a base into ``target``, with the tar command."""
    with tarfile.open(archive_path) as outer:
        manifest: Any = json.load(_member(outer, "manifest.json"))
        layer = _member(outer, manifest[0]["Layers"][0])
        target.mkdir(parents=True, exist_ok=True)
        with subprocess.Popen(
            ["tar", "-x", "-C", str(target), "--numeric-owner"], stdin=subprocess.PIPE
        ) as tar:
            assert tar.stdin is not None
            while data := layer.read(1 << 20):
                tar.stdin.write(data)
            tar.stdin.close()
        assert tar.returncode == 0
    return target


def _member(outer: tarfile.TarFile, name: str) -> Any:
    found = outer.extractfile(name)
    assert found is not None
    return found
