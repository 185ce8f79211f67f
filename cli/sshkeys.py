"""``--ssh ID=KEY[,KEY…]``: an agent of our own that holds the keys and ends with us (CLI-04)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from builder.errors import UsageError

MAX_KEY_BYTES = 100 << 10
_WAIT_S = 30


def agent_with(keys: list[str], at_end: Callable[[Callable[[], None]], object]) -> str:
    """The socket of a new agent that holds these private keys; ``at_end`` takes what stops it.

    The keys go to the agent by a pipe. Raises UsageError for a key that cannot be read or wants a passphrase.
    """
    data = [_read(key) for key in keys]
    folder = tempfile.mkdtemp(prefix="pybuild-ssh-")
    socket = f"{folder}/agent"
    at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    try:
        # The agent ends with its command, and cat ends with our end of the pipe, however we end.
        agent = subprocess.Popen(
            ["ssh-agent", "-a", socket, "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise UsageError(
            "ssh-agent is needed for keys and is not installed", hint="install openssh-client"
        ) from error
    at_end(lambda: _stop(agent))
    assert agent.stdout is not None
    agent.stdout.readline()
    for key, text in zip(keys, data, strict=True):
        _add(socket, key, text)
    return socket


def _read(path: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise UsageError(f"failed to open {path}: {error.strerror}") from error
    if len(data) > MAX_KEY_BYTES:
        raise UsageError(f"failed to read {path}: larger than a key may be")
    return data


def _add(socket: str, key: str, data: bytes) -> None:
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "SSH_AUTH_SOCK": socket,
        "SSH_ASKPASS_REQUIRE": "never",
    }
    done = subprocess.run(
        ["ssh-add", "-q", "-"],
        input=data,
        env=env,
        capture_output=True,
        start_new_session=True,
        timeout=_WAIT_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UsageError(
            f"failed to parse SSH key {key}" + (f": {said[-1][:200]}" if said else ""),
            hint="a key with a passphrase is not asked for it: load it into an agent and give its socket",
        )


def _stop(agent: subprocess.Popen[bytes]) -> None:
    agent.terminate()
    for stream in (agent.stdin, agent.stdout):
        if stream is not None:
            stream.close()
    try:
        agent.wait(5)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
