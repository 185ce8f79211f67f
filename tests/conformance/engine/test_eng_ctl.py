"""Containers by hand: run, exec, commit, cp (CTL-01…04)."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]
PROBE = (
    "for n in pid mnt; do readlink /proc/self/ns/$n; done; echo $$; grep -E 'CapEff|Seccomp:' /proc/self/status; id -u; echo $HOME;"
    " cat /etc/hosts"
)


@pytest.fixture
def container(command: Runner) -> Iterator[str]:
    name = f"ctl{os.getpid()}"
    command.run("run", "-d", "--name", name, "--network=none", "--user=app", "busybox", "sleep", "100")
    yield name
    command.run("rm", "-f", name, status=None)


@row("CTL-01")
def test_a_container_is_confined_like_a_step(command: Runner, tmp_path: Path) -> None:
    shown = command.run(
        "run", "--rm", "--network=none", "--hostname=mine", "busybox", "sh", "-c", PROBE
    ).out.split("\n")
    assert shown[0] != os.readlink("/proc/self/ns/pid") and shown[1] != os.readlink("/proc/self/ns/mnt")
    assert shown[2] == "1"
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN grep -E 'CapEff|Seccomp:' /proc/self/status\n")
    step = command.build(tmp_path, "--no-cache", "--network=none")
    for line in shown[3:5]:
        assert line.replace("\t", " ") in (step.out + step.err).replace("\t", " ")
    assert shown[5:7] == ["0", "/root"]
    assert any("mine" in line.split() for line in shown[7:]), "/etc/hosts has its name"
    assert (
        command.run("run", "--rm", "--user=nobody-here", "busybox", "true", status=125).err.count(
            "unable to find user"
        )
        == 1
    )
    command.run("run", "--rm", "busybox", "touch", "/gone")
    assert command.run("run", "--rm", "busybox", "ls", "/").out.count("gone") == 0, "the image stays as it is"


@row("CTL-02")
def test_exit_status_signals_and_input(command: Runner) -> None:
    assert command.run("run", "--rm", "busybox", "sh", "-c", "exit 42", status=42).status == 42
    name = f"killed{os.getpid()}"
    command.run("run", "-d", "--name", name, "busybox", "sleep", "100")
    command.run("kill", name)
    assert command.run("wait", name).out == "137\n"
    command.run("rm", name)
    assert command.run("run", "--rm", "busybox", "no-such-program", status=127).status == 127
    assert command.run("run", "--rm", "-i", "busybox", "wc", "-c", stdin=b"12345").out.strip() == "5"
    script = "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    running = command.start("run", "--rm", "busybox", "sh", "-c", script, stdout=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    running.send_signal(signal.SIGTERM)
    assert (running.stdout.read(), running.wait(20)) == (b"got\n", 3)
    running.stdout.close()


@row("CTL-02")
def test_a_terminal_and_its_size(command: Runner) -> None:
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    script = "while :; do busybox stty size; sleep 0.1; done"
    running = subprocess.Popen(
        [*command.prefix, "run", "--rm", "-it", "busybox", "sh", "-c", script],
        stdin=slave, stdout=slave, stderr=slave, env=command.environment(), start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        seen, sizes = b"", [b"33 77", b"44 88"]
        while sizes and select.select([master], [], [], 20)[0]:
            seen += os.read(master, 1000)
            if sizes[0] in seen:
                del sizes[0]
                fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 44, 88, 0, 0))
                running.send_signal(signal.SIGWINCH)
        assert not sizes, seen
        os.write(master, b"\x03")
        assert running.wait(20) in (130, 143)
    finally:
        running.kill()
        running.wait()
        os.close(master)


@row("CTL-03")
def test_exec(command: Runner, container: str) -> None:
    pid = command.run("inspect", "--format={{.State.Pid}}", container).out.strip()
    shown = command.run(
        "exec", "-u", "0", "-w", "/tmp", "-e", "X=y", container, "sh", "-c",
        "id -u; pwd; echo $X; for n in pid mnt ipc uts net; do readlink /proc/self/ns/$n; done",
    ).out.split()  # fmt: skip
    assert shown[:3] == ["0", "/tmp", "y"]
    assert shown[3:] == [
        os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "mnt", "ipc", "uts", "net")
    ]
    assert command.run("exec", container, "id", "-un").out == "app\n"
    assert command.run("exec", container, "sh", "-c", "exit 9", status=9).status == 9
    gone = command.run("exec", "nothing-here", "true", status=None)
    assert gone.status in (1, 125) and "nothing-here" in gone.err
    command.run("stop", "-t", "0", container)
    stopped = command.run("exec", container, "true", status=None)
    assert stopped.status != 0 and ("not running" in stopped.err or "stopped" in stopped.err)


@row("CTL-04")
def test_commit_is_one_layer_on_top(command: Runner, container: str) -> None:
    before = command.inspect("busybox")
    command.run("exec", "-u", "0", container, "sh", "-c", "echo new > /new; rm /etc/group")
    command.run(
        "commit", "-m", "why", "-c", "ENV A=b", "-c", 'CMD ["/bin/cat", "/new"]', container, "committed:1"
    )
    after = command.inspect("committed:1")
    assert after["RootFS"]["Layers"][:-1] == before["RootFS"]["Layers"]
    assert "A=b" in after["Config"]["Env"]
    assert command.run("run", "--rm", "committed:1").out == "new\n"
    listed = command.run("run", "--rm", "--user=0", "committed:1", "ls", "/etc").out.split()
    assert "passwd" in listed and "group" not in listed
    history = command.run("history", "--no-trunc", "--format={{.Comment}}", "committed:1").out
    assert history.splitlines()[0] == "why"
    command.run("rmi", "committed:1")


@row("CTL-04")
def test_cp_both_ways_like_a_copy(command: Runner, container: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_text("f")
    os.chmod(source / "d/f", 0o640)
    os.chown(source / "d/f", 7, 8)
    (source / "d/link").symlink_to("/etc")
    command.run(
        "exec",
        "-u",
        "0",
        container,
        "sh",
        "-c",
        "mkdir /there; ln -s /../../../../tmp /out; ln -s /there /way",
    )
    command.run("cp", "-a", source / "d", f"{container}:/there")
    command.run("cp", f"{source}/d/.", f"{container}:/new")
    command.run("cp", source / "d/f", f"{container}:/way/g")
    command.run("cp", source / "d/f", f"{container}:/out/escaped")
    listed = command.run(
        "exec",
        "-u",
        "0",
        container,
        "sh",
        "-c",
        "stat -c %a:%u:%g /there/d/f; cat /new/f /there/g /tmp/escaped; ls -d /there/d/link",
    ).out
    assert listed == "640:7:8\nfff/there/d/link\n"
    assert not Path("/tmp/escaped").exists(), "links are followed inside the container"
    command.run("cp", f"{container}:/way", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    command.run("cp", f"{container}:/there/d", tmp_path / "back")
    assert (tmp_path / "back/f").read_text() == "f"
    assert os.readlink(tmp_path / "back/link") == "/etc"
    with tarfile.open(fileobj=io.BytesIO(command.run("cp", f"{container}:/there/d", "-").stdout)) as tar:
        assert sorted(tar.getnames()) == ["d", "d/f", "d/link"]
    assert "nope" in command.run("cp", f"{container}:/nope", tmp_path / "x", status=1).err
