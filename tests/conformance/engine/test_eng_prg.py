"""How a build is shown: the event model, plain, tty, quiet, and their switches (PRG rows)."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.solver.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent
from builder.solver.protowire import fields
from builder.solver.statuswire import Frames, frame
from cli.render.clip import Clip
from cli.render.plain import PlainRenderer
from cli.render.progress import make_progress
from cli.render.rawjson import RawJsonRenderer
from cli.render.tty import Row, TtyRenderer, fit, palette
from cli.settings import Settings
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]

T0 = 1_700_000_000 * 10**9


def at(seconds: float) -> int:
    return T0 + round(seconds * 1e9)


def step(name: str, begun: float = 0.0, ended: float | None = None, **more: object) -> VertexEvent:
    completed = None if ended is None else at(ended)
    return VertexEvent(digest=name, name=name, started_ns=at(begun), completed_ns=completed, **more)  # type: ignore[arg-type]


def said(name: str, text: str, seconds: float = 0.0) -> LogEvent:
    return LogEvent(vertex=name, data=text.encode(), timestamp_ns=at(seconds))


def part(name: str, what: str, now: float, current: int, total: int, *, done: bool = False) -> StatusEvent:
    return StatusEvent(
        vertex=name, id=what, current=current, total=total,
        timestamp_ns=at(now), started_ns=T0, completed_ns=at(now) if done else None,
    )  # fmt: skip


def plain(*batches: tuple[float, list[Event]]) -> list[str]:
    stream = io.StringIO()
    renderer = PlainRenderer(stream)
    last = 0.0
    for last, events in batches:
        renderer.show(events, at(last))
    renderer.finish(at(last))
    return stream.getvalue().split("\n")[:-1]


def terminal(events: list[Event], now: float, *, height: int = 24, **more: object) -> TtyRenderer:
    renderer = TtyRenderer(io.StringIO(), colors={}, size=os.terminal_size((60, height)), **more)  # type: ignore[arg-type]
    renderer.show(events, at(now))
    return renderer


@pytest.fixture(scope="module")
def rawjson(
    command: Runner, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, list[dict[str, object]]]]:
    """A build that warns, says something and fails, as rawjson."""
    root = tmp_path_factory.mktemp("rawjson")
    text = "FROM busybox\nARG api_token=1\nCOPY Dockerfile /d\nRUN echo hi; echo ho >&2; exit 3\n"
    (root / "Dockerfile").write_text(text)
    done = command.run("build", "--progress=rawjson", root, status=1)
    return [json.loads(line) for line in done.err.splitlines() if line.startswith('{"')]


def found(batches: list[dict[str, list[dict[str, object]]]], kind: str) -> Iterator[dict[str, object]]:
    for batch in batches:
        yield from batch.get(kind, ())


@row("PRG-01")
def test_rawjson_has_the_fields_of_the_reference(rawjson: list[dict[str, list[dict[str, object]]]]) -> None:
    assert {kind for batch in rawjson for kind in batch} == {"vertexes", "statuses", "logs", "warnings"}
    known = {
        "vertexes": {"digest", "inputs", "name", "started", "completed", "cached", "error", "progressGroup"},
        "statuses": {"id", "vertex", "name", "total", "current", "timestamp", "started", "completed"},
        "logs": {"vertex", "stream", "data", "timestamp"},
        "warnings": {"vertex", "level", "short", "detail", "url", "sourceInfo", "range"},
    }
    for kind, names in known.items():
        for item in found(rawjson, kind):
            assert set(item) <= names
            assert all(value not in ("", [], None, {}) for value in item.values())
    assert {(item["stream"], base64.b64decode(str(item["data"]))) for item in found(rawjson, "logs")} == {
        (1, b"hi\n"),
        (2, b"ho\n"),
    }
    (warning,) = found(rawjson, "warnings")
    assert b"SecretsUsedInArgOrEnv" in base64.b64decode(str(warning["short"]))
    assert warning["range"] == [{"start": {"line": 2}, "end": {"line": 2}}]
    failed = [item for item in found(rawjson, "vertexes") if item.get("error")]
    assert "exit code: 3" in str(failed[-1]["error"])
    times = [str(item["started"]) for item in found(rawjson, "vertexes")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", time) for time in times)
    assert all(str(item["inputs"][0]).startswith("sha256:") for item in failed)  # type: ignore[index]


@row("PRG-01")
def test_rawjson_of_groups_and_cancelled_steps() -> None:
    stream = io.StringIO()
    RawJsonRenderer(stream).show(
        [step("a", progress_group="g", progress_weak=True), step("b", 0, 1, cancelled=True)], T0
    )
    first, second = json.loads(stream.getvalue())["vertexes"]
    assert first["progressGroup"] == {"id": "g", "weak": True}
    assert second["error"] == "context canceled"


@row("PRG-02")
def test_modes(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo modes\n")
    done = command.run("build", "--progress=auto", "--no-cache", tmp_path)
    assert done.out == ""
    assert "#1 [internal] load build definition" in done.err
    quiet = command.run("build", "--progress=quiet", "--no-cache", tmp_path)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", quiet.out)
    assert quiet.err == ""
    wrong = command.run("build", "--progress=fancy", tmp_path, status=2)
    assert "invalid progress mode fancy" in wrong.err
    assert "needs a terminal" in command.run("build", "--progress=tty", tmp_path, status=2).err


@row("PRG-03")
def test_plain_lines() -> None:
    lines = plain(
        (0, [step("a"), said("a", "x\n", 0.25), said("a", "y\n", 12.3), said("a", "z\n", 321.0)]),
        (0, [part("a", "sha256:ab", 0.3, 1_050_000, 2_100_000), WarningEvent(vertex="a", short="odd")]),
        (0, [part("a", "exporting", 0.005, 0, 0, done=True), step("a", 0, 0.34)]),
        (
            1,
            [
                step("b", 1, 1, cached=True),
                step("c", 1, 2, error="exit code: 1"),
                step("d", 1, 2, cancelled=True),
            ],
        ),
    )
    assert lines[:8] == [
        "#1 a", "#1 0.250 x", "#1 12.30 y", "#1 321.0 z", "#1 sha256:ab 1.05MB / 2.10MB 0.3s", "#1 WARN: odd",
        "#1 exporting done", "#1 DONE 0.3s",
    ]  # fmt: skip
    assert [line for line in lines if line[:2] in ("#2", "#3", "#4")] == [
        "#2 b", "#2 CACHED", "#3 c", "#3 ERROR: exit code: 1", "#4 d", "#4 CANCELED",
    ]  # fmt: skip


@row("PRG-04")
def test_plain_switching() -> None:
    lines = plain(
        (0.1, [step("a"), said("a", "one\n", 0.1), step("b")]),
        (0.4, [step("c", 0, 0.3), step("b", 0, 0.2)]),
        (0.5, [said("a", "two\n", 0.5)]),
    )
    assert lines == [
        "#1 a", "#1 0.100 one", "#1 ...", "", "#2 b", "#2 DONE 0.2s", "", "#3 c", "#3 DONE 0.3s", "",
        "#1 a", "#1 0.500 two",
    ]  # fmt: skip


@row("PRG-04")
def test_plain_a_step_keeps_the_display_for_its_share() -> None:
    both = [(n / 2, [said("a", "a\n", n / 2), said("b", "b\n", n / 2)]) for n in range(1, 25)]
    lines = plain((0, [step("a"), step("b")]), *both)
    assert lines.index("#1 9.500 a") < lines.index("#1 ...") < lines.index("#2 b")
    short = plain((0, [step("a"), step("b")]), *both[:9])
    assert short.index("#1 4.500 a") < short.index("#1 ...")  # only the end of the build gives b its turn
    repeated = plain(*((n, [step("s"), part("s", "x", n, n * 20_000, 1_000_000)]) for n in range(1, 12)))
    assert [line.split()[2] for line in repeated[1:]] == ["20.00kB", "80.00kB", "140.00kB", "200.00kB"]
    slow = plain(*((n, [step("s"), part("s", "x", n, n, 1_000_000)]) for n in range(1, 12)))
    assert [line.split()[2] for line in slow[1:]] == ["1B", "6B", "11B"]


@row("PRG-05")
def test_failure_tails(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN for i in $(seq 15); do echo line $i; done; exit 4\n"
    )
    lines = command.build(tmp_path, status=1).err.splitlines()
    begin = lines.index("------")
    end = lines.index("------", begin + 1)
    assert lines[begin + 1].startswith(" > [2/2] RUN for")
    assert lines[begin + 1].endswith(":")
    assert [line.split(" ", 1)[1] for line in lines[begin + 2 : end]] == [f"line {n}" for n in range(6, 16)]
    renderer = terminal(
        [step("a"), *(said("a", f"{n}\n") for n in range(30)), step("a", 0, 1, error="no")], 1
    )
    renderer.finish(at(1))
    assert renderer._stream.getvalue().count("0.000 ") >= 30  # type: ignore[attr-defined]


@row("PRG-06")
def test_tty_display() -> None:
    events: list[Event] = [
        step("one", 0, 0.1, cached=True),
        step("two", 0.1),
        part("two", "extracting", 0.4, 500, 0),
        *(said("two", f"line {n}\n", 1.1) for n in range(9)),
        step("three", 0.2, 0.5, error="bad"),
        step("four", 0.2, 0.4, cancelled=True),
    ]
    renderer = terminal(events, 2.1)
    lines = renderer._drawn
    assert lines[0] == "[+] Building 2.1s (3/4)"
    assert all(len(line) == 59 and line.endswith("s") for line in (lines[1], lines[2], lines[-1]))
    assert [" ".join(line.split()) for line in lines[1:4]] == [
        "=> CACHED one 0.1s", "=> two 2.0s", "=> => extracting 500B 2.1s",
    ]  # fmt: skip
    assert lines[4:10] == [f" => => # 1.000 line {n}" for n in range(3, 9)]
    assert [line.split()[1] for line in lines[10:]] == ["ERROR", "CANCELED"]
    colored = TtyRenderer(io.StringIO(), colors=palette(""), size=os.terminal_size((60, 24)))
    colored.show(events, at(2))
    assert colored._drawn[1].startswith("\x1b[34m")
    assert colored._drawn[4].startswith("\x1b[2m")
    renderer.finish(at(3))
    assert "FINISHED" in renderer._stream.getvalue()  # type: ignore[attr-defined]
    groups = [[Row(f"done {n}", style="run")] for n in range(10)] + [[Row("running"), Row("log")]]
    assert [item.text for item in fit(groups, 3)] == ["done 9", "running", "log"]
    assert len(terminal([step(f"{n}") for n in range(50)], 1, height=10)._drawn) <= 9


@row("PRG-07")
def test_environment() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    def display(**env: str) -> TtyRenderer:
        made = make_progress("auto", Settings({"TERM": "xterm", **env}), Screen())
        assert isinstance(made._renderer, TtyRenderer)
        return made._renderer

    assert display()._colors["run"] == "34"
    assert display(NO_COLOR="1")._colors == {}
    colors = display(BUILDKIT_COLORS="run=green:cancel=1,2,3:warning=light-red:error=red")._colors
    assert [colors[key] for key in ("run", "cancel", "warning", "error")] == ["32", "38;2;1;2;3", "91", "31"]
    assert display(BUILDKIT_TTY_LOG_LINES="2")._log_lines == 2
    assert display(PROGRESS_NO_TRUNC="1")._truncate is False
    assert make_progress("tty", Settings({"TTY_DISPLAY_RATE": "250"}), Screen())._period_s == 0.25
    assert Settings({"BUILDKIT_PROGRESS": "plain"}).progress == "plain"
    none = terminal([step("a"), said("a", "hidden\n")], 1, log_lines=0)
    assert not any("hidden" in line for line in none._drawn)
    with pytest.raises(UsageError, match="invalid progress mode odd"):
        make_progress(Settings({"BUILDKIT_PROGRESS": "odd"}).progress, Settings({}), Screen())


@row("PRG-07")
def test_the_default_mode_is_taken_from_the_environment(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\n")
    done = command.run("build", tmp_path, env={"BUILDKIT_PROGRESS": "rawjson"})
    assert "vertexes" in json.loads(done.err.splitlines()[0])


@row("PRG-08")
def test_groups(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY --link Dockerfile /groups\n")
    for _ in range(2):
        names = re.findall(r"^#(\d+) .*COPY --link", command.build(tmp_path).err, re.MULTILINE)
        assert len(set(names)) == 1
    weak, strong = {"progress_group": "g", "progress_weak": True}, {"progress_group": "g"}
    assert plain((0, [step("copy", **weak), said("copy", "x\n")]), (1, [step("copy", 0, 1, **weak)])) == []
    lines = plain((0, [step("copy", 0, 1, **weak)]), (4, [step("LINK", 4, 4.5, **strong)]))
    assert lines == ["#1 copy", "#1 DONE 1.5s"]
    assert "#1 ERROR: no" in plain((0, [step("copy", 0, 1, error="no", **weak)]))
    again = plain((1, [step("a", 0, 1)]), (3, [step("a", 2)]), (4, [step("a", 2, 4)]))
    assert again == ["#1 a", "#1 DONE 1.0s", "", "#1 a", "#1 DONE 3.0s"]
    overlapping = plain((3, [step("a", 0, 2, **strong), step("b", 1, 3, **strong)]))
    assert overlapping[-1] == "#1 DONE 3.0s"


@row("PRG-09")
def test_cached_and_skipped_steps(lab: Lab) -> None:
    text = "FROM busybox AS used\nRUN echo prg9\nFROM busybox AS skipped\nRUN echo never\nFROM used\nRUN echo top"
    root = lab.context()
    lab.build(root, text)
    lab.build(root, text + " changed")
    names = {event.name: event for event in lab.watcher.events if isinstance(event, VertexEvent)}
    assert not any("never" in name for name in names)
    (below,) = (event for name, event in names.items() if "echo prg9" in name)
    assert below.cached
    assert below.completed_ns


@row("PRG-10")
def test_lines_and_throttling() -> None:
    lines = plain((0, [step("a"), said("a", "10%\r20%\r30%", 0.1)]), (1, [said("a", " end\nnext", 0.2)]))
    assert lines == ["#1 a", "#1 0.200 10%\r20%\r30% end"]

    class Counting(PlainRenderer):
        calls = 0

        def show(self, *args: object) -> None:
            self.calls += 1
            super().show(*args)  # type: ignore[arg-type]

    made = make_progress("plain", Settings({}), io.StringIO())
    assert 0.1 <= made._period_s <= 0.15
    made._renderer = counting = Counting(io.StringIO())
    with made:
        for n in range(500):
            made(said("a", f"{n}\n"))
    assert counting.calls <= 3


@row("EXE-27")
def test_clipped_output_and_its_end_when_the_step_fails() -> None:
    def shown(error: str, **limits: int) -> bytes:
        out: list[Event] = []
        clip = Clip(out.append, **limits)
        for n in range(3000):
            clip(said("a", f"{n:01023}\n"))
        clip(step("a", 0, 1, error=error))
        return b"".join(event.data for event in out if isinstance(event, LogEvent))

    assert b"[output clipped, log limit 200KiB/s reached]\n" in shown("")
    by_size = shown("", max_speed=-1)
    assert by_size.endswith(b"[output clipped, log limit 2MiB reached]\n")
    assert by_size.count(b"\n") == 2048 + 1
    failed = shown("no", max_speed=-1)
    assert failed.count(b"\n") == 2048 + 1 + 256
    assert failed.endswith(b"2999\n")
    assert shown("", max_speed=-1, max_size=-1).count(b"\n") == 3000
    assert Settings({"BUILDKIT_STEP_LOG_MAX_SIZE": "5"}).step_log_limits == (5, 200 << 10)
    assert Settings({"BUILDKIT_STEP_LOG_MAX_SPEED": "-1"}).step_log_limits == (2 << 20, -1)


@row("PRG-11")
def test_wire_form() -> None:
    vertex = step(
        "v", 0, 1, inputs=("i1", "i2"), cached=True, error="bad", progress_group="g", progress_weak=True
    )
    status = StatusEvent(
        vertex="v", id="I", name="n", current=4, total=5, timestamp_ns=6, started_ns=7, completed_ns=8
    )
    log = LogEvent(vertex="v", data=b"\xffx", stream=2, timestamp_ns=at(1))
    warning = WarningEvent(
        vertex="v", short="s", detail=("d", "e"), url="u", filename="Dockerfile", start_line=3, end_line=4
    )
    events: list[Event] = [vertex, status, log, warning]
    expected = {
        1: {1: b"v", 2: b"i2", 3: b"v", 4: 1, 7: b"bad", 8: b"\n\x01g\x18\x01"},
        2: {1: b"I", 2: b"v", 3: b"n", 4: 4, 5: 5, 6: b"\x10\x06", 7: b"\x10\x07", 8: b"\x10\x08"},
        3: {1: b"v", 2: b"\x08\x81\xe2\xcf\xaa\x06", 3: 2, 4: b"\xffx"},
        4: {1: b"v", 2: 1, 3: b"s", 4: b"e", 5: b"u", 6: b"\n\nDockerfile"},
    }
    for number, event in enumerate(events, 1):
        whole = frame(event)
        assert struct.unpack("<I", whole[:4]) == (len(whole) - 4,)
        ((field, message),) = fields(whole[4:])
        assert field == number
        assert isinstance(message, bytes)
        assert dict(fields(message)).items() >= expected[number].items()
        assert list(Frames().feed(whole)) == [event]
    frames = Frames()
    stream = b"".join(map(frame, events))
    assert [event for byte in stream for event in frames.feed(bytes((byte,)))] == events
    assert list(Frames().feed(stream[:-3])) == events[:-1]


@row("PRG-12")
def test_first_lines_of_a_build(command: Runner, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\nRUN echo prg12\n")
    command.build(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM docker.io/library/busybox:latest\nRUN echo prg12\nLABEL a=b\n")
    lines = command.build(tmp_path).err.splitlines()
    assert lines[0] == "#1 [internal] load build definition from Dockerfile"
    assert lines[1] == f"#1 transferring dockerfile: {(tmp_path / 'Dockerfile').stat().st_size}B done"
    assert re.fullmatch(r"#1 DONE 0\.\ds", lines[2])
    assert lines[3:5] == ["", "#2 [internal] load metadata for docker.io/library/busybox:latest"]
    base = r"docker\.io/library/busybox:latest@sha256:[0-9a-f]{64}"
    head = next(n for n, line in enumerate(lines) if re.fullmatch(rf"#\d+ \[1/2\] FROM {base}", line))
    number = lines[head].split()[0]
    assert re.fullmatch(rf"{number} resolve {base}( \d\.\ds)? done", lines[head + 1])
    assert lines[head + 2] == f"{number} CACHED"
