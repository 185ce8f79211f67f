"""Running containers through their monitor: streams, status, terminal, exec, signals, restart, removal."""

from __future__ import annotations

import os
import pty
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import containers as c
from builder.containers import options
from builder.errors import PybuildError
from runtime import state
from runtime.errors import CommandNotExecutable, CommandNotFound
from runtime.session import Session
from tests.support.containerlab import ContainerLab, container_lab, drive, monitors_of

pytestmark = [pytest.mark.root, pytest.mark.linux]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerLab]:
    base = tmp_path_factory.mktemp("containers")
    with container_lab(base) as made:
        yield made
    assert monitors_of(base) == []


def test_streams_and_exit_status(lab: ContainerLab) -> None:
    code, out, err = lab.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (code, out, err) == (7, b"out\n", b"err\n")
    assert lab.store.containers.list() == ()


def test_environment_hostname_and_user(lab: ContainerLab) -> None:
    """EX-63, RUN-45."""
    text = lab.sh("env; hostname; id -u", env=("deep=purple",), user="bob")
    lines = text.splitlines()
    assert "deep=purple" in lines
    assert "FROM_IMAGE=yes" in lines
    assert f"HOSTNAME={lines[-2]}" in lines
    assert len(lines[-2]) == 12
    assert lines[-1] == "1000"


@pytest.mark.parametrize(
    ("command", "kind", "status"), [("/nosuch", CommandNotFound, 127), ("/etc", CommandNotExecutable, 126)]
)
def test_commands_that_cannot_be_executed(
    lab: ContainerLab, command: str, kind: type[PybuildError], status: int
) -> None:
    made = lab.create(command)
    with pytest.raises(kind) as caught:
        c.start(lab.store, made.id)
    assert caught.value.exit_status == status
    found = c.find(lab.store, made.id).state
    assert (found.status, found.exit_code) == ("created", status)
    assert found.error


def test_no_command_and_no_image(lab: ContainerLab) -> None:
    with pytest.raises(PybuildError) as caught:
        lab.create(image="nothing:here")
    assert caught.value.code == "no-such-image"
    with pytest.raises(PybuildError) as caught:
        lab.create(entrypoint=())
    assert "No command specified" in caught.value.message


def test_input_reaches_the_process_and_ends(lab: ContainerLab) -> None:
    code, out, _ = lab.run("cat", stdin=b"test\n")
    assert (code, out) == (0, b"test\n")


def test_much_data_both_ways_neither_blocks_nor_gets_lost(lab: ContainerLab) -> None:
    data = os.urandom(1 << 20) * 6
    code, out, _ = lab.run("cat", stdin=data)
    assert code == 0
    assert out == data


def test_a_slow_reader_slows_the_container_down(lab: ContainerLab) -> None:
    made = lab.create(
        "sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done", log=_no_log()
    )
    _, session = c.start(lab.store, made.id, attach=c.Streams())
    assert session is not None
    with session:
        time.sleep(0.5)
        monitor = c.find(lab.store, made.id).state.monitor.pid
        status = Path(f"/proc/{monitor}/status").read_text()
        resident_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
        assert resident_kib < 40_000
    c.kill(lab.store, made.id)


def _no_log() -> options.LogOptions:
    from runtime.specfile import LogOptions

    return LogOptions(driver="none")


def test_log_has_every_line_with_stream_and_time(lab: ContainerLab) -> None:
    made = lab.start("sh", "-c", "echo one; echo two >&2; printf three")
    assert c.wait(lab.store, made.id) == 0
    entries = list(c.logs(lab.store, made.id))
    assert sorted((e.stream, e.data) for e in entries) == [
        ("stderr", b"two\n"),
        ("stdout", b"one\n"),
        ("stdout", b"three"),
    ]
    assert all(e.time.endswith("Z") and len(e.time) == 30 for e in entries)
    assert [e.data for e in c.logs(lab.store, made.id, tail=1)] == [entries[-1].data]


def test_logs_follow_until_the_end(lab: ContainerLab) -> None:
    made = lab.start("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done")
    assert [e.data for e in c.logs(lab.store, made.id, follow=True)] == [b"1\n", b"2\n", b"3\n"]


def test_background_container_with_auto_removal(lab: ContainerLab) -> None:
    """Nobody is attached: the monitor's helper removes it."""
    made = lab.start("sh", "-c", "sleep 0.1", auto_remove=True)

    def actions() -> list[str]:
        return [e.action for e in lab.store.events.list() if e.id == made.id]

    lab.wait_for(lambda: "destroy" in actions())
    assert actions() == ["create", "start", "die", "destroy"]
    assert lab.store.containers.get(made.id) is None
    lab.wait_for(lambda: not made.directory.exists())


def test_owner_that_dies_leaves_removal_to_the_helper(lab: ContainerLab) -> None:
    made = lab.create("sh", "-c", "sleep 0.2", auto_remove=True)
    _, session = c.start(lab.store, made.id, attach=c.Streams(owner=True))
    assert session is not None
    session.close()
    lab.wait_for(lambda: lab.store.containers.get(made.id) is None)


def test_exec_runs_in_the_same_namespaces(lab: ContainerLab) -> None:
    """EX-65."""
    made = lab.start("sleep", "100", env=("A=1",), workdir="/tmp", hostname="shared")
    code, text = lab.execute(made.id, "sh", "-c", "hostname; pwd; echo $A; ps; exit 5")
    assert code == 5
    assert text.splitlines()[:3] == ["shared", "/tmp", "1"]
    assert "sleep 100" in text
    assert lab.execute(
        made.id, "sh", "-c", "id -u; pwd; echo $B", user="bob", workdir="/root", env=("B=2",)
    ) == (
        0,
        "1000\n/root\n2\n",
    )
    assert lab.execute(made.id, "cat", stdin=b"typed") == (0, "typed")
    with pytest.raises(CommandNotFound):
        lab.execute(made.id, "nosuch")
    c.kill(lab.store, made.id)
    with pytest.raises(PybuildError) as caught:
        lab.execute(made.id, "true")
    assert caught.value.code == "container-not-running"


def test_detached_exec_shows_in_inspect(lab: ContainerLab) -> None:
    made = lab.start("sleep", "100")
    request = c.ExecRequest(command=("sh", "-c", "touch /tmp/done; sleep 100"), detach=True)
    exec_id, session = c.execute(lab.store, made.id, request)
    assert session is None
    assert c.inspect_container(lab.store, made.id)["ExecIDs"] == [exec_id]
    lab.wait_for(lambda: lab.execute(made.id, "test", "-e", "/tmp/done")[0] == 0)
    c.kill(lab.store, made.id)


def test_stop_gives_time_and_then_kills(lab: ContainerLab) -> None:
    """EX-76."""
    polite = lab.start("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
    time.sleep(0.1)
    assert c.stop(lab.store, polite.id).state.exit_code == 3
    deaf = lab.start("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    time.sleep(0.1)
    started = time.monotonic()
    assert c.stop(lab.store, deaf.id, timeout_s=0.5).state.exit_code == 137
    assert 0.4 < time.monotonic() - started < 3
    assert c.stop(lab.store, deaf.id).state.status == "exited"


def test_signals_are_delivered(lab: ContainerLab) -> None:
    made = lab.start("sh", "-c", "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done")
    lab.wait_for(lambda: any(e.data == b"ready\n" for e in c.logs(lab.store, made.id)))
    c.kill(lab.store, made.id, signal="SIGHUP")
    lab.wait_for(lambda: any(e.data == b"hup\n" for e in c.logs(lab.store, made.id)))
    assert lab.status(made.id) == "running"
    with pytest.raises(PybuildError) as caught:
        c.kill(lab.store, made.id, signal="NOSUCH")
    assert caught.value.code == "invalid-signal"
    assert c.kill(lab.store, made.id).state.exit_code == 137


def test_pause_freezes_and_refuses(lab: ContainerLab) -> None:
    """EX-77, LIF-PAUSE."""
    made = lab.start("sh", "-c", "while :; do echo tick; sleep 0.02; done", name="ticker")
    c.pause(lab.store, "ticker")
    assert "(Paused)" in c.ps(lab.store, c.PsRequest(filters=("name=ticker",)))[0].status
    before = made.directory.joinpath(f"{made.id}-json.log").stat().st_size
    time.sleep(0.15)
    assert made.directory.joinpath(f"{made.id}-json.log").stat().st_size == before
    for action in (
        lambda: c.pause(lab.store, "ticker"),
        lambda: c.kill(lab.store, "ticker"),
        lambda: c.start(lab.store, "ticker"),
        lambda: lab.execute("ticker", "true"),
    ):
        with pytest.raises(PybuildError) as caught:
            action()
        assert caught.value.code == "container-paused"
    c.unpause(lab.store, "ticker")
    assert lab.status("ticker") == "running"
    c.pause(lab.store, "ticker")
    c.remove(lab.store, "ticker", force=True)
    assert lab.store.containers.get("ticker") is None


def test_wait_gives_the_status(lab: ContainerLab) -> None:
    """EX-78."""
    zero, three = lab.start("true"), lab.start("sh", "-c", "sleep 0.1; exit 3")
    assert [c.wait(lab.store, made.id) for made in (zero, three)] == [0, 3]
    assert c.wait(lab.store, three.id) == 3


def test_start_twice_and_again(lab: ContainerLab) -> None:
    made = lab.create("sh", "-c", "echo run >> /tmp/runs; cat /tmp/runs; sleep 0.3")
    c.start(lab.store, made.id)
    pid = c.find(lab.store, made.id).state.process.pid
    c.start(lab.store, made.id)
    assert c.find(lab.store, made.id).state.process.pid == pid
    c.wait(lab.store, made.id)
    c.start(lab.store, made.id)
    c.wait(lab.store, made.id)
    assert b"".join(e.data for e in c.logs(lab.store, made.id)) == b"run\nrun\nrun\n"


def test_restart_on_failure_counts_and_gives_up(lab: ContainerLab) -> None:
    """EX-62, RUN-32."""
    made = lab.start("sh", "-c", "echo try; exit 1", restart=options.restart("on-failure:2"))
    assert c.wait(lab.store, made.id) == 1
    found = c.find(lab.store, made.id).state
    assert (found.status, found.restart_count) == ("exited", 2)
    assert [e.data for e in c.logs(lab.store, made.id)] == [b"try\n"] * 3


def test_stop_ends_restarting(lab: ContainerLab) -> None:
    made = lab.start("sh", "-c", "exit 0", restart=options.restart("always"))
    lab.wait_for(lambda: c.find(lab.store, made.id).state.restart_count >= 1)
    c.stop(lab.store, made.id)
    assert lab.status(made.id) == "exited"
    lab.wait_for(lambda: not (made.directory / "attach.sock").exists())


def test_a_dead_monitor_is_seen(lab: ContainerLab) -> None:
    made = lab.start("sleep", "100")
    found = c.find(lab.store, made.id).state
    os.kill(found.monitor.pid, signal.SIGKILL)
    lab.wait_for(lambda: not found.process.alive())
    now = c.find(lab.store, made.id).state
    assert now.status == "exited"
    assert "monitor" in now.error
    with pytest.raises(PybuildError):
        lab.execute(made.id, "true")
    c.start(lab.store, made.id)
    assert lab.status(made.id) == "running"
    c.kill(lab.store, made.id)


def test_terminal_size_and_detach(lab: ContainerLab) -> None:
    """EX-64: detach leaves it running; attach again, and its end is ours."""
    made = lab.create("sh", tty=True, interactive=True, attach_stdin=True)
    _, session = c.start(lab.store, made.id, attach=c.Streams(stdin=True, size=(33, 77)))
    assert session is not None
    text = _talk(session, [b'tty; busybox stty size; echo do""ne\n'], until=b"\r\ndone\r\n")
    assert b"/dev/pts/0" in text or b"/dev/console" in text
    assert b"33 77" in text
    assert c.inspect_container(lab.store, made.id)["State"]["Running"]
    _, session = c.attach(lab.store, made.id)
    master, slave = pty.openpty()
    with session:
        threading.Timer(0.1, lambda: os.write(master, b"\x10\x11")).start()
        ended = c.couple(session, stdin=slave, stdout=slave, stderr=slave, tty=True)
    assert ended.code is None
    assert lab.status(made.id) == "running"
    _, session = c.attach(lab.store, made.id)
    with session:
        session.write(b"exit 10\n")
        assert next(e for e in session.events() if e.kind == "exit").code == 10
    os.close(master)
    os.close(slave)


def _talk(session: Session, lines: list[bytes], *, until: bytes) -> bytes:
    seen = b""
    with session:
        for line in lines:
            session.write(line)
        for event in session.events():
            seen += event.data
            if until in seen:
                break
    return seen


def test_exec_with_a_terminal(lab: ContainerLab) -> None:
    made = lab.start("sleep", "100")
    request = c.ExecRequest(command=("sh", "-c", "test -t 0 && test -t 1 && tty"), tty=True, interactive=True)
    _, session = c.execute(lab.store, made.id, request)
    assert session is not None
    with session:
        code, out, _ = drive(session)
    assert code == 0
    assert out.startswith(b"/dev/pts/")
    c.kill(lab.store, made.id)


def test_removal_rules(lab: ContainerLab) -> None:
    """EX-83, EX-82."""
    made = lab.start("sleep", "100", name="keeper")
    with pytest.raises(PybuildError) as caught:
        c.remove(lab.store, "keeper")
    assert caught.value.code == "container-running"
    other = lab.create("true", name="other")
    with pytest.raises(PybuildError) as caught:
        c.rename(lab.store, "keeper", "other")
    assert caught.value.code == "name-in-use"
    c.rename(lab.store, "keeper", "kept")
    assert c.remove(lab.store, "/kept", force=True) == "kept"
    assert not made.directory.exists()
    assert c.remove(lab.store, other.short_id) == "other"


def test_failed_creation_leaves_nothing(lab: ContainerLab) -> None:
    lab.create("true", name="taken")
    directories = sorted(p.name for p in (lab.store.root / "containers").iterdir())
    snapshots = lab.store.snapshots.list()
    with pytest.raises(PybuildError):
        lab.create("true", name="taken")
    assert sorted(p.name for p in (lab.store.root / "containers").iterdir()) == directories
    assert len(lab.store.snapshots.list()) == len(snapshots)


def test_memory_limit_and_oom(lab: ContainerLab) -> None:
    """LIF-OOM, EX-70."""
    from runtime.spec import Limits

    limits = Limits(memory_bytes=16 << 20)
    made = lab.start("sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M", limits=limits)
    assert c.wait(lab.store, made.id) != 0
    assert c.inspect_container(lab.store, made.id)["HostConfig"]["Memory"] == 16 << 20


def test_state_survives_in_files(lab: ContainerLab) -> None:
    made = lab.start("sleep", "100")
    found = state.observe(made.directory)
    assert found.process.alive()
    assert found.cgroups
    c.kill(lab.store, made.id)
    assert state.observe(made.directory).exit_code == 137


def test_a_monitor_with_a_bug_says_so_and_leaves_nothing(lab: ContainerLab) -> None:
    from runtime import wire
    from runtime.monitor_start import MonitorProcess

    monitor = MonitorProcess.launch()
    session = Session(monitor.take())
    with session, pytest.raises(PybuildError):
        session.request(wire.START, {"directory": "/nonexistent"})
    assert "KeyError" in monitor.errors()
    monitor.reap()


def test_an_unused_monitor_leaves(lab: ContainerLab) -> None:
    from runtime.monitor_start import MonitorProcess

    before = _monitors()
    with MonitorProcess.launch():
        pass
    lab.wait_for(lambda: not _monitors() - before)


def _monitors() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"runtime.monitor import" in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def test_malformed_requests_are_answered(lab: ContainerLab) -> None:
    from runtime import wire

    made = lab.start("sleep", "100")
    for kind, payload in (
        (b"?", b""),
        (wire.SIGNAL, b"junk"),
        (wire.SIGNAL, wire.pack({})),
        (wire.EXEC, wire.pack({})),
    ):
        with Session.connect(made.directory) as session, pytest.raises(PybuildError):
            session.send(kind, payload)
            session.answer()
    assert lab.status(made.id) == "running"
    c.kill(lab.store, made.id)


def test_two_starters_at_once(lab: ContainerLab) -> None:
    made = lab.create("sleep", "100")
    problems: list[PybuildError] = []

    def start() -> None:
        try:
            c.start(lab.store, made.id)
        except PybuildError as error:
            problems.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lab.status(made.id) == "running"
    assert problems == []
    assert len(lab.execute(made.id, "ps")[1].splitlines()) == 3
    c.kill(lab.store, made.id)
