"""Runs the command as users do: as a process, with a state directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
PASSED = ("PATH", "HOME", "LANG", "TMPDIR", "TERM")


@dataclass(frozen=True)
class Result:
    """How one command ended."""

    command: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def out(self) -> str:
        return self.stdout.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        return self.stderr.decode("utf-8", "replace")

    def __str__(self) -> str:
        return f"{' '.join(self.command)}\nexit status {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Failed(AssertionError):
    """A command ended in another way than the test says."""


class Runner:
    """``pybuild`` over one state directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env: dict[str, str] = {}
        self._loaded: set[Path] = set()

    @property
    def prefix(self) -> list[str]:
        """The words before the verb."""
        return [sys.executable, "-m", "pybuild", "--root", str(self.root)]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What the command sees: nothing of the caller's but the basics."""
        env = {name: os.environ[name] for name in PASSED if name in os.environ}
        env["PYTHONPATH"] = str(REPO)
        env["DOCKER_CONFIG"] = str(self.root.parent / "docker-config")
        return {**env, **self.env, **(more or {})}

    def run(
        self,
        *words: str | Path,
        status: int | None = 0,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 300,
    ) -> Result:
        """Run one command; another exit status than ``status`` is a failure, None takes any."""
        command = [*self.prefix, *map(str, words)]
        began = time.monotonic()
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment(env),
            cwd=cwd or REPO,
            timeout=timeout_s,
            check=False,
        )
        result = Result(
            tuple(command[3:]), done.returncode, done.stdout, done.stderr, time.monotonic() - began
        )
        if status is not None and done.returncode != status:
            raise Failed(f"wanted exit status {status}:\n{result}")
        return result

    def start(self, *words: str | Path, **more: Any) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own and do not wait."""
        more.setdefault("stdout", subprocess.DEVNULL)
        more.setdefault("stderr", subprocess.DEVNULL)
        return subprocess.Popen(
            [*self.prefix, *map(str, words)],
            stdin=subprocess.DEVNULL,
            env=self.environment(),
            cwd=REPO,
            start_new_session=True,
            **more,
        )

    def load(self, archive: Path) -> None:
        """Load an image, once."""
        if archive not in self._loaded:
            self.run("load", "--input", archive)
            self._loaded.add(archive)

    def build(self, context: Path | str, *words: str | Path, **more: Any) -> Result:
        """``build``, with plain progress."""
        return self.run("build", "--progress=plain", *words, context, **more)

    def dockerfile(self, tmp: Path, text: str, *words: str | Path, **more: Any) -> Result:
        """Build a Dockerfile given as text, with ``tmp`` as the context."""
        tmp.mkdir(parents=True, exist_ok=True)
        (tmp / "Dockerfile").write_text(text)
        return self.build(tmp, *words, **more)

    def inspect(self, ref: str, *words: str) -> dict[str, Any]:
        """What ``inspect`` says of one thing."""
        found = json.loads(self.run("inspect", *words, ref).out)
        assert isinstance(found, list)
        assert isinstance(found[0], dict)
        return found[0]

    def image_id(self, ref: str) -> str:
        """The id of an image."""
        return self.run("images", "--quiet", "--no-trunc", ref).out.split()[0]

    def clean(self) -> None:
        """Remove containers and, if tests were many, what they used."""
        if not self.root.exists():
            return
        listed = self.run("ps", "--all", "--quiet", "--no-trunc", status=None)
        if listed.status == 0 and listed.out.split():
            self.run("rm", "--force", "--volumes", *listed.out.split(), status=None)
        shutil.rmtree(self.root, ignore_errors=True)
