"""How builds are shown: plain, live, as JSON (rows PRG-01 … PRG-12)."""

from __future__ import annotations

import io
import json
import os
import time
from textwrap import dedent

import pytest

from builder.errors import UsageError
from builder.solver.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent
from cli.render.board import Board
from cli.render.plain import PlainRenderer
from cli.render.progress import Progress, make_progress
from cli.render.quiet import QuietRenderer
from cli.render.rawjson import RawJsonRenderer
from cli.render.tty import Row, TtyRenderer, fit, palette
from cli.render.width import cut, display_width
from cli.settings import Settings

T0 = 1_700_000_000 * 10**9


def at(seconds: float) -> int:
    return T0 + round(seconds * 1e9)


def start(name: str, seconds: float = 0.0, group: str = "") -> VertexEvent:
    return VertexEvent(digest=name, name=name, started_ns=at(seconds), progress_group=group)


def end(name: str, begun: float, ended: float, **fields: object) -> VertexEvent:
    return VertexEvent(digest=name, name=name, started_ns=at(begun), completed_ns=at(ended), **fields)  # type: ignore[arg-type]


def log(name: str, text: str, seconds: float = 0.0) -> LogEvent:
    return LogEvent(vertex=name, data=text.encode(), timestamp_ns=at(seconds))


def status(name: str, what: str, begun: float, now: float, done: bool = False, **sizes: int) -> StatusEvent:
    return StatusEvent(
        vertex=name,
        id=what,
        timestamp_ns=at(now),
        started_ns=at(begun),
        completed_ns=at(now) if done else None,
        **sizes,
    )


def plain(*batches: tuple[float, list[Event]]) -> str:
    stream = io.StringIO()
    renderer = PlainRenderer(stream)
    last = 0.0
    for last, events in batches:
        renderer.show(events, at(last))
    renderer.finish(at(last))
    return stream.getvalue()


def test_plain_first_lines_have_the_reference_shape() -> None:
    load, base = (
        "[internal] load build definition from Dockerfile",
        "[1/2] FROM docker.io/library/busybox:latest",
    )
    text = plain(
        (
            0.1,
            [
                start(load),
                status(load, "transferring dockerfile:", 0, 0.005, done=True, current=99),
                end(load, 0, 0.02),
                start(base, 0.03),
                status(base, "resolve docker.io/library/busybox:latest", 0.03, 0.05, done=True),
                end(base, 0.03, 0.06, cached=True),
            ],
        )
    )
    assert text == dedent(
        """\
        #1 [internal] load build definition from Dockerfile
        #1 transferring dockerfile: 99B done
        #1 DONE 0.0s

        #2 [1/2] FROM docker.io/library/busybox:latest
        #2 resolve docker.io/library/busybox:latest 0.0s done
        #2 CACHED
        """
    )


def test_plain_log_times_widen_with_time() -> None:
    text = plain((0, [start("a"), log("a", "x\ny\n", 0.25), log("a", "z\n", 12.3), log("a", "w\n", 321.0)]))
    assert text.splitlines() == ["#1 a", "#1 0.250 x", "#1 0.250 y", "#1 12.30 z", "#1 321.0 w"]


def test_plain_partial_lines_wait_for_their_rest_or_the_end() -> None:
    text = plain(
        (0, [start("a"), log("a", "one", 0.1)]),
        (1, [log("a", " line\nrest", 0.2)]),
        (2, [end("a", 0, 1)]),
    )
    assert text.splitlines() == ["#1 a", "#1 0.200 one line", "#1 1.000 rest", "#1 DONE 1.0s"]


def test_a_long_line_costs_no_more_than_its_length() -> None:
    began = time.process_time()
    entry = Board().entry(start("a"))
    piece = log("a", "x" * 2048)
    assert not any(entry.add_log(piece) for _ in range(10_000))
    assert len(entry.add_log(log("a", "\n"))[0]) > 20_000_000
    assert time.process_time() - began < 3


def test_plain_bytes_that_are_no_text_pass_through() -> None:
    event = LogEvent(vertex="a", data=b"\xff\n", timestamp_ns=at(0))
    assert "\udcff" in plain((0, [start("a"), event]))


def test_plain_ended_steps_interrupt_the_shown_one() -> None:
    text = plain(
        (0.1, [start("a"), log("a", "one\n", 0.1), start("b")]),
        (0.2, [log("b", "quick\n", 0.15), end("b", 0, 0.2)]),
        (0.3, [log("a", "two\n", 0.3)]),
        (0.4, [end("a", 0, 0.4)]),
    )
    assert text == dedent(
        """\
        #1 a
        #1 0.100 one
        #1 ...

        #2 b
        #2 0.150 quick
        #2 DONE 0.2s

        #1 a
        #1 0.300 two
        #1 DONE 0.4s
        """
    )


def test_plain_a_waiting_step_gets_the_display_after_its_share() -> None:
    batches: list[tuple[float, list[Event]]] = [(0, [start("a"), start("b")])]
    batches += [
        (second, [log("a", "a\n", second), log("b", "b\n", second)])
        for second in (n / 2 for n in range(1, 25))
    ]
    lines = plain(*batches).splitlines()
    assert lines[:6] == ["#1 a", "#1 0.500 a", "#1 1.000 a", "#1 1.500 a", "#1 2.000 a", "#1 2.500 a"]
    assert lines[lines.index("#2 b") - 2] == "#1 ..."
    assert lines.index("#1 10.00 a") < lines.index("#2 b") < lines.index("#2 0.500 b")


def test_plain_a_silent_step_yields_sooner() -> None:
    lines = plain(
        (0, [start("a"), log("a", "a\n"), start("b")]),
        (4, [log("b", "b\n", 4)]),
        (5.5, []),
        (6, []),
    ).splitlines()
    assert lines == ["#1 a", "#1 0.000 a", "#1 ...", "", "#2 b", "#2 4.000 b"]


def test_plain_outcomes() -> None:
    text = plain(
        (
            0,
            [
                start("ok"),
                start("bad"),
                start("stopped"),
                log("bad", "".join(f"{n}\n" for n in range(12)), 0.5),
            ],
        ),
        (1, [end("ok", 0, 1), end("bad", 0, 1, error="exit code: 13"), end("stopped", 0, 1, cancelled=True)]),
    )
    assert "#1 DONE 1.0s" in text
    assert "#2 ERROR: exit code: 13" in text
    assert "#3 CANCELED" in text
    tail = text.split("------\n")
    assert tail[1].splitlines() == [" > bad:", *(f"0.500 {n}" for n in range(2, 12))]
    assert text.count("------") == 2


def test_plain_statuses_repeat_only_when_they_moved() -> None:
    batches: list[tuple[float, list[Event]]] = [(0, [start("a")])]
    for n in range(1, 12):
        batches.append((n, [status("a", "sha256:ab", 0, n / 100, current=n * 10_000, total=1_000_000)]))
    batches.append((13, [status("a", "sha256:ab", 0, 0.5, done=True, current=1_000_000, total=1_000_000)]))
    assert plain(*batches).splitlines() == [
        "#1 a",
        "#1 sha256:ab 10.00kB / 1.00MB",
        "#1 sha256:ab 60.00kB / 1.00MB 0.1s",
        "#1 sha256:ab 110.00kB / 1.00MB 0.1s",
        "#1 sha256:ab 1.00MB / 1.00MB 0.5s done",
    ]


def test_plain_a_status_that_nobody_saw_is_replaced() -> None:
    text = plain(
        (
            1,
            [
                start("a"),
                status("a", "load", 0, 0.1),
                log("a", "x\n"),
                status("a", "load", 0, 0.2, done=True),
            ],
        )
    )
    assert text.splitlines() == ["#1 a", "#1 load 0.2s done", "#1 0.000 x"]


def test_plain_warnings_and_repeated_runs() -> None:
    text = plain(
        (0, [start("a"), WarningEvent(vertex="a", short="odd thing")]),
        (1, [end("a", 0, 1)]),
        (3, [start("a", 2)]),
        (4, [end("a", 2, 4)]),
    )
    assert text.splitlines() == ["#1 a", "#1 WARN: odd thing", "#1 DONE 1.0s", "", "#1 a", "#1 DONE 3.0s"]


def test_steps_of_a_group_are_one_entry() -> None:
    text = plain(
        (0, [start("COPY x /", 0, group="g"), start("LINK COPY x /", 0, group="g")]),
        (1, [end("COPY x /", 0, 0.5, progress_group="g")]),
        (2, [end("LINK COPY x /", 0, 1, progress_group="g")]),
    )
    assert text.splitlines() == ["#1 COPY x /", "#1 DONE 1.0s"]


def test_hostile_names_cannot_drive_the_terminal() -> None:
    text = plain((0, [start("RUN \x1b[2J"), end("RUN \x1b[2J", 0, 1, error="\x1b]0;x\x07")]))
    assert "\x1b" not in text


def tty(events: list[Event], now: float, *, width: int = 60, height: int = 24) -> TtyRenderer:
    renderer = TtyRenderer(io.StringIO(), colors={}, size=os.terminal_size((width, height)))
    renderer.show(events, at(now))
    return renderer


def drawn(renderer: TtyRenderer) -> list[str]:
    return renderer._drawn


def test_tty_rows() -> None:
    renderer = tty(
        [
            start("[1/3] FROM base"),
            end("[1/3] FROM base", 0, 0.1, cached=True),
            start("[2/3] RUN make", 0.1),
            status("[2/3] RUN make", "extracting", 0.1, 0.4, current=500),
            log("[2/3] RUN make", "".join(f"line {n}\r\n" for n in range(9)), 1.1),
            start("[3/3] COPY . .", 0.2),
            end("[3/3] COPY . .", 0.2, 0.5, error="no such file"),
        ],
        2.1,
    )
    assert drawn(renderer) == [
        "[+] Building 2.1s (2/3)",
        " => CACHED [1/3] FROM base" + " " * 29 + "0.1s",
        " => [2/3] RUN make" + " " * 37 + "2.0s",
        " => => extracting 500B" + " " * 33 + "2.0s",
        *(f" => => # 1.000 line {n}" for n in range(3, 9)),
        " => ERROR [3/3] COPY . ." + " " * 31 + "0.3s",
    ]


def test_tty_writes_only_what_changed_and_gives_the_cursor_back() -> None:
    stream = io.StringIO()
    renderer = TtyRenderer(stream, colors={}, size=os.terminal_size((60, 24)))
    renderer.show([start("a"), end("a", 0, 1), start("b", 1)], at(2))
    stream.truncate(0)
    renderer.show([], at(3))
    second = stream.getvalue()
    assert second.count("\x1b[2K") == 2  # the header and b's time
    renderer.finish(at(4))
    text = stream.getvalue()
    assert text.endswith("\x1b[?25h")
    assert "FINISHED" in text


def test_tty_fits_the_height_and_prefers_what_runs() -> None:
    groups = [[Row(f"done {n}", style="run"), Row("detail", style="run")] for n in range(10)]
    groups += [[Row("running"), Row("log 1"), Row("log 2")]]
    assert [row.text for row in fit(groups, 5)] == ["done 8", "done 9", "running", "log 1", "log 2"]
    assert [row.text for row in fit(groups, 2)] == ["running", "log 1"]
    renderer = tty([start(f"step {n}") for n in range(50)], 1, height=10)
    assert len(drawn(renderer)) <= 9


def test_tty_strips_escape_sequences_of_logs() -> None:
    renderer = tty([start("a"), log("a", "\x1b[31mred\x1b[0m\x1b]0;title\x07 10%\r20%\r\n", 0)], 1)
    assert drawn(renderer)[-1] == " => => # 20%"
    renderer = tty([start("a"), log("a", "\x1b[31mred\x1b[0m\x08\n", 0)], 1)
    assert drawn(renderer)[-1] == " => => # 0.000 red\\x08"


def test_tty_colors() -> None:
    colors = palette("run=green:error=255,0,0:warning=nonsense")
    assert colors["run"] == "32"
    assert colors["error"] == "38;2;255;0;0"
    assert colors["warning"] == "33"


def test_widths_count_columns() -> None:
    assert display_width("日本") == 4
    assert cut("abcdefgh", 6) == "abc..."
    assert cut("日本語日本語", 7) == "日本..."
    assert cut("abc", 3) == "abc"


def test_rawjson_has_the_reference_fields() -> None:
    stream = io.StringIO()
    renderer = RawJsonRenderer(stream)
    renderer.show(
        [
            VertexEvent(
                digest="sha256:a", name="x", inputs=("sha256:b",), started_ns=T0, completed_ns=T0 + 1
            ),
            LogEvent(vertex="sha256:a", data=b"hi\n", timestamp_ns=T0),
            StatusEvent(vertex="sha256:a", id="part", current=1, total=2, timestamp_ns=T0),
            WarningEvent(vertex="sha256:a", short="w", filename="Dockerfile", start_line=3, end_line=3),
        ],
        T0,
    )
    renderer.show([], T0)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {
            "vertexes": [
                {
                    "digest": "sha256:a",
                    "inputs": ["sha256:b"],
                    "name": "x",
                    "started": "2023-11-14T22:13:20Z",
                    "completed": "2023-11-14T22:13:20.000000001Z",
                }
            ],
            "logs": [
                {"vertex": "sha256:a", "stream": 1, "data": "aGkK", "timestamp": "2023-11-14T22:13:20Z"}
            ],
            "statuses": [
                {
                    "id": "part",
                    "vertex": "sha256:a",
                    "current": 1,
                    "total": 2,
                    "timestamp": "2023-11-14T22:13:20Z",
                }
            ],
            "warnings": [
                {
                    "vertex": "sha256:a",
                    "level": 1,
                    "short": "dw==",
                    "sourceInfo": {"filename": "Dockerfile"},
                    "range": [{"start": {"line": 3}, "end": {"line": 3}}],
                }
            ],
        }
    ]


def test_quiet_shows_only_the_output_of_failed_steps() -> None:
    stream = io.StringIO()
    renderer = QuietRenderer(stream)
    renderer.show([start("a"), log("a", "fine\n"), start("b"), log("b", "why\n")], T0)
    renderer.show([end("a", 0, 1), end("b", 0, 1, error="exit code: 1")], T0)
    assert stream.getvalue() == ""
    renderer.finish(T0)
    assert stream.getvalue() == "------\n > b:\n0.000 why\n------\n"


def test_progress_shows_everything_by_its_end() -> None:
    stream = io.StringIO()
    with Progress(PlainRenderer(stream), period_s=60) as progress:
        progress(start("a"))
        progress(end("a", 0, 1))
    assert stream.getvalue() == "#1 a\n#1 DONE 1.0s\n"


def test_progress_survives_a_reader_that_went_away() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        with Progress(PlainRenderer(stream), period_s=0.01) as progress:
            progress(start("a"))
        try:
            stream.close()
        except BrokenPipeError:
            pass


def test_progress_modes() -> None:
    settings = Settings({"TERM": "xterm"})
    assert isinstance(make_progress("auto", settings, io.StringIO())._renderer, PlainRenderer)
    assert isinstance(make_progress("rawjson", settings, io.StringIO())._renderer, RawJsonRenderer)
    assert isinstance(make_progress("quiet", settings, io.StringIO())._renderer, QuietRenderer)
    with pytest.raises(UsageError, match="invalid progress mode fancy"):
        make_progress("fancy", settings, io.StringIO())


def test_a_note_does_not_leave_a_row_behind() -> None:
    from builder.exporter.steps import Steps
    from builder.images.progress import transfers
    from builder.registry.progress import Transfer

    told: list[Event] = [start("pull")]
    moved = transfers(Steps(told.append, "pull"))
    moved(Transfer(id="sha256:ab", current=1, total=2, started_ns=T0))
    moved(Transfer(id="sha256:ab", current=2, total=2, started_ns=T0, done=True, note="exists"))
    rows = [row for row in drawn(tty(told, 1)) if "sha256:ab" in row]
    assert len(rows) == 1
    assert "sha256:ab exists 2B / 2B" in rows[0]
