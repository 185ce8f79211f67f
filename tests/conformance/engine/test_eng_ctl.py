"""Containers by hand: run, exec, commit, cp (CTL-01…04)."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.hosts import host_resolv_conf, resolv_conf
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]
RIGHTS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; id; echo $HOME; umask; pwd"
MOUNTS = "cut -d' ' -f5- /proc/self/mountinfo"
NAMESPACES = ("pid", "ipc", "uts", "mnt", "net", "cgroup")
OWN = "for n in pid ipc uts mnt net cgroup; do readlink /proc/self/ns/$n; done; echo $$"
GIVEN = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")
"""A container may write to these, as Docker's may; a step may not."""


def mount_lines(text: str) -> list[str]:
    """Mounts by place, type and options, without the layers of the root and without what is given."""
    lines = [line.split("lowerdir=")[0] for line in text.splitlines()]
    kept = [line for line in lines if not line.startswith((*GIVEN, "/c ", "/dev/tree"))]
    return sorted({line.split()[0]: line for line in kept}.values())  # what lies below another is not seen


@pytest.fixture
def container(command: Runner) -> Iterator[str]:
    name = f"ctl{os.getpid()}"
    command.run("run", "-d", "--name", name, "--network=none", "--user=app", "busybox", "sleep", "100")
    yield name
    command.run("rm", "-f", name, status=None)


@row("CTL-01")
@pytest.mark.parametrize("user", ["root", "app", "4321:77", "app:0"])
def test_a_container_is_confined_like_a_step(command: Runner, tmp_path: Path, user: str) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox AS facts\nWORKDIR /tmp\nUSER {user}\nRUN ({RIGHTS}) > /tmp/rights; {MOUNTS} > /tmp/mounts;"
        " cat /etc/resolv.conf > /tmp/resolv; cat /etc/hosts > /tmp/hosts; ls /dev > /tmp/dev\n"
    )
    command.build(tmp_path, "--network=none", "--tag=facts", "--iidfile", tmp_path / "id")
    script = f"({RIGHTS}) > rights2; {MOUNTS} > mounts2; cat /etc/hosts > hosts2; ls /dev > dev2;"
    script += f" cat rights; echo =; cat rights2; echo =; cat mounts; echo =; cat mounts2; echo =; cat hosts dev; echo =; cat hosts2 dev2; {OWN}"
    image = (tmp_path / "id").read_text()
    shown = command.run(
        "run", "--rm", "--network=none", "--hostname=buildkitsandbox", image, "sh", "-c", script
    ).out.split("=\n")
    assert shown[0] == shown[1] and "CapEff" in shown[0], "rights, user, groups, home"
    assert mount_lines(shown[2]) == mount_lines(shown[3])
    tail = shown[5].splitlines()
    assert shown[4].splitlines() == tail[: -len(NAMESPACES) - 1], "hosts and devices"
    assert tail[-1] == "1"
    assert not {os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES} & set(tail[-7:-1])


@row("CTL-01")
def test_the_root_of_a_container_is_a_view_that_can_be_written(command: Runner, tmp_path: Path) -> None:
    """On an image and on the result of a step that is in no image of its own name."""
    text = "FROM busybox AS one\nRUN echo step > /made\nFROM one\nRUN rm /made\n"
    (tmp_path / "Dockerfile").write_text(text)
    step = command.build(tmp_path, "--network=none", "--target=one", "--iidfile", tmp_path / "id")
    assert step.status == 0
    for image, seen in (("busybox", ""), ((tmp_path / "id").read_text(), "step\n")):
        shown = command.run(
            "run", "--rm", "--network=none", image, "sh", "-c", "touch /gone && cat /made 2>/dev/null; true"
        )
        assert shown.out == seen
        listed = command.run("run", "--rm", "--network=none", image, "ls", "/").out.split()
        assert "gone" not in listed, "the image stays as it is"


@row("CTL-01")
def test_users_hosts_and_name_servers_of_a_container(command: Runner) -> None:
    unknown = command.run("run", "--rm", "--user=nobody-here", "busybox", "true", status=125)
    assert "unable to find user nobody-here: no matching entries in passwd file" in unknown.err
    script = "cat /etc/hosts; echo =; cat /etc/resolv.conf; echo =; hostname"
    hosts, resolv, name = command.run(
        "run", "--rm", "--network=none", "--hostname=mine", "--add-host=there:192.0.2.1", "busybox", "sh", "-c", script
    ).out.split("=\n")  # fmt: skip
    lines = hosts.splitlines()
    assert lines[:2] == ["127.0.0.1\tlocalhost mine", "::1\tlocalhost ip6-localhost ip6-loopback"]
    assert "192.0.2.1\tthere" in lines
    assert resolv == resolv_conf(host_resolv_conf(), isolated=True)
    assert name == "mine\n"


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


@row("CTL-04", "LAY-01", "BET-04")
def test_commit_is_one_layer_on_top(command: Runner, container: str) -> None:
    before = command.inspect("busybox")
    changes = "echo new > /new; rm /etc/group; chmod 711 /; chown 3:4 /"
    command.run("exec", "-u", "0", container, "sh", "-c", changes)
    pid = command.run("inspect", "--format={{.State.Pid}}", container).out.strip()
    os.setxattr(f"/proc/{pid}/root/.", "user.kept", b"v")
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
    again = command.run("run", "-d", "--user=0", "committed:1", "sleep", "100").out.strip()
    pid = command.run("inspect", "--format={{.State.Pid}}", again).out.strip()
    st = os.stat(f"/proc/{pid}/root/.")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o711, 3, 4), "the root is kept, too (LAY-01)"
    assert os.getxattr(f"/proc/{pid}/root/.", "user.kept") == b"v"
    command.run("rm", "-f", again)
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
