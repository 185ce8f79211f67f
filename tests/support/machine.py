"""What this machine allows."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest


@functools.cache
def has_user_namespaces() -> bool:
    """May we make a user namespace?"""
    tool = shutil.which("unshare")
    if tool is None:
        return False
    return subprocess.run([tool, "-Ur", "true"], capture_output=True, check=False).returncode == 0


def tool(name: str) -> str:
    """The path of a program; the test is skipped when it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"needs {name}")
    return found
