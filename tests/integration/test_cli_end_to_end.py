"""The program as people use it: builds, containers and terminals, each call a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BUSYBOX = shutil.which("busybox")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(BUSYBOX is None, reason="needs a static busybox"),
]
APPLETS = ["sh", "cat", "echo", "sleep", "true", "false", "id", "ls", "stty", "kill", "trap", "env"]


class Cli:
    """Calls pybuild on one state directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cli.main", "--root", str(self.root), *words]

    def __call__(self, *words: str, stdin: bytes = b"", status: int = 0) -> str:
        done = subprocess.run(self.argv(*words), input=stdin, capture_output=True, check=False, timeout=60)
        self.err = done.stderr.decode()
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout!r}\n{self.err}"
        return done.stdout.decode()

    def wait_until_running(self, name: str) -> None:
        for _ in range(100):
            if self("inspect", "-f", "{{.State.Running}}", name) == "true\n":
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} does not run")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    place = tmp_path_factory.mktemp("cli")
    tree = place / "tree"
    for folder in ("bin", "etc", "tmp", "root"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(str(BUSYBOX), tree / "bin/busybox")
    for name in APPLETS:
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/tmp:/bin/sh\n")
    with tarfile.open(place / "tree.tar", "w") as tar:
        tar.add(tree, ".")
    found = Cli(place / "state")
    found("import", "-c", 'CMD ["sh"]', str(place / "tree.tar"), "busybox")
    yield found
    for name in found("ps", "-aq").split():
        found("rm", "-fv", name)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("content\n")
    return tmp_path


def write(context: Path, text: str) -> Path:
    (context / "Dockerfile").write_text(text)
    return context


def test_a_build_tells_its_steps_and_is_cached_the_second_time(cli: Cli, context: Path) -> None:
    write(context, "FROM busybox\nRUN echo building; echo hi > /made\nCOPY file /file\nCMD cat /made /file\n")
    assert cli("build", "-t", "app", str(context)) == ""
    assert re.search(r"^#\d+ \[2/3\] RUN echo building; echo hi > /made$", cli.err, re.MULTILINE)
    assert re.search(r"^#\d+ \d\.\d{3} building$", cli.err, re.MULTILINE)
    image_id = cli("build", "-q", "-t", "app", str(context)).strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image_id)
    assert cli.err == ""
    cli("build", "-t", "app", str(context))
    assert cli.err.count("CACHED") >= 3
    assert cli("run", "--rm", "app") == "hi\ncontent\n"


def test_a_failed_step_shows_its_output_and_its_line(cli: Cli, context: Path) -> None:
    write(context, "FROM busybox\n\nRUN echo because; exit 13\n")
    assert cli("build", "-t", "never", str(context), status=1) == ""
    tail = cli.err[cli.err.index("------\n") :]
    assert re.sub(r"\d\.\d{3}", "TIME", tail).startswith(
        "------\n > [2/2] RUN echo because; exit 13:\nTIME because\n------\n"
        "Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |\n   3 | >>> RUN echo because; exit 13\n"
    )
    assert cli.err.rstrip().endswith("exit code: 13")
    assert cli("images", "-q", "never") == ""
    cli("build", "--progress=quiet", "--error-format=json", str(context), status=1)
    error = json.loads(cli.err.splitlines()[-1])["error"]
    assert (error["code"], error["exit_code"]) == ("step-failed", 13)
    assert error["location"] == {"file": "Dockerfile", "start_line": 3, "end_line": 3}


def test_outputs_go_where_they_are_asked_to(cli: Cli, context: Path) -> None:
    write(context, "FROM scratch\nCOPY file /sub/\n")
    cli("build", "-o", str(context / "out"), str(context))
    assert (context / "out/sub/file").read_text() == "content\n"
    tar = subprocess.run(cli.argv("build", "-o", "-", str(context)), capture_output=True, check=True).stdout
    assert tar[257:262] == b"ustar"
    cli("build", "--iidfile", str(context / "iid"), "--metadata-file", str(context / "meta"), str(context))
    meta = json.loads((context / "meta").read_text())
    assert meta["containerimage.config.digest"] == (context / "iid").read_text()


def test_warnings_are_summed_up_after_a_build(cli: Cli, context: Path) -> None:
    write(context, "FROM busybox as Base\nENV a b\n")
    cli("build", "--build-arg", "UNUSED=1", str(context))
    assert "One or more build-args [UNUSED] were not consumed" in cli.err
    assert "3 warnings found (use --debug to expand):\n" in cli.err
    assert " - LegacyKeyValueFormat: " in cli.err
    text = cli("build", "--check", str(context), status=1)
    assert text.startswith("Check complete, 3 warnings found!")
    assert "Dockerfile:2\n--------------------" in text


def test_an_interrupted_build_ends_with_130_and_leaves_no_process(cli: Cli, context: Path) -> None:
    write(context, "FROM busybox\nRUN echo waiting; exec sleep 4321\n")
    with subprocess.Popen(cli.argv("build", str(context)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "waiting" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 130
    assert "CANCELED" in rest
    assert not any(b"4321" in path.read_bytes() for path in _command_lines())


def _command_lines() -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            path.read_bytes()
        except OSError:
            continue
        yield path


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "sleep 9 & kill -9 $!; wait $!"], 137),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_run_ends_with_the_status_of_its_command(cli: Cli, words: list[str], status: int) -> None:
    cli("run", "--rm", "--network", "none", "busybox", *words, status=status)


def test_run_passes_streams_environment_and_identity(cli: Cli) -> None:
    assert cli("run", "--rm", "-i", "--network", "none", "busybox", "cat", stdin=b"through\n") == "through\n"
    text = cli(
        *("run", "--rm", "--network=none", "-e", "A=b", "-u", "me", "-w", "/tmp", "-h", "box", "busybox"),
        *("sh", "-c", "echo $A $PWD $HOSTNAME $(id -u); echo err >&2"),
    )
    assert text == "b /tmp box 1000\n"
    assert cli.err == "err\n"
    cli("run", "--rm", "-it", "busybox", "true", status=1)
    assert "not a TTY" in cli.err
    assert cli("ps", "-aq") == ""


def test_the_life_of_a_container(cli: Cli, tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    script = "trap 'exit 5' TERM; echo out; echo err >&2; while :; do sleep 0.05; done"
    created = cli(
        *("run", "-d", "--name", "life", "--network=none", "--cidfile", str(cidfile), "-l", "k=v"),
        *("busybox", "sh", "-c", script),
    )
    assert created == cidfile.read_text() + "\n"
    cli("run", "--cidfile", str(cidfile), "busybox", "true", status=125)
    cli.wait_until_running("life")
    assert (
        cli("ps", "--format", "{{.Names}} {{.Image}} {{.State}}", "-f", "label=k=v")
        == "life busybox running\n"
    )
    assert (
        cli("exec", "-e", "X=1", "life", "sh", "-c", "echo $X; echo changed > /new; exit 3", status=3)
        == "1\n"
    )
    assert cli("diff", "life") == "A /new\n"
    (tmp_path / "in").write_text("from here\n")
    cli("cp", str(tmp_path / "in"), "life:/tmp/copied")
    assert cli("exec", "life", "cat", "/tmp/copied") == "from here\n"
    cli("cp", "life:/new", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "changed\n"
    cli("pause", "life")
    assert "(Paused)" in cli("ps")
    cli("unpause", "life")
    assert cli("commit", "-c", "ENV NEW=1", "life", "committed").startswith("sha256:")
    assert (
        cli("run", "--rm", "--network=none", "committed", "sh", "-c", "cat /new; echo $NEW") == "changed\n1\n"
    )
    assert cli("stop", "life") == "life\n"
    assert cli("wait", "life") == "5\n"
    assert cli("logs", "life") == "out\n"
    assert cli.err == "err\n"
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z out\n", cli("logs", "-t", "life"))
    assert "Exited (5)" in cli("ps", "-a")
    cli("rename", "life", "after")
    assert cli("rm", "-v", "after") == "after\n"
    actions = cli(
        "events",
        "--since",
        "5m",
        "--until",
        "0s",
        "-f",
        f"container={created[:12]}",
        "--format",
        "{{.Action}}",
    )
    assert [a for a in actions.split("\n") if a in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, argv: list[str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(argv[0], argv)
        self.seen = ""

    def expect(self, pattern: str, timeout_s: float = 15) -> str:
        end = time.monotonic() + timeout_s
        while not re.search(pattern, self.seen):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"{pattern!r} did not come: {self.seen!r}")
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"{pattern!r} did not come before the end: {self.seen!r}")
            self.seen += data.decode("utf-8", "replace")
        found, self.seen = self.seen, ""
        return found

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_a_terminal_detaches_and_attaches_again(cli: Cli) -> None:
    first = Terminal(cli.argv("run", "-it", "--network=none", "--name", "term", "busybox"))
    first.expect(r"# ")
    first.type("echo answer-$((40+2))\n")
    first.expect(r"answer-42")
    first.type("\x10\x11")
    assert first.end() == 0
    assert cli("inspect", "-f", "{{.State.Running}}", "term") == "true\n"
    second = Terminal(cli.argv("attach", "term"))
    second.type("\n")
    second.expect(r"# ")
    second.type("exit 9\n")
    assert second.end() == 9
    cli("rm", "term")


def test_a_live_build_draws_and_gives_the_terminal_back(cli: Cli, context: Path) -> None:
    write(context, "FROM busybox\nRUN echo drawn; sleep 0.3\n")
    terminal = Terminal(cli.argv("build", str(context)))
    text = terminal.expect(r"FINISHED[\s\S]*\x1b\[\?25h")
    assert "[+] Building" in text
    assert "=> [2/2] RUN echo drawn; sleep 0.3" in text
    assert "# 0." in text
    assert terminal.end() == 0


def test_debug_prints_the_graph(cli: Cli, context: Path) -> None:
    write(context, "FROM busybox\nRUN true\n")
    lines = [json.loads(line) for line in cli("debug", "dump-llb", str(context)).splitlines()]
    assert [list(line["Op"]["Op"]) for line in lines] == [["source"], ["exec"], []]
    assert lines[-1]["Op"]["inputs"] == [{"digest": lines[-2]["Digest"]}]
    assert cli("debug", "dump-llb", "--format=dot", str(context)).startswith("digraph {")


def test_info_and_doctor(cli: Cli) -> None:
    assert json.loads(cli("info", "-f", "{{json .}}"))["Images"] >= 1
    assert "state directory" in cli("doctor")
