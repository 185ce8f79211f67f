"""A container's life: run, exec, copy in and out, commit, run what was committed, with and without a terminal."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Runner
from tests.support.machine import tool

pytestmark = pytest.mark.root


@pytest.fixture
def box(shared: Runner, busybox: Path) -> Iterator[Runner]:
    """The session's store with busybox; containers of the test are removed."""
    shared.load(busybox)
    before = set(shared.run("ps", "-aq", "--no-trunc").out.split())
    yield shared
    ours = set(shared.run("ps", "-aq", "--no-trunc").out.split()) - before
    if ours:
        shared.run("rm", "--force", "--volumes", *sorted(ours))


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


def wait_for(runner: Runner, ref: str, state: str) -> None:
    for _ in range(100):
        if runner.inspect(ref)["State"]["Status"] == state:
            return
        time.sleep(0.05)
    raise AssertionError(f"{ref} is not {state}")


def test_whole_life(box: Runner, name: str, tmp_path: Path) -> None:
    started = box.run("run", "-d", "--name", name, "--network=none", "busybox", "sleep", "1000").out.strip()
    assert re.fullmatch("[0-9a-f]{64}", started)
    assert box.inspect(name)["State"]["Running"] is True

    assert box.run("exec", name, "sh", "-c", "echo written > /tmp/file; cat /tmp/file").out == "written\n"
    assert box.run("exec", name, "sh", "-c", "exit 7", status=7).status == 7
    assert box.run("exec", "-i", name, "cat", stdin=b"typed").out == "typed"

    (tmp_path / "in").write_text("from the host")
    box.run("cp", tmp_path / "in", f"{name}:/tmp/in")
    assert box.run("exec", name, "cat", "/tmp/in").out == "from the host"
    box.run("cp", f"{name}:/tmp/file", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "written\n"

    changes = box.run("diff", name).out.splitlines()
    assert "A /tmp/file" in changes
    assert "A /tmp/in" in changes

    box.run("commit", "--change", "ENV MADE=here", "--change", 'CMD ["cat", "/tmp/in"]', name, f"{name}:v1")
    assert box.run("run", "--rm", "--network=none", f"{name}:v1").out == "from the host"
    env = box.inspect(f"{name}:v1", "--type=image")["Config"]["Env"]
    assert "MADE=here" in env

    box.run("stop", "-t", "1", name)
    assert box.inspect(name)["State"]["Running"] is False
    box.run("start", name)
    assert box.inspect(name)["State"]["Running"] is True
    assert box.run("exec", name, "cat", "/tmp/file").out == "written\n"
    box.run("rm", "--force", name)
    box.run("inspect", "--type=container", name, status=1)
    box.run("rmi", f"{name}:v1")


def test_exit_status_and_streams(box: Runner) -> None:
    done = box.run(
        "run", "--rm", "--network=none", "busybox", "sh", "-c", "echo o; echo e >&2; exit 5", status=5
    )
    assert (done.out, done.err) == ("o\n", "e\n")


def test_missing_command_is_127_and_a_directory_126(box: Runner) -> None:
    box.run("run", "--rm", "--network=none", "busybox", "no-such-command", status=127)
    box.run("run", "--rm", "--network=none", "busybox", "/etc", status=126)


def test_stdin_reaches_the_container(box: Runner) -> None:
    assert box.run("run", "--rm", "-i", "--network=none", "busybox", "cat", stdin=b"a\0b").stdout == b"a\0b"


def test_logs_and_wait(box: Runner, name: str) -> None:
    box.run(
        "run", "-d", "--name", name, "--network=none", "busybox", "sh", "-c", "echo one; echo two >&2; exit 3"
    )
    assert box.run("wait", name).out == "3\n"
    done = box.run("logs", name)
    assert done.out == "one\n"
    assert done.err == "two\n"
    assert box.inspect(name)["State"]["ExitCode"] == 3


def test_kill_ends_the_whole_container(box: Runner, name: str) -> None:
    box.run("run", "-d", "--name", name, "--network=none", "busybox", "sh", "-c", "sleep 500 & sleep 501")
    box.run("kill", name)
    assert box.run("wait", name).out == "137\n"


def test_two_containers_do_not_see_each_other(box: Runner, name: str) -> None:
    box.run(
        "run", "-d", "--name", name, "--network=none", "busybox", "sh", "-c", "echo x > /mine; sleep 1000"
    )
    done = box.run(
        "run",
        "--rm",
        "--network=none",
        "busybox",
        "sh",
        "-c",
        "ls /mine; ps | grep -c 'sleep 1000'",
        status=None,
    )
    assert "No such file" in done.err


class Terminal:
    """A tmux server of its own with one window."""

    def __init__(self, runner: Runner, words: list[str]) -> None:
        self._socket = f"pybuild-test-{uuid.uuid4().hex[:8]}"
        command = shlex.join([*runner.prefix, *words])
        env = [f"{key}={value}" for key, value in runner.environment().items() if key != "TERM"]
        self._tmux(
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            f"env {shlex.join(env)} {command}; echo status=$?; sleep 600",
        )

    def _tmux(self, *words: str) -> str:
        command = [tool("tmux"), "-L", self._socket, "-f", "/dev/null", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def wait_for(self, text: str, timeout_s: float = 20) -> str:
        ends = time.monotonic() + timeout_s
        shown = ""
        while time.monotonic() < ends:
            shown = self._tmux("capture-pane", "-p")
            if text in shown:
                return shown
            time.sleep(0.05)
        raise AssertionError(f"{text!r} is not on the terminal:\n{shown}")

    def close(self) -> None:
        self._tmux("kill-server")


def test_interactive_terminal(box: Runner, name: str) -> None:
    terminal = Terminal(box, ["run", "-it", "--name", name, "--network=none", "busybox", "sh"])
    try:
        terminal.wait_for("/ #")
        terminal.type("stty size; tty; echo $((6 * 7))", "Enter")
        shown = terminal.wait_for("\n42")
        assert "30 100" in shown
        assert "/dev/pts/" in shown
        terminal.type("sleep 300", "Enter")
        time.sleep(0.3)
        terminal.type("C-c")
        terminal.type("echo interrupted", "Enter")
        terminal.wait_for("\ninterrupted")
        terminal.type("exit 9", "Enter")
        terminal.wait_for("status=9")
    finally:
        terminal.close()
    assert box.inspect(name)["State"]["ExitCode"] == 9


def test_detach_and_attach_again(box: Runner, name: str) -> None:
    terminal = Terminal(box, ["run", "-it", "--name", name, "--network=none", "busybox", "sh"])
    try:
        terminal.wait_for("/ #")
        terminal.type("C-p", "C-q")
        terminal.wait_for("status=")
    finally:
        terminal.close()
    assert box.inspect(name)["State"]["Running"] is True
    again = Terminal(box, ["attach", name])
    try:
        time.sleep(0.5)
        again.type("echo still-$((1 + 1))", "Enter")
        again.wait_for("still-2")
        again.type("exit 10", "Enter")
        again.wait_for("status=10")
    finally:
        again.close()


def test_terminal_needs_a_terminal(box: Runner) -> None:
    done = box.run("run", "--rm", "-it", "--network=none", "busybox", "true", stdin=b"", status=None)
    assert done.status != 0
    assert "not a TTY" in done.err or "terminal" in done.err.lower()
