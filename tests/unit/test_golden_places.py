"""Where the errors of broken Dockerfiles point, against a table made by hand (DIA-02, DIA-04, LEX-10).

For every file: what is wrong in it as typed, the lines of the instruction that it stands in, and a word of the
reason. The place is looked up in the bytes of the file here, by nothing of ours; the lines that are told are
those that a user sees.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder.errors import PybuildError
from builder.frontend.convert import convert
from builder.frontend.errors import DockerfileError
from builder.frontend.parser import parse
from cli.render.errors import error_json, error_text
from tests.support.goldens import settings

BROKEN = Path(__file__).parents[1] / "golden/dockerfiles-broken"
NOWHERE = ("", 0, 0)
"""The file as a whole, or an option, is wrong: there is no line to show."""

TABLE: dict[str, tuple[tuple[str, int, int] | list[tuple[str, int, int]], str]] = {
    "add-bad-git-query": (("brnch=main", 2, 2), 'unexpected query "brnch"'),
    "add-checksum-on-local": (("--checksum=sha256:", 2, 2), "checksum requires HTTP(S) or Git"),
    "bad-exclude": (("--exclude=[a", 2, 2), "syntax error in pattern: '[a'"),
    "circular-stages": ([("--from=c", 4, 4), ("--from=b", 6, 6)], "circular dependency detected on stage: b"),
    "copy-bad-chmod": (("--chmod=0999", 2, 2), "invalid chmod parameter: '0999'"),
    "copy-from-bad-index": (("--from=7", 2, 2), "invalid stage index 7"),
    "copy-from-later-stage": (("--from=two", 2, 2), 'cannot copy from stage "two"'),
    "copy-from-variable": (("--from=$SRC", 4, 4), "not supported for --from"),
    "copy-git": (("git@github.com:a/b.git", 2, 2), "a git ref for COPY"),
    "copy-one-argument": (("COPY onlyone", 3, 3), "COPY requires at least two arguments"),
    "copy-url": (("https://example.com/x.tar", 2, 2), "a URL for COPY"),
    "directive-bad-escape": (("escape=^", 1, 1), "invalid escape token '^'"),
    "directive-twice": (("# escape=`", 2, 2), "only one escape parser directive"),
    "duplicate-flag": (("--chown=2", 2, 2), "duplicate flag specified: --chown"),
    "empty": (NOWHERE, "cannot be empty"),
    "env-blank-name": (("ENV =x", 2, 2), "ENV names can not be blank"),
    "env-one-word": (("ENV LONELY", 2, 2), "ENV must have two arguments"),
    "env-without-equals": (("A=b C", 2, 2), 'can\'t find = in "C"'),
    "epoch-not-a-number": (NOWHERE, "invalid SOURCE_DATE_EPOCH: soon"),
    "expansion-bad-modifier": (("${B:=c}", 2, 2), '"${B:=c}": unsupported modifier (:=)'),
    "expansion-missing-brace": (("${U", 2, 2), "\"${U\": syntax error: missing '}'"),
    "expansion-required": (("${V:?say which version}", 3, 3), "V: say which version"),
    "expose-bad-port": (("http", 2, 2), 'invalid port: "http"'),
    "expose-bad-proto": (("80/tpc", 2, 2), "invalid proto: tpc"),
    "flag-without-value": (("--chown a b", 2, 2), "missing a value on flag: --chown"),
    "foreign-frontend": (("example.com/my/frontend:1", 1, 1), "frontend example.com/my/frontend:1"),
    "from-bad-platform": (("linux/amd64/v1/x", 1, 1), "failed to parse platform linux/amd64/v1/x"),
    "from-bad-reference": (("Alpine:3.19:1", 1, 1), 'failed to parse stage name "Alpine:3.19:1"'),
    "from-bad-stage-name": (("9lives", 1, 1), 'invalid name for build stage: "9lives"'),
    "from-blank": (("FROM ${BASE}", 2, 2), "base name (${BASE}) should not be blank"),
    "from-four-words": (("AS a b", 1, 1), "FROM requires either one or three arguments"),
    "go-unknown-flag": (("--chwon=1:1", 2, 4), "unknown flag: --chwon"),
    "healthcheck-bad-interval": (("--interval=10us", 2, 2), 'Interval "interval"'),
    "healthcheck-none-args": (("NONE x", 2, 2), "HEALTHCHECK NONE takes no arguments"),
    "healthcheck-unknown": (("HEALTHCHECK RUN", 2, 2), 'Unknown type "RUN"'),
    "heredoc-as-destination": (("a <<EOF", 2, 4), "a heredoc as a destination"),
    "heredoc-unterminated": (("<<EOF", 2, 2), "unterminated heredoc"),
    "heredoc-unterminated-quote": (('<<"my conf', 2, 2), "unterminated heredoc"),
    "instruction-before-from": (("RUN true", 2, 2), "no build stage in current context"),
    "json-not-strings": (('["a", 1]', 2, 2), "arrays must be comprised of strings only"),
    "label-unbalanced-quote": (('"b', 2, 2), "looking for matching double-quote"),
    "lint-as-error": ([("Base", 2, 2), ("CMD x", 3, 3)], "JSONArgsRecommended, StageNameCasing"),
    "mount-at-root": (("target=/ ", 2, 2), 'invalid mount target "/"'),
    "mount-from-variable": (("from=$S", 3, 3), "'from' doesn't support variable expansion"),
    "mount-sharing": (("sharing=lock ", 2, 2), 'unsupported sharing value "lock"'),
    "mount-size-on-cache": (("size=1g", 2, 2), "unexpected key 'size' for mount type 'cache'"),
    "mount-unknown-key": (("tagret=/c", 2, 2), "unexpected key 'tagret'"),
    "mount-unknown-type": (("type=chache", 2, 2), 'unsupported mount type "chache"'),
    "node-typo-instruction": (("COPPY", 3, 3), "unknown instruction: COPPY"),
    "onbuild-alone": (("ONBUILD", 2, 2), "ONBUILD requires at least one argument"),
    "onbuild-chain": (("ONBUILD ONBUILD", 2, 2), "Chaining ONBUILD"),
    "onbuild-from": (("ONBUILD FROM", 2, 2), "FROM isn't allowed as an ONBUILD trigger"),
    "only-args": (NOWHERE, "no stages to build"),
    "only-comments": (NOWHERE, "file with no instructions"),
    "run-bad-network": (("--network=hots", 2, 2), 'invalid network mode "hots"'),
    "run-nothing": (("RUN", 2, 2), "RUN requires at least one argument"),
    "secret-without-target": (("--mount=type=secret", 2, 2), "invalid secret mount"),
    "shell-not-json": (("SHELL /bin/bash", 2, 2), "SHELL requires the arguments to be in JSON form"),
    "stopsignal-unknown": (("SIGWHAT", 2, 2), "invalid signal: SIGWHAT"),
    "switch-not-boolean": (("--link=yes", 2, 2), "for flag --link, not: yes"),
    "target-typo": (NOWHERE, 'target stage "buider" could not be found'),
    "volume-empty": (('[""]', 2, 2), "VOLUME specified can not be an empty string"),
}


EXACT: dict[str, tuple[str, int, int]] = {
    "add-bad-git-query": ("brnch", 2, 32),
    "add-checksum-on-local": (
        "--checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d",
        2,
        5,
    ),
    "bad-exclude": ("[a", 2, 16),
    "circular-stages": ("c", 4, 13),
    "copy-bad-chmod": ("0999", 2, 14),
    "copy-from-bad-index": ("7", 2, 13),
    "copy-from-later-stage": ("two", 2, 13),
    "copy-from-variable": ("$SRC", 4, 13),
    "copy-git": ("git@github.com:a/b.git", 2, 6),
    "copy-one-argument": ("", 3, 13),
    "copy-url": ("https://example.com/x.tar", 2, 6),
    "directive-bad-escape": ("^", 1, 10),
    "directive-twice": ("escape", 2, 3),
    "duplicate-flag": ("--chown=2", 2, 16),
    "env-blank-name": ("=x", 2, 5),
    "env-one-word": ("LONELY", 2, 5),
    "env-without-equals": ("C", 2, 9),
    "expansion-bad-modifier": (":=", 2, 10),
    "expansion-missing-brace": ("${U", 2, 6),
    "expansion-required": ("${V:?say which version}", 3, 14),
    "expose-bad-port": ("http", 2, 11),
    "expose-bad-proto": ("80/tpc", 2, 8),
    "flag-without-value": ("--chown", 2, 6),
    "foreign-frontend": ("example.com/my/frontend:1", 1, 10),
    "from-bad-platform": ("linux/amd64/v1/x", 1, 17),
    "from-bad-reference": ("Alpine:3.19:1", 1, 6),
    "from-bad-stage-name": ("9lives", 1, 16),
    "from-blank": ("${BASE}", 2, 6),
    "from-four-words": ("alpine AS a b", 1, 6),
    "go-unknown-flag": ("--chwon", 2, 6),
    "healthcheck-bad-interval": ("10us", 2, 24),
    "healthcheck-none-args": ("x", 2, 18),
    "healthcheck-unknown": ("RUN", 2, 13),
    "heredoc-as-destination": ("<<EOF", 2, 8),
    "heredoc-unterminated": ("<<EOF", 2, 5),
    "heredoc-unterminated-quote": ('<<"my conf /etc/app/', 2, 5),
    "instruction-before-from": ("RUN", 2, 1),
    "json-not-strings": ("1", 2, 11),
    "label-unbalanced-quote": ('"b', 2, 9),
    "lint-as-error": ("Base", 2, 16),
    "mount-at-root": ("/", 2, 31),
    "mount-from-variable": ("$S", 3, 18),
    "mount-sharing": ("lock", 2, 42),
    "mount-size-on-cache": ("size=1g", 2, 34),
    "mount-unknown-key": ("tagret", 2, 24),
    "mount-unknown-type": ("chache", 2, 18),
    "node-typo-instruction": ("COPPY", 3, 1),
    "onbuild-alone": ("", 2, 8),
    "onbuild-chain": ("ONBUILD", 2, 9),
    "onbuild-from": ("FROM", 2, 9),
    "run-bad-network": ("hots", 2, 15),
    "run-nothing": ("", 2, 4),
    "secret-without-target": ("type=secret", 2, 13),
    "shell-not-json": ("/bin/bash -c", 2, 7),
    "stopsignal-unknown": ("SIGWHAT", 2, 12),
    "switch-not-boolean": ("yes", 2, 13),
    "volume-empty": ('""', 2, 9),
}
"""What is wrong to the character: the piece, its line and column. An empty one is what is missing there."""


def test_every_broken_file_is_in_the_table() -> None:
    assert sorted(TABLE) == sorted(path.name for path in BROKEN.iterdir())
    assert len(TABLE) >= 62
    assert sorted(EXACT) == sorted(name for name, (places, _) in TABLE.items() if places != NOWHERE)


@pytest.mark.parametrize("name", TABLE)
def test_the_marker_is_under_what_is_wrong(name: str) -> None:
    places, reason = TABLE[name]
    wanted = [] if places == NOWHERE else [places] if isinstance(places, tuple) else places
    data = (BROKEN / name / "Dockerfile").read_bytes()
    lines = data.decode().split("\n")
    options, resolver = settings(BROKEN / name)
    with pytest.raises(PybuildError) as caught:
        convert(parse(data), options, resolver)
    shown = error_text(caught.value)
    assert reason in caught.value.message
    assert f"ERROR: failed to solve: {caught.value.message}" in shown
    for token, first, last in wanted:
        found = [number for number, line in enumerate(lines, 1) if token in line]
        assert first in found, "the table: the token stands on the first line of its instruction"
        assert len(found) == 1 or name == "onbuild-alone", "and nowhere else"
        assert first <= last <= len(lines)
    assert re.findall(r"^Dockerfile:(\d+)$", shown, re.MULTILINE) == [str(first) for _, first, _ in wanted]
    marked = re.findall(r"^ +(\d+) \| >>> (.*)$", shown, re.MULTILINE)
    expected = [(str(n), lines[n - 1]) for _, first, last in wanted for n in range(first, last + 1)]
    assert marked == expected
    said = error_json(caught.value, 1)["error"]
    if wanted:
        _, first, last = wanted[0]
        assert said["location"] == {"file": "Dockerfile", "start_line": first, "end_line": last}
    else:
        assert "location" not in said
    numbers = re.findall(r"parse error on line (\d+)", caught.value.message)
    assert set(numbers) <= {str(first) for _, first, _ in wanted}


@pytest.mark.parametrize("name", TABLE)
def test_the_range_is_what_is_wrong(name: str) -> None:
    data = (BROKEN / name / "Dockerfile").read_bytes()
    options, resolver = settings(BROKEN / name)
    with pytest.raises(DockerfileError) as caught:
        convert(parse(data), options, resolver)
    error = caught.value
    said = error_json(error, 1)["error"].get("range")
    if name not in EXACT:
        assert error.range is None
        assert said is None
        return
    token, line, column = EXACT[name]
    assert data.decode().split("\n")[line - 1][column - 1 :].startswith(token)
    assert error.range == ((line, column), (line, column + len(token)))
    assert error.source is not None
    assert error.range.cut(error.source) == token
    assert error.span is not None
    assert error.span.start <= line <= error.span.end
    assert said == {"line": line, "column": column, "end_line": line, "end_column": column + len(token)}


def test_the_lines_around_are_those_of_the_file() -> None:
    """Every line of a snippet is the line of that number, in a file where no two are alike."""
    text = "".join(f"ENV line{number}=x\n" for number in range(2, 40))
    for wrong in (2, 3, 9, 39):
        lines = ("FROM a\n" + text).split("\n")
        lines[wrong - 1] = "ENV wrong"
        with pytest.raises(PybuildError) as caught:
            parse("\n".join(lines).encode())
        shown = re.findall(r"^ +(\d+) \| (>>>|   ) ?(.*)$", error_text(caught.value), re.MULTILINE)
        assert [int(number) for number, mark, _ in shown if mark == ">>>"] == [wrong]
        assert all(lines[int(number) - 1] == line for number, _, line in shown)
        assert len(shown) == len(range(max(1, wrong - 2), min(len(lines) - 1, wrong + 2) + 1))
