"""Ctrl-C while a build waits for somebody else: it ends within a second or so and leaves nothing behind."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder import images
from builder.build.layers import LayerMaker, LayerOptions
from builder.cache.store import Store
from builder.cancelling import Cancel, within
from builder.errors import Cancelled
from builder.exporter.tarout import TarOut
from tests.support import leaks
from tests.support.buildlab import base_tar
from tests.support.cli import Runner

pytestmark = pytest.mark.root
SOON_S = 1.5
WAITING = b"waiting for another build that runs this step"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    base = tmp_path_factory.mktemp("cancelling")
    with Store.open(base / "root") as store:
        images.import_(store, io.BytesIO(base_tar(base)), "busybox:latest")
    yield Runner(base / "root")


@contextmanager
def tardy(*, body: bool) -> Iterator[tuple[str, threading.Event]]:
    """A server that never answers, or drips a body for ever; and when it was first asked."""
    asked = threading.Event()
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            asked.set()
            try:
                if body:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
                while not stop.wait(0.1):
                    if body:
                        connection.sendall(b"x" * 100)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection = server.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}", asked
    finally:
        stop.set()
        server.close()


def started(runner: Runner, context: Path, text: str, *words: str) -> subprocess.Popen[bytes]:
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(text)
    return runner.start(
        "build", "--progress=plain", "--network=none", *words, context, stderr=subprocess.PIPE
    )


def interrupted(runner: Runner, process: subprocess.Popen[bytes]) -> str:
    """Ctrl-C; what it said. Nothing may be left of it."""
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert time.monotonic() - began < SOON_S
    assert process.returncode == 130
    text = err.decode()
    assert text.endswith("ERROR: build cancelled\n")
    with Store.open(runner.root) as store:
        assert store.db.all("SELECT 1 FROM snapshots WHERE kind='active'") == []
    assert leaks.mounts_below(runner.root) == []
    return text


def _children(needle: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if needle.encode() in command:
            found.append(command.replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize("body", [False, True])
@pytest.mark.parametrize(
    "text", ["FROM scratch\nADD http://{0}/file /f\n", "FROM {0}/image\nRUN true\n", "FROM scratch\nADD http://{0}/r.git /r\n"]
)  # fmt: skip
def test_a_slow_server_does_not_keep_a_cancelled_build(
    runner: Runner, tmp_path: Path, text: str, body: bool
) -> None:
    with tardy(body=body) as (host, asked):
        process = started(runner, tmp_path / "c", text.format(host))
        assert asked.wait(20)
        time.sleep(0.2)
        assert "CANCELED" in interrupted(runner, process)
        assert _children(host) == [], "no git was left behind"
        assert os.listdir(runner.root / "tmp") == []


def test_a_slow_context_does_not_keep_a_cancelled_build(runner: Runner) -> None:
    with tardy(body=True) as (host, asked):
        for url in (f"http://{host}/context.tar", f"http://{host}/r.git"):
            asked.clear()
            process = runner.start("build", "--progress=plain", url, stderr=subprocess.PIPE)
            assert asked.wait(20)
            interrupted(runner, process)
        assert os.listdir(runner.root / "tmp") == []


def test_waiting_for_a_lock_ends_with_the_build(runner: Runner, tmp_path: Path) -> None:
    with Store.open(runner.root) as store:
        held = store.cache_mounts.acquire("/mine", "locked")
        with held:
            text = "FROM busybox\nRUN --mount=type=cache,target=/c,id=mine,sharing=locked true # {}\n"
            process = started(runner, tmp_path / "c", text.format(time.time_ns()))
            time.sleep(1.2)
            assert process.poll() is None
            interrupted(runner, process)


def test_one_build_runs_what_two_want_and_takes_over_when_the_other_ends(
    runner: Runner, tmp_path: Path
) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=cache,target=/c,id={0} echo run | tee -a /c/runs; sleep 2\n"
        "RUN --mount=type=cache,target=/c,id={0} cp /c/runs /runs\n"
    )
    for how in ("none", "INT", "KILL"):
        name = f"runs-{how}"
        first = started(runner, tmp_path / "c", text.format(name))
        _until(lambda name=name: _runs(runner, name) == 1)
        told = tmp_path / name
        with told.open("wb") as file:
            second = runner.start("build", "--progress=plain", "--network=none", tmp_path / "c", stderr=file)
        _until(lambda told=told: WAITING in told.read_bytes())
        if how != "none":
            first.send_signal(getattr(signal, f"SIG{how}"))
        second.wait(30)
        first.communicate(timeout=30)
        assert second.returncode == 0, told.read_text()
        assert first.returncode == {"none": 0, "INT": 130, "KILL": -9}[how]
        runs = 1 if how == "none" else 2
        assert _runs(runner, name) == runs
        number = re.search(rb"(#\d+) waiting", told.read_bytes())
        assert number is not None
        lines = [line for line in told.read_bytes().splitlines() if line.startswith(number[1] + b" ")]
        assert sum(line.endswith(b" run") for line in lines) == runs, "what the other says is told, too"
        assert lines[-1].split()[1] == (b"CACHED" if how == "none" else b"DONE")
    assert os.listdir(runner.root / "tmp") == []


def test_waiting_for_the_step_of_another_build_can_be_cancelled(runner: Runner, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN --mount=type=cache,target=/c,id=other echo run >> /c/runs; sleep 4\n"
    first = started(runner, tmp_path / "c", text)
    _until(lambda: _runs(runner, "other") == 1)
    second = started(runner, tmp_path / "c", text)
    time.sleep(1)
    interrupted_second = time.monotonic()
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=10)
    assert time.monotonic() - interrupted_second < SOON_S
    assert second.returncode == 130
    assert "CANCELED" in err.decode()
    _, err = first.communicate(timeout=20)
    assert first.returncode == 0, "the other build goes on"
    assert _runs(runner, "other") == 1


def test_the_failure_of_one_platform_ends_the_others(runner: Runner, tmp_path: Path) -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM busybox AS b\nARG TARGETARCH\n"
        'RUN if [ "$TARGETARCH" = arm64 ]; then sleep 0.5; exit 4; else sleep 66; fi\n'
        "FROM scratch\nCOPY --from=b /etc /etc\n"
    )
    words = ("--platform=linux/amd64,linux/arm64", "--parallel=2")
    began = time.monotonic()
    process = started(runner, tmp_path / "c", text, *words)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 15, "both ran at the same time, and one ended the other"
    assert process.returncode == 1
    assert "exit code: 4" in err.decode()
    assert "CANCELED" in err.decode()
    kept = started(runner, tmp_path / "c", text.replace("sleep 66", "exit 5"), *words, "--keep-going")
    _, err = kept.communicate(timeout=30)
    assert b"exit code: 4" in err
    assert b"exit code: 5" in err
    assert err.endswith(b"ERROR: 2 steps failed\n")


def _runs(runner: Runner, name: str) -> int:
    with Store.open(runner.root) as store:
        places = [
            store.cache_mounts.path(m.directory) for m in store.cache_mounts.list() if m.id == f"/{name}"
        ]
    files = [place / "runs" for place in places if (place / "runs").exists()]
    return sum(len(file.read_text().split()) for file in files)


def _until(done, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_packing_and_writing_archives_stop_with_the_build(tmp_path: Path) -> None:
    stop = Cancel()
    with Store.open(tmp_path / "root") as store, within(stop), LayerMaker(store, LayerOptions()) as maker:
        made = store.snapshots.commit(store.snapshots.prepare(None))
        stop.set()
        with pytest.raises(Cancelled):
            maker.layer(made.id)
        with pytest.raises(Cancelled):
            TarOut(io.BytesIO()).file("f", io.BytesIO(b"x"), 1)
