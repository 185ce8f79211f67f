"""The command line's grammar (requirements CLI-05, CLI-06, CLI-12)."""

from __future__ import annotations

import pytest

from builder.errors import UsageError
from cli.flags import Args, Command, many, number, parse, switch, text
from cli.suggest import distance, nearest

BUILD = Command(
    "build",
    "[OPTIONS] PATH",
    "Build",
    lambda _app, _args: 0,
    flags=(
        switch("quiet", "q"),
        switch("rm", default=True),
        text("file", "f"),
        many("tag", "t"),
        many("platform", split=True),
        number("parallel"),
        text("sbom", bare="true"),
        text("network", aliases=("net",)),
    ),
    words=(1, 1),
)
RUN = Command(
    "run",
    "[OPTIONS] IMAGE [COMMAND]",
    "Run",
    lambda _app, _args: 0,
    flags=(
        switch("interactive", "i"),
        switch("tty", "t"),
        text("user", "u"),
        many("env", "e"),
        text("hostname", "h"),
    ),
    words=(1, None),
    interspersed=False,
    usage_status=125,
)


def build(*argv: str) -> Args:
    return parse(BUILD, list(argv))


def run(*argv: str) -> Args:
    return parse(RUN, list(argv))


def test_defaults_hold_when_nothing_is_given() -> None:
    args = build(".")
    assert args.words == (".",)
    assert not args.on("quiet")
    assert args.on("rm")
    assert args.many("tag") == ()
    assert args.optional("file") is None
    assert not args.given("file")


@pytest.mark.parametrize("argv", [["-f", "a"], ["-fa"], ["-f=a"], ["--file", "a"], ["--file=a"]])
def test_a_value_may_be_a_word_or_joined(argv: list[str]) -> None:
    assert build(*argv, ".").text("file") == "a"


def test_flags_stand_anywhere_around_the_words() -> None:
    args = build("-t", "a", ".", "-t", "b", "-q")
    assert args.many("tag") == ("a", "b")
    assert args.on("quiet")
    assert args.words == (".",)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("true", True), ("1", True), ("T", True), ("false", False), ("0", False), ("F", False)],
)
def test_booleans_take_a_value_after_the_equals_sign(value: str, wanted: bool) -> None:
    assert build(f"--rm={value}", ".").on("rm") is wanted
    assert build(f"-q={value}", ".").on("quiet") is wanted


def test_a_boolean_never_takes_the_next_word() -> None:
    assert build("--quiet", "false").words == ("false",)


def test_short_booleans_join_and_the_last_may_take_a_value() -> None:
    args = run("-itu", "root", "busybox")
    assert args.on("interactive")
    assert args.on("tty")
    assert args.text("user") == "root"
    assert run("-ituroot", "busybox").text("user") == "root"


def test_the_first_word_ends_the_flags_of_run() -> None:
    args = run("-e", "A=1", "busybox", "ls", "-l", "--user", "-t")
    assert args.words == ("busybox", "ls", "-l", "--user", "-t")
    assert args.many("env") == ("A=1",)
    assert not args.on("tty")


def test_two_dashes_end_the_flags() -> None:
    assert build("--", "-q").words == ("-q",)


def test_a_dash_alone_is_a_word() -> None:
    assert build("-").words == ("-",)


def test_comma_lists_split_and_repeat() -> None:
    assert build("--platform", "a,b", "--platform=c", ".").many("platform") == ("a", "b", "c")


def test_a_bare_flag_takes_no_word() -> None:
    args = build("--sbom", ".")
    assert args.text("sbom") == "true"
    assert args.words == (".",)
    assert build("--sbom=false", ".").text("sbom") == "false"


def test_an_alias_sets_the_flag_it_stands_for() -> None:
    assert build("--net", "host", ".").text("network") == "host"


def test_h_is_help_unless_the_command_has_its_own() -> None:
    assert build("-h").on("help")
    args = run("-h", "name", "busybox")
    assert args.text("hostname") == "name"
    assert not args.on("help")


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--tga", "x", "."], "unknown flag: --tga (did you mean --tag?)"),
        (["--zzzzzz", "."], "unknown flag: --zzzzzz"),
        (["-z", "."], "unknown shorthand flag: 'z' in -z"),
        (["-qz", "."], "unknown shorthand flag: 'z' in -qz"),
        (["--file"], "flag needs an argument: --file"),
        (["-f"], "flag needs an argument: 'f' in -f"),
        (["--quiet=maybe", "."], 'invalid argument "maybe" for "-q, --quiet" flag'),
        (["--parallel", "x", "."], 'invalid argument "x" for "--parallel" flag'),
        ([], "'pybuild build' requires 1 argument"),
        (["a", "b"], "'pybuild build' requires 1 argument"),
    ],
)
def test_what_is_wrong_is_said_with_the_usage(argv: list[str], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(*argv)
    assert part in caught.value.message
    assert caught.value.context == ("Usage:  pybuild build [OPTIONS] PATH",)
    assert caught.value.exit_status == 2


def test_a_wrong_run_line_exits_125() -> None:
    with pytest.raises(UsageError) as caught:
        run("--nope", "busybox")
    assert caught.value.exit_status == 125
    with pytest.raises(UsageError, match="at least 1 argument"):
        run()


def test_distance_counts_edits_and_swaps() -> None:
    assert distance("biuld", "build") == 1
    assert distance("tag", "tga") == 1
    assert distance("kitten", "sitting", 9) == 3
    assert distance("a", "abcdef") == 3


def test_nearest_offers_nothing_far_off() -> None:
    assert nearest("imags", ("images", "image")) == "image"
    assert nearest("qqq", ("run", "rm")) is None
