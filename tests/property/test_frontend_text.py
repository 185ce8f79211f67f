"""Any text is read or refused, never a crash; layout alone changes nothing; quoting and matching agree with a model."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import PybuildError
from builder.frontend.convert import convert
from builder.frontend.dockerignore import IgnoreMatcher
from builder.frontend.errors import DockerfileError, ExpansionProblem
from builder.frontend.gitref import parse_git_ref
from builder.frontend.ignorepatterns import Automaton, expression, tokens_of
from builder.frontend.parser import Dockerfile, Nodes, parse, parse_nodes
from builder.frontend.patterns import remove_prefix, remove_suffix, replace_pattern
from builder.frontend.words import expand, expand_words
from tests.support.dockerfiles import FakeResolver, options
from tests.support.ignoremodel import excluded as excluded_by_model

pytestmark = pytest.mark.property
quick = settings(
    deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.too_slow]
)

INSTRUCTIONS = [
    "FROM alpine AS b",
    "FROM b",
    "ARG v=1 w",
    'ENV a=$v "b c"=d',
    "ENV legacy a b",
    "LABEL x='y z'",
    "RUN --mount=type=cache,target=/c make $v",
    'RUN ["a", "b"]',
    "RUN <<EOF\necho\nEOF",
    "COPY --chown=1 a b /c/",
    "COPY --from=b a /c",
    "ADD --link x.tar /y",
    "COPY <<X <<Y /z/\n$v\nX\nY",
    "WORKDIR w/$v",
    "USER u",
    "EXPOSE 80 $v",
    "VOLUME /v",
    "CMD a b",
    'ENTRYPOINT ["e"]',
    "HEALTHCHECK --interval=1s CMD x",
    "STOPSIGNAL TERM",
    "ONBUILD RUN x",
    'SHELL ["s"]',
]
PIECES = [
    *INSTRUCTIONS, "RUN", "FROM", "COPY", "ENV", "ONBUILD", "HEALTHCHECK", "--mount=", "--from=", "--", "type=bind,",
    "target=/a", "\\", "`", "#", "# escape=`", "# check=skip=all", "\n", "\n", "\r\n", " ", "\t", '"', "'", "$", "${", "}",
    ":-", "/", "=", "[", "]", ",", "<<EOF", "<<-", "EOF", "a", "b", "é", "\udcff", "0", "*", "!", "scratch", "AS",
]  # fmt: skip
soup = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


def attempt(data):
    """The conversion, or None when the text is refused properly."""
    try:
        return convert(parse(data), options(), FakeResolver())
    except DockerfileError as error:
        assert error.message
        assert error.source is not None
        for span in error.spans:
            assert 1 <= span.start <= span.end <= len(error.source_lines)
        return None
    except PybuildError as error:
        assert error.message
        return None


@quick
@given(soup)
def test_token_soup(text):
    attempt(text.encode("utf-8", "surrogateescape"))


@quick
@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=12), soup)
def test_instructions_with_soup(lines, text):
    attempt("\n".join(["FROM alpine", *lines, text]).encode("utf-8", "surrogateescape"))


@quick
@given(st.binary(max_size=200))
def test_any_bytes(data):
    attempt(data)
    attempt(b"FROM a\n" + data)


@quick
@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=12))
def test_stored_nodes_say_the_same(lines):
    data = "\n".join(["# escape=`", "FROM alpine", *lines, ""]).encode()
    nodes = parse_nodes(data)
    again = Dockerfile.from_nodes(Nodes.from_bytes(nodes.to_bytes()), data)
    assert again.instructions == parse(data).instructions


layout = st.sampled_from(["", "\n", "# comment\n", "  \n#\n", "\t# x\n\n"])


@quick
@given(
    st.lists(st.tuples(layout, st.sampled_from(INSTRUCTIONS), st.sampled_from(["", "  ", "\r"])), max_size=10)
)
def test_comments_blank_lines_and_case_leave_the_definition_alone(lines):
    plain = "\n".join(["FROM alpine", *(line for _, line, _ in lines), ""])
    loose = "\n".join(["from alpine", *(before + lower(line, after) for before, line, after in lines), ""])
    one, other = attempt(plain.encode()), attempt(loose.encode())
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.definition.head == other.definition.head
        assert one.config.env == other.config.env


def lower(line, after):
    """The line with its name in lower case, indented, and blanks behind it unless a here-document ends there."""
    head, blank, rest = line.partition(" ")
    return f"  {head.lower()}{blank}{rest}{'' if '<<' in line else after}"


@quick
@given(st.lists(st.sampled_from(["a", "bc", "d=e"]), min_size=1, max_size=6))
def test_a_continuation_is_the_joined_line(words):
    one = parse(("FROM x\nRUN " + " ".join(words) + "\n").encode())
    other = parse(("FROM x\nRUN " + " \\\n# c\n".join(words) + "\n").encode())
    assert one.instructions[1].command == other.instructions[1].command


plain_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@quick
@given(plain_text)
def test_quoting_round_trips(text):
    if "'" not in text:
        assert expand(f"'{text}'", {}).text == text
    escaped = "".join("\\" + c if c in '"$\\' else c for c in text)
    assert expand(f'"{escaped}"', {}).text == text
    assert expand("".join("\\" + c for c in text), {}).text == text
    assert expand_words(f'"{escaped}"', {})[0] == (text,)


@quick
@given(plain_text, plain_text)
def test_a_value_is_never_read_again(value, other):
    env = {"a": value, "b": other}
    assert expand("$a${b}", env).text == value + other
    assert expand("${u:-$a}", env).text == value


@quick
@given(st.text("abc*?", max_size=6), st.text("abc", max_size=8))
def test_patterns_agree_with_a_model(pattern, text):
    cuts = range(len(text) + 1)
    prefixes = [n for n in cuts if fnmatch.fnmatchcase(text[:n], pattern)]
    suffixes = [n for n in cuts if fnmatch.fnmatchcase(text[n:], pattern)]
    assert remove_prefix(text, pattern, longest=False) == text[min(prefixes, default=0) :]
    assert remove_prefix(text, pattern, longest=True) == text[max(prefixes, default=0) :]
    assert remove_suffix(text, pattern, longest=False) == text[: max(suffixes, default=len(text))]
    assert remove_suffix(text, pattern, longest=True) == text[: min(suffixes, default=len(text))]
    if "*" not in pattern and "?" not in pattern and pattern:
        assert replace_pattern(text, pattern, "$1", everywhere=True) == text.replace(pattern, "$1")


segment = st.sampled_from(["a", "b", "ab", "*", "a*", "?", "**", "[ab]"])
rule = st.tuples(st.booleans(), st.lists(segment, min_size=1, max_size=3).map("/".join))
path = st.lists(st.sampled_from(["a", "b", "ab", "abc"]), min_size=1, max_size=4).map("/".join)


def matches(pattern, parts):
    """One pattern against one path, element by element."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(parts)
        return any(matches(pattern[1:], parts[n:]) for n in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and matches(pattern[1:], parts[1:])


@quick
@given(st.lists(rule, min_size=1, max_size=5), path)
def test_ignore_rules_agree_with_a_model(rules, name):
    found = IgnoreMatcher([("!" if negated else "") + text for negated, text in rules])
    parts = name.split("/")
    excluded = False
    for negated, text in rules:
        if any(matches(text.split("/"), parts[:n]) for n in range(1, len(parts) + 1)):
            excluded = not negated
    assert found.excludes(name) == excluded
    if not excluded:
        # Whatever is kept can be reached: every excluded directory above it is entered.
        for n in range(1, len(parts)):
            above = "/".join(parts[:n])
            assert not found.excludes(above) or found.may_hold_exception(above)


pattern_pieces = [
    "a",
    "b",
    ".",
    "/",
    "*",
    "?",
    "**",
    "**/",
    "/**",
    "***",
    "[ab]",
    "[^a]",
    "[a-c]",
    "\\*",
    "\\a",
    "ab",
    "..",
]
free_rule = st.tuples(
    st.booleans(), st.lists(st.sampled_from(pattern_pieces), min_size=1, max_size=6).map("".join)
)
free_path = st.lists(
    st.text("abc.*", min_size=1, max_size=4).filter(lambda name: name.strip(".")), min_size=1, max_size=4
)


@settings(quick, max_examples=600)
@given(st.lists(free_rule, min_size=1, max_size=4), free_path.map("/".join))
def test_any_ignore_patterns_agree_with_the_slow_model(rules, name):
    found = IgnoreMatcher([("!" if negated else "") + text for negated, text in rules])
    assert found.excludes(name) == excluded_by_model(found.patterns, name)


@quick
@given(
    st.lists(st.sampled_from(["a", "b", "*", "?", "**", "**/", "/", "[ab]", "[^a]"]), min_size=1, max_size=7),
    path,
)
def test_the_automaton_agrees_with_the_expression(pieces, name):
    tokens = tokens_of("".join(pieces))
    expected = re.compile(f"(?:{expression(tokens)})(?:/.*)?", re.DOTALL).fullmatch(name) is not None
    assert Automaton(tokens).matches(name) == expected


@quick
@given(st.text(max_size=30), soup)
def test_other_grammars_refuse_properly(text, other):
    for value in (text, f"https://h/r.git#{other}", f"https://h/r.git?{other}", f"git@h:{other}"):
        try:
            parse_git_ref(value)
        except PybuildError:
            pass
    try:
        IgnoreMatcher.parse(other)
    except PybuildError:
        pass
    try:
        expand(other, {"a": "b"})
        expand_words(other, {"a": "b"})
    except ExpansionProblem:
        pass
