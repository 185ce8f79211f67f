"""Errors as text, JSON and exit statuses (section 31 and rows DIA-01 … DIA-04)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from textwrap import dedent

import pytest

from builder.errors import Cancelled, NotFoundInRegistry, SolveError, StepFailed, UsageError
from builder.frontend.errors import DockerfileError
from builder.frontend.source import SourceFile
from cli.main import main
from cli.render.errors import error_json, error_text, exit_status, report
from cli.render.snippet import Place, places_of, snippet
from runtime.errors import CommandNotFound, SetupFailed

LINES = tuple(f"line {number}" for number in range(1, 8))


def shown(first: int, last: int, lines: tuple[str, ...] = LINES) -> list[str]:
    return list(snippet(Place("Dockerfile", first, last, lines)))


def test_one_line_is_shown_with_two_around() -> None:
    assert shown(4, 4) == [
        "Dockerfile:4",
        "--------------------",
        "   2 |     line 2",
        "   3 |     line 3",
        "   4 | >>> line 4",
        "   5 |     line 5",
        "   6 |     line 6",
        "--------------------",
    ]


def test_several_lines_are_shown_with_one_around_and_clipped() -> None:
    assert shown(1, 2)[2:-1] == ["   1 | >>> line 1", "   2 | >>> line 2", "   3 |     line 3"]
    assert shown(6, 7)[2:-1] == ["   5 |     line 5", "   6 | >>> line 6", "   7 | >>> line 7"]
    assert shown(7, 99)[-2] == "   7 | >>> line 7"
    assert shown(3, 3, ()) == []


def dockerfile_error() -> DockerfileError:
    source = SourceFile("Dockerfile", b"FROM a\nFRM b\nRUN c")
    return DockerfileError(
        "unknown instruction: FRM (did you mean FROM?)",
        spans=(source.span(2, 2),),
        source=source,
        code="unknown-instruction",
    )


def test_a_dockerfile_error_shows_its_lines() -> None:
    assert error_text(dockerfile_error()) == dedent(
        """\
        Dockerfile:2
        --------------------
           1 |     FROM a
           2 | >>> FRM b
           3 |     RUN c
        --------------------
        ERROR: failed to solve: unknown instruction: FRM (did you mean FROM?)
        """
    )


def test_a_chain_is_told_outermost_first_and_nothing_twice() -> None:
    cause = NotFoundInRegistry("manifest unknown", status=404, hint="check the tag")
    error = SolveError(
        "failed to fetch base image", vertex_name="[1/1] FROM x", context=("reading x:latest",)
    )
    error.__cause__ = cause
    assert error_text(error) == (
        "ERROR: failed to solve: failed to fetch base image: manifest unknown\n"
        "  reading x:latest\n"
        "hint: check the tag\n"
    )
    cause.__cause__ = error  # a loop must not hang
    assert error_text(error).startswith("ERROR: failed to solve: failed to fetch")


def test_a_step_failure_in_json() -> None:
    error = StepFailed(
        "process did not complete successfully: exit code: 13", exit_code=13, log_tail=("why",)
    )
    error.vertex_name = "[2/2] RUN exit 13"
    out = error_json(error, exit_status(error))["error"]
    assert out["code"] == "step-failed"
    assert out["exit_status"] == 1
    assert out["exit_code"] == 13
    assert out["step"] == "[2/2] RUN exit 13"
    assert out["log_tail"] == ("why",)


def test_json_names_the_place() -> None:
    error = SolveError("failed")
    error.__cause__ = dockerfile_error()
    out = error_json(error, 1)["error"]
    assert out["code"] == "unknown-instruction"
    assert out["location"] == {"file": "Dockerfile", "start_line": 2, "end_line": 2}


def test_several_places_are_all_shown() -> None:
    source = SourceFile("Dockerfile", b"FROM b AS a\nFROM a AS b")
    error = DockerfileError("circular", spans=(source.span(1, 1), source.span(2, 2)), source=source)
    assert [place.first for place in places_of(error)] == [1, 2]
    assert error_text(error).count("Dockerfile:") == 2


def test_usage_errors_show_the_usage() -> None:
    error = UsageError(
        "unknown flag: --x", context=("Usage:  pybuild build",), hint="Run 'pybuild build --help'"
    )
    assert error_text(error).splitlines() == [
        "pybuild: unknown flag: --x",
        "",
        "Usage:  pybuild build",
        "",
        "Run 'pybuild build --help'",
    ]


def test_an_unexpected_error_is_one_line_and_a_traceback_with_debug() -> None:
    try:
        raise ZeroDivisionError("oops\x1b[2J")
    except ZeroDivisionError as error:
        caught = error
    stream = io.StringIO()
    assert report(caught, debug=False, form="text", stream=stream) == 70
    assert stream.getvalue().startswith("pybuild: bug: ZeroDivisionError: oops\\x1b[2J\nhint:")
    assert "Traceback" not in stream.getvalue()
    assert report(caught, debug=True, form="text", stream=stream) == 70
    assert "Traceback" in stream.getvalue()
    assert error_json(caught, 70)["error"]["code"] == "bug"


def test_operating_system_errors_are_no_bugs() -> None:
    assert error_text(OSError(5, "Input/output error", "/x")) == "pybuild: /x: Input/output error\n"
    assert error_text(OSError(28, "No space left on device", "/x")) == (
        "pybuild: /x: No space left on device\n"
        "hint: free some space there (pybuild prune frees what builds keep)\n"
    )
    assert error_json(OSError(28, "full", "/x"), 1)["error"]["code"] == "os-error"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Cancelled("build cancelled"), 130),
        (UsageError("x"), 2),
        (CommandNotFound("x"), 127),
        (SetupFailed("mount", "/proc", 1), 125),
        (SolveError("x"), 1),
        (RuntimeError("x"), 70),
        (OSError(28, "full"), 1),
    ],
)
def test_exit_statuses(error: BaseException, status: int) -> None:
    assert exit_status(error) == status


def test_main_turns_usage_errors_into_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["biuld"]) == 2
    assert "'biuld' is not a pybuild command (did you mean build?)" in capsys.readouterr().err
    assert main(["image", "lss"]) == 2
    assert "did you mean ls?" in capsys.readouterr().err
    assert main(["build", "--nope", "."]) == 2
    assert main(["--error-format=xml", "build"]) == 2


def test_error_format_json_holds_from_where_it_was_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--error-format=json", "nope"]) == 2
    out = json.loads(capsys.readouterr().err)
    assert out["error"]["code"] == "usage"
    assert out["error"]["exit_status"] == 2


def test_help_and_version_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        [],
        ["--help"],
        ["help"],
        ["build", "--help"],
        ["help", "build"],
        ["image"],
        ["image", "--help"],
    ):
        assert main(argv) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("Usage:  pybuild")
        assert captured.err == ""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pybuild version ")


def test_a_broken_config_file_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.settings import Settings

    (tmp_path / "pybuild").mkdir()
    (tmp_path / "pybuild/config.toml").write_text("root = 3")
    with pytest.raises(UsageError, match="root must be text"):
        _ = Settings({"XDG_CONFIG_HOME": str(tmp_path)}).root
    (tmp_path / "pybuild/config.toml").write_text("root = '/x'\nprogress='plain'\nmax-parallelism=3")
    settings = Settings({"XDG_CONFIG_HOME": str(tmp_path)})
    assert (str(settings.root), settings.progress, settings.max_parallelism) == ("/x", "plain", 3)
    assert str(Settings({"XDG_CONFIG_HOME": str(tmp_path), "PYBUILD_ROOT": "/y"}).root) == "/y"
    assert str(Settings({"PYBUILD_ROOT": "/y"}, root="/z").root) == "/z"
