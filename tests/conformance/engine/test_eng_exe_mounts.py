"""Mounts and results of RUN steps (EXE-19…23, 32…34)."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import SolveError
from builder.llb.definition import Vertex
from builder.llb.ops import Mount
from builder.solver.ops.agentsocket import agent_socket
from builder.solver.types import Secret
from runtime.launcher import Launcher
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.handmade import Bench
from tests.support.rows import row
from tests.support.solving import BASE, run

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def bench(lab: Lab) -> Iterator[Bench]:
    with Launcher.start() as launcher:
        yield Bench(lab.store, launcher)


def step(bench: Bench, script: str, *inputs: Vertex, mounts: tuple[Mount, ...] = ()) -> Vertex:
    for vertex in inputs:
        bench.take(vertex)
    return bench.take(run(script, *inputs, mounts=mounts))


@row("EXE-19")
@pytest.mark.parametrize("sharing", ["shared", "private", "locked"])
def test_sharing_between_builds_at_the_same_time(lab: Lab, command: Runner, sharing: str) -> None:
    """Two processes: each says that it is there, waits for the other, and writes down what it saw."""
    tries, after = (100, "true") if sharing == "shared" else (10, "rm /c/here-$me")
    script = (
        f"touch /c/here-$me; for i in $(seq {tries}); do test $(ls /c | wc -l) = 2 && break; sleep 0.1; done;"
        f" ls /c > /seen; {after}"
    )
    started = []
    for me in "ab":
        context = lab.context()
        (context / "Dockerfile").write_text(
            f"FROM busybox\nARG me={me}\nRUN --mount=type=cache,id=both-{sharing},target=/c,sharing={sharing} {script}\n"
            "FROM scratch\nCOPY --from=0 /seen /\n"
        )
        out = context / "out"
        started.append((out, command.start("build", "--network=none", f"--output={out}", str(context))))
    for _, process in started:
        assert process.wait(60) == 0
    seen = sorted(len((out / "seen").read_text().split()) for out, _ in started)
    assert seen == ([2, 2] if sharing == "shared" else [1, 1])
    kept = [item for item in lab.store.cache_mounts.list() if item.id.endswith(f"both-{sharing}")]
    assert len(kept) == (2 if sharing == "private" else 1)


@row("EXE-19")
def test_a_cache_with_content_to_start_with_is_its_own_and_selectors_stay_inside(bench: Bench) -> None:
    filled = step(bench, "mkdir /in; echo first > /in/f", BASE)
    plain = Mount(dest="/c", type="cache", id="same")
    given = Mount(dest="/c", type="cache", id="same", input=1, selector="in")
    step_plain = step(
        bench, "echo mine > /c/f; ln -s ../../../../../etc /c/out; mkdir -p /c/sub", BASE, mounts=(plain,)
    )
    bench.solve(step_plain)
    assert bench.read(step(bench, "cat /c/f > /seen", BASE, filled, mounts=(given,)), "seen") == "first\n"
    sub = Mount(dest="/c", type="cache", id="same", selector="sub")
    bench.solve(step(bench, "echo deep > /c/deep", BASE, mounts=(sub,)))
    assert bench.read(step(bench, "cat /c/sub/deep > /seen", BASE, mounts=(plain,)), "seen") == "deep\n"
    out = Mount(dest="/c", type="cache", id="same", selector="out")
    try:
        listed = bench.read(step(bench, "ls /c > /seen", BASE, mounts=(out,)), "seen")
    except SolveError:
        listed = ""
    assert "passwd" not in listed, "a link in a cache leads nowhere"


@row("EXE-20")
def test_secrets(lab: Lab, bench: Bench) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=secret,id=s,target=/deep/er/s,uid=3,gid=4,mode=0{} stat -c %a:%u:%g /deep/er/s > /o;"
        " grep ' /deep/er/s ' /proc/self/mountinfo > /m; cat /deep/er/s | tr a-z A-Z > /v\n"
    )
    secrets = (Secret(id="s", data=b"word"),)
    for mode, execute in (("640", False), ("4750", True)):
        built = lab.quick(text.format(mode), secrets=secrets)
        assert built.read("o") == f"{mode[-3:]}:3:4\n"
        assert built.read("v") == "WORD"
        mount = built.read("m")
        assert "tmpfs" in mount and "nosuid" in mount and "nodev" in mount
        assert ("noexec" in mount) is not execute
        assert not built.has("deep")
    with pytest.raises(SolveError, match="secret s too big"):
        lab.quick(text.format("400"), secrets=(Secret(id="s", data=bytes(512_001)),))


def frame(kind: int, body: bytes = b"") -> bytes:
    return (1 + len(body)).to_bytes(4, "big") + bytes((kind,)) + body


class FakeAgent:
    """Answers every request with its own type and remembers it."""

    def __init__(self, path: Path) -> None:
        self.heard: list[int] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._server.accept()
            except OSError:
                return
            with one:
                while head := one.recv(4):
                    body = one.recv(int.from_bytes(head, "big"))
                    self.heard.append(body[0])
                    one.sendall(frame(100 + body[0], body[1:]))

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@row("EXE-21")
def test_an_agent_lists_and_signs_and_does_nothing_else(tmp_path: Path) -> None:
    agent = FakeAgent(tmp_path / "agent")
    places = [tmp_path / "filtered", tmp_path / "raw"]
    for place in places:
        place.mkdir()
    ids = {"uid": os.getuid(), "gid": os.getgid()}
    try:
        filtered = agent_socket(str(tmp_path / "agent"), places[0], mode=0o600, **ids)
        with filtered as path, socket.socket(socket.AF_UNIX) as step:
            step.connect(str(path))
            step.sendall(frame(11) + frame(17, b"add this key") + frame(13, b"sign"))
            assert step.recv(5, socket.MSG_WAITALL) == frame(111)
            assert step.recv(5, socket.MSG_WAITALL) == frame(5), "SSH_AGENT_FAILURE"
            assert step.recv(9, socket.MSG_WAITALL) == frame(113, b"sign")
            for kind in (18, 19, 22, 23, 25, 27):
                step.sendall(frame(kind))
                assert step.recv(5, socket.MSG_WAITALL) == frame(5)
            step.sendall(b"\xff\xff\xff\xff")
            assert step.recv(10) == b"", "what is no message ends the conversation"
        assert agent.heard == [11, 13]
        raw = agent_socket(str(tmp_path / "agent"), places[1], mode=0o600, raw=True, **ids)
        with raw as path, socket.socket(socket.AF_UNIX) as step:
            step.connect(str(path))
            step.sendall(frame(17, b"k"))
            assert step.recv(6, socket.MSG_WAITALL) == frame(117, b"k")
    finally:
        agent.close()


@row("EXE-22")
def test_tmpfs(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m --mount=type=tmpfs,target=/dev/shm,size=2m"
        " cat /proc/self/mountinfo > /m; head -c 2m /dev/zero > /t/f; wc -c < /t/f > /n; true\n"
    )
    lines = {line.split()[4]: line for line in built.read("m").splitlines()}
    assert "nosuid" in lines["/t"] and "size=1024k" in lines["/t"] and "size=2048k" in lines["/dev/shm"]
    assert int(built.read("n")) <= 1 << 20
    assert not built.has("t")


@row("EXE-23")
def test_mount_points_leave_no_trace(bench: Bench) -> None:
    base = step(bench, "mkdir /old; touch -d 2001-02-03 /old", BASE)
    mounts = (Mount(dest="/old/a/b", type="tmpfs"), Mount(dest="/new/c", type="cache", id="stub"))
    head = step(bench, "touch /old/a/b/x", base, mounts=mounts)
    with bench.view(head) as view, bench.view(base) as before:
        assert view.lstat("old/a") is None and view.lstat("new") is None
        one, two = view.lstat("old"), before.lstat("old")
        assert one is not None and two is not None and one.st_mtime_ns == two.st_mtime_ns
    own, _ = bench.store.snapshots.diff_dir(str(bench.solve(head)))
    assert [name for _, _, names in os.walk(own) for name in names] == []
    kept = step(bench, "touch /old/a/mine", base, mounts=mounts)
    assert "old/a/mine" in bench.look(kept) and "old/a/b" not in bench.look(kept)


@row("EXE-32")
def test_one_cache_at_two_places(bench: Bench) -> None:
    for sharing in ("shared", "private", "locked"):
        both = tuple(
            Mount(dest=f"/{name}", type="cache", id=f"twice-{sharing}", sharing=sharing) for name in "xy"
        )  # type: ignore[arg-type]
        assert (
            bench.read(step(bench, "echo here > /x/f; cat /y/f > /seen", BASE, mounts=both), "seen")
            == "here\n"
        )
    again = Mount(dest="/z", type="cache", id="twice-shared")
    assert bench.read(step(bench, "cat /z/f > /seen", BASE, mounts=(again,)), "seen") == "here\n"


@row("EXE-33")
def test_what_can_be_mounted(bench: Bench) -> None:
    filled = step(
        bench,
        "mkdir -p /d/e; echo one > /d/e/f; ln -s /d/e /way; ln -s /etc /d/out; echo secret > /secret",
        BASE,
    )
    mounts = (
        Mount(dest="/whole", input=1, readonly=True),
        Mount(dest="/part", input=1, selector="/d/e", readonly=True),
        Mount(dest="/file", input=1, selector="way/f", readonly=True),
        Mount(dest="/change", input=1, selector="d"),
        Mount(dest="/empty"),
        Mount(dest="/nothing", readonly=True),
    )
    script = (
        "cat /whole/d/e/f /part/f /file > /seen; echo two > /change/e/f; cat /change/e/f >> /seen; touch /empty/x /whole/x"
        " /part/x /nothing/x 2> /refused; ls /empty /nothing >> /seen"
    )
    head = step(bench, f"{script}; true", BASE, filled, mounts=mounts)
    assert bench.read(head, "seen").split() == ["one", "one", "one", "two", "/empty:", "x", "/nothing:"]
    assert bench.read(head, "refused").count("Read-only") == 3
    assert bench.read(filled, "d/e/f") == "one\n", "a writable view is thrown away"
    assert not {"whole", "part", "file", "change", "empty", "nothing"} & set(bench.look(head))
    with pytest.raises(Exception, match="nope"):
        bench.solve(step(bench, "true", BASE, filled, mounts=(Mount(dest="/x", input=1, selector="nope"),)))


@row("EXE-34")
def test_every_output_is_a_result_of_its_own(bench: Bench) -> None:
    filled = step(bench, "mkdir /d; echo one > /d/f", BASE)
    mounts = (
        Mount(dest="/same", input=1, output=1),
        Mount(dest="/changed", input=1, output=2),
        Mount(dest="/part", input=1, selector="d", output=3),
        Mount(dest="/made", output=4),
        Mount(dest="/dropped", input=1),
    )
    head = step(
        bench,
        "echo x > /changed/x; rm /part/f; echo y > /made/y; touch /dropped/z; touch /root-too",
        BASE,
        filled,
        mounts=mounts,
    )
    before = bench.look(filled)
    assert "root-too" in bench.look(head)
    assert bench.look(head, 1) == before
    assert bench.solve(head, 1) != bench.solve(filled), "a new result even if nothing changed"
    assert set(bench.look(head, 2)) == {*before, "x"}
    assert set(bench.look(head, 3)) == set(before) - {"d/f"}
    assert set(bench.look(head, 4)) == {"y"}
    assert not {"same", "changed", "part", "made", "dropped"} & set(bench.look(head))
    results = [bench.solve(head, index) for index in range(5)]
    assert len(set(results)) == 5
    began = time.monotonic()
    assert [bench.solve(head, index) for index in range(5)] == results and time.monotonic() - began < 5
    user = step(bench, "cat /m/x > /seen", BASE, head)
    assert user
    taken = bench.vertex(user.op, BASE, (head, 2))
    assert taken.inputs[1].index == 2
