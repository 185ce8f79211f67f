"""Found by use: credentials in descriptions, and a shell after a build that ran nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support import bases
from tests.support.cli import Runner

pytestmark = [pytest.mark.root, pytest.mark.linux]


class _File(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"file")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _File) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path / "root")
    made.load(bases.archive("busybox"))
    yield made
    made.clean()


def test_credentials_of_a_url_are_nowhere_in_the_state_directory(
    runner: Runner, tmp_path: Path, port: int
) -> None:
    url = f"http://joe:pa55w0rd@127.0.0.1:{port}/file"
    runner.dockerfile(tmp_path / "c", f"FROM scratch\nADD {url} /x\n")
    assert "pa55w0rd" not in runner.run("du", "--verbose").out
    files = [path for path in runner.root.rglob("*") if path.is_file()]
    assert not [path for path in files if b"pa55w0rd" in path.read_bytes()]


def test_the_shell_stands_in_the_last_build_that_ran_something(runner: Runner, tmp_path: Path) -> None:
    runner.dockerfile(tmp_path / "c", "FROM busybox\nRUN echo here > /mark\n")
    runner.dockerfile(tmp_path / "c", "FROM busybox\nRUN echo here > /mark\n", "--label=a=b")
    runner.dockerfile(tmp_path / "d", "FRUM busybox\n", status=1)
    assert runner.run("debug", "shell", "--", "cat", "/mark").out == "here\n"
