"""What errors, warnings and failures point at, to the character, in texts marked by hand: « and » stand around it."""

from __future__ import annotations

import pytest

from builder.errors import PathNotFound, PybuildError, SolveError, SourceUnavailable
from builder.frontend.convert import convert
from builder.frontend.errors import DockerfileError, edit_distance
from builder.frontend.failures import failed_range
from builder.frontend.lint import LintConfig
from builder.frontend.parser import parse
from builder.frontend.positions import Position, Range
from builder.frontend.words import expand
from tests.support.dockerfiles import FakeResolver, base_image, options


def marked(shown: str) -> tuple[bytes, Range]:
    """The text without its marks, and the range between them."""
    assert shown.count("«") == shown.count("»") == 1
    before, rest = shown.split("«")
    inside, after = rest.split("»")

    def place(so_far: str) -> Position:
        whole = so_far.removeprefix("\ufeff").split("\n")
        return Position(len(whole), len(whole[-1]) + 1)

    return (before + inside + after).encode(), Range(place(before), place(before + inside))


ERRORS = [
    # instructions and their names
    "FROM a\n«RUNN» x",
    "FROM a\n  «ru\\\nnn» x",
    "FROM a\nONBUILD «RUNN» x",
    "FROM a\nONBUILD \\\n# no\n  «RUNN» x",
    "FROM a\nONBUILD --x «RUNN» x",
    "FROM a\nONBUILD «--x» RUN y",
    "FROM a\nONBUILD \\\n «FROM» b",
    "FROM a\nONBUILD RUN«»",
    "FROM a\nONBUILD COPY --link=«x» b c",
    "ARG a\n\n«WORKDIR» /x\nFROM a",
    "FROM a\nRUN x «\0»y",
    # parser directives
    "#  Escape = `\n# «escape»=`\nFROM a",
    "# escape = «x» \nFROM a",
    "# check=skip=X;«wrong=y»\nFROM a",
    "\ufeff# check=«x»\nFROM a",
    "#syntax= «other/frontend» x=y\nFROM a",
    '{"syntax": "«other/frontend»"}',
    "//syntax=«other/frontend»\nFROM a",
    # FROM
    "FROM «a b»",
    "FROM a AS «B!»",
    "FROM a AS \\\n «B!»",
    "FROM --platform=«x/y/z/w» a",
    'FROM --platform="«${x»" a',
    "FROM «${X}»",
    "FROM «A:B:C»",
    "FROM --platform=«$X» a",
    "FROM a«${:»=}",
    "FROM «$X» AS unused\nFROM a",
    "FROM --platform=«$X» a AS unused\nFROM a",
    # flags and mounts
    "FROM a\nRUN --network=none «--ntwork»=x y",
    "FROM a\nRUN --network=none \\\n  «--network=host» y",
    'FROM a\nRUN --security=«"insecre"» y',
    "FROM a\nRUN --device=«!» x",
    "FROM a\nCOPY «--checksum=x» a b",
    "FROM a\nHEALTHCHECK --interval=1s --timeout=«1x» CMD 1x",
    "FROM a\nHEALTHCHECK --retries=«-1» CMD x",
    "FROM a\nHEALTHCHECK --retries=1 CMD«»",
    "FROM a\nRUN --mount=dst=/x --mount=type=bind,\\\n# no\ndst=/y,«wrong»=1 z",
    "FROM a\nRUN --mount=dst=/x --mount=type=cache,dst=/y,uid=«-1» z",
    "FROM a\nRUN --mount=type=tmpfs,dst=/y,'\"size=«1x»\"' z",
    "FROM a\nRUN --mount=type=cache,dst=/y,«env=x» z",
    "FROM a\nRUN --mount=type=bind,dst=/y,ro=«maybe» z",
    "FROM a\nRUN --mount=type=bind,«dst» z",
    "FROM a\nRUN --mount=dst=/a$HOME --mount=type=cache,dst=/${HOME}/«${x» z",
    "FROM a\nRUN --mount=dst=/x --mount=«type=bind,from=b» z",
    "FROM a\nRUN --mount=dst=/x --mount=from=«B:C:D»,dst=/y z",
    "FROM a AS b\nRUN --mount=from=«c»,dst=/y z\nFROM a AS c\nFROM b",
    # words
    "FROM a\nENV A=1 «=2»",
    "FROM a\nENV A=1 «B»",
    "FROM a\nENV «$X»=1",
    "FROM a\nENV A=x«${B»",
    "FROM a\nENV A=x B='y'«\"z C»",
    "FROM a\nENV A='x'«'y»",
    "FROM a\nENV A=${B:-${C:-«${}»}}",
    "FROM a\nENV B=c\nLABEL a=${B#c}«${B#\\x}»",
    "FROM a\nARG A=1 B=${C«:x»}",
    "ARG A=«${C?}»\nFROM a",
    "FROM a\nARG «=1»",
    "FROM a\nARG«»",
    "FROM a\nEXPOSE 80 \\\n  # no\n  «70000»",
    "FROM a\nENV P=x\nEXPOSE 80 «$P»",
    "FROM a\nEXPOSE 80 «${P»",
    'FROM a\nVOLUME ["/a", «" "»]',
    "FROM a\nVOLUME /a «$X»",
    "FROM a\nSTOPSIGNAL «9x»",
    "FROM a\nUSER«»",
    "FROM a\nWORKDIR /é/«${»",
    'FROM a\nSHELL ["/bin/sh", «{}»]',
    # COPY and ADD
    "FROM a\nCOPY a«»",
    "FROM a\nCOPY b«» \\\n  \n ",
    "FROM a\nCOPY --chmod=«u!x» u!x /y",
    "FROM a\nCOPY --from=«7» a /y",
    "FROM a\nCOPY --from=«A:B:C» a A:B:C",
    "FROM a\nCOPY --exclude=a --exclude=«[b» a /c",
    "FROM a\nCOPY a «https://x.org/y» /c",
    "FROM a\nADD --checksum=«md5:1» https://x.org/y /c",
    "FROM a\nADD «--checksum=sha256:1» a b /c",
    "FROM a\nADD «https://[x/y» /c",
    "FROM a\nADD a https://x.org/y.git?«wrong»=1 /c",
    "FROM a\nENV U=https://x.org/y.git?wrong=1\nADD «$U» /c",
    "FROM a\nCOPY <<A «<<B» /x\n1\nA\n2\n",
    "FROM a\nCOPY \\\n  <<A «<<B» /x\n1\nA\n2\n",
    "FROM a\nCOPY <<-A /x\n\t1\n\t é «${x:-y\n»A\n",
    "FROM a\nCOPY <<A /x\nb\r\n é ${x«:=»y}\nA\n",
    "FROM a\nCOPY <<A «<<B»\n1\nA\n2\nB\n",
    # triggers point at the base that brings them
    "FROM a AS b\nONBUILD USER ${x:?y}\nFROM «b»",
    "FROM «brings»\nRUN x",
]


@pytest.mark.parametrize("shown", ERRORS, ids=repr)
def test_errors(shown: str) -> None:
    data, expected = marked(shown)
    images = {"docker.io/library/brings:latest": base_image(on_build=("USER ${x:?y}",))}
    with pytest.raises(DockerfileError) as caught:
        convert(parse(data), options(), FakeResolver(images))
    assert caught.value.range == expected
    span = caught.value.span
    assert span is not None
    assert span.start <= expected.start.line <= expected.end.line <= span.end


WARNINGS = {
    "FROM a AS «B»": "StageNameCasing",
    "FROM a «as» b": "FromAsCasing",
    "FROM a AS b\nFROM a AS «b»": "DuplicateStageName",
    "FROM a AS «scratch»": "ReservedStageName",
    "FROM a\nRUN x\n«run» y": "ConsistentInstructionCasing",
    "FROM a\n«MAINTAINER» x": "MaintainerDeprecated",
    "FROM a\nENV «A  b»": "LegacyKeyValueFormat",
    "FROM a\nONBUILD ENV «A  b»": "LegacyKeyValueFormat",
    "FROM --platform=«$TARGETPLATFORM» a": "RedundantTargetPlatform",
    "FROM --platform=«linux/arm64» a": "FromPlatformFlagConstDisallowed",
    "FROM a«$X»": "UndefinedArgInFrom",
    "FROM a\nARG A «MY_TOKEN»=x": "SecretsUsedInArgOrEnv",
    "FROM a\nENV A=b \\\n «MY_TOKEN»=x": "SecretsUsedInArgOrEnv",
    "FROM a\nENV A='$x' B=\"«${x}»$x\"": "UndefinedVar",
    "FROM a\nCOPY a \\\n b «$x» /c/": "UndefinedVar",
    "ARG A=«$x»\nFROM a": "UndefinedVar",
    "FROM a\nWORKDIR «x»": "WorkdirRelativePath",
    "FROM a\nCMD «x y»": "JSONArgsRecommended",
    'FROM a\n«CMD» ["x"]\nCMD ["y"]': "MultipleInstructionsDisallowed",
    "FROM a\nEXPOSE 80 «81/TCP»": "ExposeProtoCasing",
    "FROM a\nEXPOSE 80 «1:81»": "ExposeInvalidFormat",
    "FROM a\nCOPY a b «/c»": "MultipleSourcesToFile",
}


@pytest.mark.parametrize(("shown", "rule"), WARNINGS.items(), ids=repr)
def test_warnings(shown: str, rule: str) -> None:
    data, expected = marked(shown)
    dockerfile = parse(data)
    found = convert(dockerfile, options(), FakeResolver(), all_stages=True).warnings
    assert [item.range(dockerfile.source) for item in found if item.rule == rule] == [expected]


FAILURES: list[tuple[str, PybuildError]] = [
    ("FROM a\nCOPY a \\\n  «b/c» /x/", PathNotFound("m", path="/b/c")),
    ("FROM a\nCOPY a «./b//c/» /x/", PathNotFound("m", path="b/c")),
    ("FROM a\nCOPY a «$X/$Y.txt» c.txt /x/", PathNotFound("m", path="/one/two.txt")),
    ('FROM a\nCOPY ["a", «"b c"», "/x/"]', PathNotFound("m", path="/b c")),
    ("FROM a\nCOPY --parents a/./b «c/./d» /x/", PathNotFound("m", path="/d")),
    ("FROM a\nCOPY «a» /x/", PathNotFound("m", path="/link")),
    ("FROM a\nADD «b» https://x.org/y /x/", PathNotFound("m", path="/b")),
    ("FROM a\nADD b «https://x.org/y» /x/", SourceUnavailable("m")),
    ("FROM a\nCOPY --from=«q» b /x/", SourceUnavailable("m")),
    ("FROM a\nCOPY --chown=«who» b /x/", SolveError("m", code="bad-owner")),
    ("FROM --platform=linux/amd64 «a» AS c", SourceUnavailable("m")),
    ("FROM a\nRUN --mount=dst=/x --mount=from=«q»,dst=/y z", SourceUnavailable("m")),
]


@pytest.mark.parametrize(("shown", "cause"), FAILURES, ids=lambda value: repr(value)[:60])
def test_failures_of_the_build(shown: str, cause: PybuildError) -> None:
    """The word is found also when the failure is only the cause of the one that is told."""
    data, expected = marked(shown)
    error = SolveError("step")
    error.__cause__ = cause
    error.first_line = error.last_line = parse(data).instructions[-1].at.span.start
    assert failed_range(parse(data), error) == expected


def test_failures_that_are_about_no_word() -> None:
    dockerfile = parse(b"FROM a\nRUN x\nCOPY a b /c/\n")
    for line in (0, 2, 3, 9):
        error = SolveError("step")
        error.first_line = error.last_line = line
        assert failed_range(dockerfile, error) is None
    error = PathNotFound("m", path="/q")
    error.first_line = 3
    assert failed_range(dockerfile, error) is None


def test_an_error_of_no_file_has_no_range() -> None:
    with pytest.raises(DockerfileError) as caught:
        expand("${x", {})
    assert caught.value.range is None
    with pytest.raises(DockerfileError) as caught:
        LintConfig.parse("what")
    assert caught.value.range is None


def model(one: str, other: str) -> int:
    """The textbook's edit distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def test_the_distance_agrees_with_the_textbook() -> None:
    words = [
        "",
        "a",
        "ab",
        "ba",
        "abc",
        "acb",
        "bc",
        "xbcd",
        "abcd",
        "bcde",
        "aabb",
        "abab",
        "bbaa",
        "aaaaa",
        "run",
    ]
    for one in words:
        for other in words:
            assert edit_distance(one, other, 2) == min(model(one, other), 3)


def test_guesses_about_variables_are_few_enough() -> None:
    """Two thousand unknown variables beside two thousand known ones do not take minutes."""
    known = "".join(f"ENV SOME_LONG_NAME_{number}=x\n" for number in range(2000))
    used = "".join(f"LABEL l{number}=$SOME_LONG_MANE_{number}x\n" for number in range(2000))
    found = convert(parse(f"FROM a\n{known}{used}".encode()), options(), FakeResolver()).warnings
    assert len(found) == 2000
    assert "did you mean $SOME_LONG" not in found[-1].message
