"""Running the git command with nothing of the user's or the repository's configuration in force (SGI-01).

Repositories, refs and URLs come from strangers. So: no hooks, no fsmonitor, no filters (they need
configuration), no credential helpers, no prompts, no transports but git, http, https and ssh, and ``--``
before what is not an option. Credentials go in by environment, never on the command line, where every user
of the machine can read it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import SourceUnavailable
from builder.sources.command import run_stoppable
from builder.sources.steps import Step

TRANSPORTS = ("git", "http", "https", "ssh")
OUTPUT_LIMIT = 64 << 20
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "core.symlinks=true",
    "core.autocrlf=false",
    "core.longPaths=true",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
    "protocol.version=2",
    "protocol.allow=never",
)
_SSH = "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new"
_PROXIES = {"http_proxy", "https_proxy", "no_proxy", "all_proxy"}


class GitFailed(SourceUnavailable):
    """A git command ended with an error; ``output`` is what it said."""

    code = "git-failed"

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message, hint=None)
        self.output = output


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """How to call git. ``authorization`` is a header's value for requests to ``origin`` (an http(s) URL)."""

    authorization: str = ""
    origin: str = ""
    ssh_socket: str = ""
    known_hosts: Path | None = None
    proxy_env: tuple[tuple[str, str], ...] = ()

    def run(
        self,
        args: Sequence[str],
        *,
        cwd: Path,
        git_dir: Path | None = None,
        env: dict[str, str] | None = None,
        step: Step | None = None,
        local: bool = False,
    ) -> bytes:
        """Run one command and give its standard output; raises GitFailed. ``local`` allows file transport."""
        command = ["git"]
        for setting in _SETTINGS:
            command += ["-c", setting]
        for transport in (*TRANSPORTS, *(("file",) if local else ())):
            command += ["-c", f"protocol.{transport}.allow=always"]
        if git_dir is not None:
            command.append(f"--git-dir={git_dir}")
        command += args
        try:
            status, out, err = run_stoppable(command, cwd=cwd, env={**self._env(local), **(env or {})})
        except FileNotFoundError as error:
            raise SourceUnavailable(
                "git is needed for this source and is not installed",
                hint="install git (Debian: apt-get install git)",
                code="git-missing",
            ) from error
        said = err.decode("utf-8", "replace").strip()
        if step is not None and said:
            step.log(2, (said + "\n").encode())
        if status != 0:
            raise GitFailed(f"git {args[0]} failed: {said[-2000:] or status}", said)
        return out

    def _env(self, local: bool) -> dict[str, str]:
        allowed = (*TRANSPORTS, "file") if local else TRANSPORTS
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": ":".join(allowed),
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_ASKPASS": "",
            "GIT_SSH_COMMAND": self._ssh(),
            "GIT_CEILING_DIRECTORIES": "/",
            "LC_ALL": "C",
            "HOME": "/dev/null",
        }
        env |= {name: value for name, value in self.proxy_env if name.lower() in _PROXIES}
        if self.ssh_socket:
            env["SSH_AUTH_SOCK"] = self.ssh_socket
        if self.authorization and self.origin:
            env["GIT_CONFIG_COUNT"] = "1"
            env["GIT_CONFIG_KEY_0"] = f"http.{self.origin}.extraHeader"
            env["GIT_CONFIG_VALUE_0"] = f"Authorization: {self.authorization}"
        return env

    def _ssh(self) -> str:
        if self.known_hosts is None:
            return _SSH
        import shlex

        hosts = shlex.quote(str(self.known_hosts))
        return f"{_SSH.partition(' -o Strict')[0]} -o UserKnownHostsFile={hosts} -o StrictHostKeyChecking=yes"


def basic(credentials: str) -> str:
    """The Authorization value for ``user:password``."""
    return "Basic " + base64.b64encode(credentials.encode()).decode()
