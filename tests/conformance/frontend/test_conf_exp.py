"""Word expansion: rows EXP, and the vectors VEC."""

from __future__ import annotations

import pytest

from builder.errors import PybuildError
from builder.frontend.words import expand, expand_words
from tests.support.dockerfiles import converted, copies, execs, history, names, ops
from tests.support.rows import row

ENV = {"dir": "/data", "name": "web-07", "empty": "", "path": "/a/b/a", "star": "a*b?c\\d", "1": "one"}


def value(text: str, **modes: bool) -> str:
    return expand(text, ENV, **modes).text


def problem(text: str, env: dict[str, str] = ENV) -> str:
    """What is wrong with a word, without the wrapper that must be there."""
    with pytest.raises(PybuildError) as caught:
        expand(text, env)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    head = f'failed to process "{quoted}": '
    assert caught.value.message.startswith(head)
    return caught.value.message.removeprefix(head)


@row("EXP-01")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$name", "web-07"),
        ("${name}", "web-07"),
        ("${u:-w}", "w"),
        ("${u-w}", "w"),
        ("${name:+w}", "w"),
        ("${name+w}", "w"),
        ("${name:?w}", "web-07"),
        ("${name?w}", "web-07"),
        ("${path#*/}", "a/b/a"),
        ("${path##*/}", "a"),
        ("${path%/*}", "/a/b"),
        ("${path%%/*}", ""),
        ("${path/a/x}", "/x/b/a"),
        ("${path//a/x}", "/x/b/x"),
        ("${u:-$name ${u:-${dir}}}", "web-07 /data"),
        ("${path#${dir:+/}a}", "/b/a"),
        ("${path//${u:-a}/${name}}", "/web-07/b/web-07"),
        ('${u:-"a b"}', "a b"),
    ],
)
def test_forms(text: str, expected: str) -> None:
    assert value(text) == expected


@row("EXP-02")
def test_empty_and_unset() -> None:
    found = [value(f"${{{name}{op}w}}") for name in ("dir", "empty", "u") for op in (":-", "-", ":+", "+")]
    assert found == ["/data", "/data", "w", "w", "w", "", "", "w", "w", "w", "", ""]
    assert value("${empty?w}") == ""
    assert problem("${u?}") == problem("${u:?}") == "u: is not allowed to be unset"
    assert problem("${empty:?}") == "empty: is not allowed to be empty"
    assert problem("${u?no $name}") == "u: no web-07"
    assert problem("${empty:?set it}") == "empty: set it"


@row("EXP-03")
@pytest.mark.parametrize("modifier", [":=", ":x", ":#", ":%", ":/", "^", "=", "!", ","])
def test_unknown_modifiers(modifier: str) -> None:
    assert problem(f"${{name{modifier}w}}") == f"unsupported modifier ({modifier}) in substitution"


@row("EXP-04")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$name_x$name-", "web-07-"),
        ("$12abc", "abc"),
        ("$1x$2", "onex"),
        ("$@$*$#$?$-$$$!$0x", "x"),
        ("$+ $. $ $", "$+ $. $ $"),
        ("a$", "a$"),
        ("$/x", "$/x"),
    ],
)
def test_names(text: str, expected: str) -> None:
    assert value(text) == expected


@row("EXP-04")
def test_names_in_any_script() -> None:
    assert expand("$größe.", {"größe": "9"}).text == "9."


@row("EXP-05")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${}", "syntax error: bad substitution"),
        ("${:-x}", "syntax error: bad substitution"),
        ("${{a}}", "syntax error: bad substitution"),
        ("${dir", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${dir/a}", "syntax error: missing '/' in ${}"),
        ("${dir//a}", "syntax error: missing '/' in ${}"),
    ],
)
def test_malformed(text: str, expected: str) -> None:
    assert problem(text) == expected


@row("EXP-06")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\$x", "$x"),
        (r"a\tb", "atb"),
        ("a\\", "a"),
        (r"\\", "\\"),
        (r'"\"\$\\"', '"$\\'),
        (r'"a\tb\'"', "a\\tb\\'"),
        (r"'\$x\'", "\\$x\\"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert value(text) == expected


@row("EXP-07")
def test_unbalanced_quotes() -> None:
    start = "unexpected end of statement while looking for matching "
    assert problem("a'b") == start + "single-quote"
    assert problem('a"b') == problem('"a\\"') == start + "double-quote"
    with pytest.raises(PybuildError) as caught:
        converted("FROM a\nENV x=y\nWORKDIR /$x/'a\n")
    assert caught.value.message == f'failed to process "/$x/\'a": {start}single-quote'


@row("EXP-08")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${path#/?}", "/b/a"),
        ("${path#*a}", "/b/a"),
        ("${path##*a}", ""),
        ("${path%a*}", "/a/b/"),
        ("${path%%a*}", "/"),
        ("${path/?b*/x}", "/ax"),
        ("${path//[ab]/x}", "/a/b/a"),
        ("${star#a\\*}", "b?c\\d"),
        ("${star/\\?/!}", "a*b!c\\d"),
        ("${empty/*/x}", "x"),
        ("${empty//?/x}", ""),
        ("${star/c\\\\\\\\/!}", "a*b?c\\d"),
        ("${star/c\\\\/!}", "a*b?!d"),
        ("${path#x}", "/a/b/a"),
    ],
)
def test_patterns(text: str, expected: str) -> None:
    assert value(text) == expected


@row("EXP-08")
def test_a_pattern_s_unknown_escape() -> None:
    assert problem("${dir#\\d}") == "invalid escape '\\d'"
    assert problem("${dir//\\[/x}") == "invalid escape '\\['"


@row("EXP-09")
def test_replacements_are_literal() -> None:
    assert expand("${a//b/${r}}", {"a": "abc", "r": "<$1 \\1 ${0} &>"}).text == "a<$1 \\1 ${0} &>c"


@row("EXP-10")
def test_splitting() -> None:
    env = {"ports": "80 81/udp\t82", "one": "90"}
    assert expand_words('$ports "$ports" x$one', env)[0] == ("80", "81/udp", "82", "80 81/udp\t82", "x90")
    found = converted('FROM a\nARG ports="80 81/udp"\nEXPOSE $ports 90\n')
    assert sorted(found.config.exposed_ports) == ["80/tcp", "81/udp", "90/tcp"]


@row("EXP-11")
def test_modes() -> None:
    assert value("\"$name\" '$name'") == "web-07 $name"
    assert value("\"$name\" '$name' $u", raw_quotes=True) == "\"web-07\" '$name' "
    assert value("$u ${u} ${u:-x} ${u#x} $name", skip_unset=True) == "$u ${u} ${u:-x} ${u#x} web-07"
    assert value('it\'s "$name"', no_quotes=True) == 'it\'s "web-07"'
    assert value(r"a\tb \$x", raw_escapes=True) == r"a\tb \$x"
    found = expand("$name ${u:-x} $v '$w'", ENV)
    assert (found.matched, found.unmatched) == ({"name"}, {"u", "v"})
    steps = names(converted("FROM a\nARG v=1\nRUN echo \"$v\" '$v' $u\n"))
    assert steps[-1] == "[2/2] RUN echo \"1\" '$v' $u"


@row("EXP-12")
def test_an_instruction_sees_the_environment_before_it() -> None:
    found = converted("FROM a\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n")
    assert found.config.env[1:] == ("abc=bye", "def=hello", "ghi=bye")
    found = converted("FROM a\nENV v=1\nLABEL v=2 w=$v\n")
    assert dict(found.config.labels) == {"v": "2", "w": "1"}
    found = converted("ARG a=1 b=$a\nFROM x:$b\nARG a=2 c=$a\nLABEL c=$c\n")
    assert names(found)[0].startswith("[1/1] FROM docker.io/library/x:1@"), "an ARG is known to the next name"
    assert dict(found.config.labels) == {"c": "2"}


@row("EXP-13")
def test_what_is_expanded() -> None:
    found = converted('FROM a\nARG k=key\nENV $k=$k "${k}2"=x\nLABEL $k.a=$k\n')
    assert found.config.env[1:] == ("key=key", "key2=x")
    assert dict(found.config.labels) == {"key.a": "key"}
    text = "FROM a\nARG v=${u?needed}\nRUN r\n"
    with pytest.raises(PybuildError, match="u: needed"):
        converted(text)
    assert execs(converted(text, build_args=(("v", "1"),)))[0].meta.env[1:] == ("v=1",)
    with pytest.raises(PybuildError, match="u: needed"):
        converted("ARG v=${u?needed}\nFROM a\n")
    assert converted("ARG v=${u?needed}\nFROM a\n", build_args=(("v", "1"),)).target == "stage-0"


VECTORS = {
    "VEC-01": [("a$dir.x", "a/data.x"), ("a${dir}x", "a/datax"), ('"$dir/$name"', "/data/web-07"), ("'$dir'", "$dir")],
    "VEC-02": [
        ("${u:-z}", "z"),
        ("${empty:-z}", "z"),
        ("${empty-z}", ""),
        ("${dir:+y}", "y"),
        ("${empty:+y}", ""),
        ("${empty+y}", "y"),
        ("${u:-${dir}}", "/data"),
    ],
    "VEC-04": [
        ("${name#web-}", "07"),
        ("${name%-*}", "web"),
        ("${dir##*a}", ""),
        ("${dir#*a}", "ta"),
        ("${dir/a/o}", "/dota"),
        ("${dir//a/o}", "/doto"),
    ],
    "VEC-05": [
        (r"a\ b", "a b"),
        (r"x\$dir", "x$dir"),
        (r'"x\$dir"', "x$dir"),
        (r"'x\$dir'", r"x\$dir"),
        (r'"a\tb"', r"a\tb"),
    ],
    "VEC-06": [("$7x", "x"), ("$+", "$+")],
}  # fmt: skip


@row("VEC-01", "VEC-02", "VEC-04", "VEC-05", "VEC-06")
@pytest.mark.parametrize(
    ("text", "expected"),
    [pytest.param(*pair, id=f"{name} {pair[0]}") for name, pairs in VECTORS.items() for pair in pairs],
)
def test_vectors(text: str, expected: str) -> None:
    assert value(text) == expected


@row("VEC-03", "VEC-06")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${u:?need u}", "u: need u"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${u?}", "u: is not allowed to be unset"),
        ("${.}", "unsupported modifier (.) in substitution"),
        ("${}", "syntax error: bad substitution"),
        ("${dir", "syntax error: missing '}'"),
    ],
)
def test_error_vectors(text: str, expected: str) -> None:
    assert problem(text) == expected


@row("VEC-05", "VEC-07")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p $dir/q r", ("p", "/data/q", "r")),
        ('p "$name x" r', ("p", "web-07 x", "r")),
        ("p 'a b'c", ("p", "a bc")),
        (r"a\ b", ("a b",)),
    ],
)
def test_splitting_vectors(text: str, expected: tuple[str, ...]) -> None:
    assert expand_words(text, ENV)[0] == expected


@row("VEC-08")
def test_stage_vectors() -> None:
    with pytest.raises(PybuildError, match="variable expansion is not supported for --from"):
        converted("FROM a\nCOPY --from=$x a b\n")
    found = converted("FROM ${u:-alpine} AS X\n", target="x")
    assert found.stages == ("x",)
    (source,) = ops(found, "SourceOp")
    assert source.identifier.startswith("docker-image://docker.io/library/alpine:latest@")


@row("VEC-09")
def test_continuation_vector() -> None:
    found = converted("FROM a\nRUN a \\\n# note\n  b\nCOPY x y\n")
    assert history(found)[0] == "RUN /bin/sh -c a   b # buildkit"
    assert [copy.src for copy in copies(found)] == ["/x"]


@row("VEC-10")
def test_environment_vector() -> None:
    assert converted("FROM a\nENV x=q\nENV x=y z=$x\n").config.env[1:] == ("x=y", "z=q")
