"""Few open files, and named pipes where files are expected: builds go on, or stop at one signal."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import pytest

from builder.cancelling import Cancel, within
from builder.errors import Cancelled, PybuildError
from builder.exporter.destination import opened
from builder.sources.named import parse_named
from cli.render.errors import error_text
from runtime import messages, openfiles
from runtime.errors import SetupFailed


def test_a_pipe_nobody_reads_does_not_hold_a_cancelled_build(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")
    cancel = Cancel()
    threading.Timer(0.1, cancel.set).start()
    with pytest.raises(Cancelled), within(cancel), opened(str(tmp_path / "out"), "archive", None):
        pass


def test_a_pipe_gets_its_reader_late(tmp_path: Path) -> None:
    pipe = tmp_path / "out"
    os.mkfifo(pipe)
    read: list[bytes] = []

    def late() -> None:
        time.sleep(0.1)
        read.append(pipe.read_bytes())

    reader = threading.Thread(target=late)
    reader.start()
    with opened(str(pipe), "archive", None) as out:
        out.write(bytes(1 << 20))
    reader.join()
    assert read == [bytes(1 << 20)]


def test_a_pipe_is_no_layout(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(PybuildError, match="not an OCI image layout"):
        parse_named("base", f"oci-layout://{tmp_path}")


def test_descriptors_that_do_not_fit_are_an_error() -> None:
    ours, theirs = messages.pair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    messages.send(ours, ("x",), (0, 1))
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            messages.receive(theirs)
        assert openfiles.room(64, 1 << 20) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    ours.close()
    theirs.close()


def test_the_limit_is_named() -> None:
    assert "ulimit -n" in error_text(SetupFailed("open", "/x", 24))
