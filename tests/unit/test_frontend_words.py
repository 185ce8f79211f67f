"""Expansion: rows EXP and the vectors of section 25."""

from __future__ import annotations

import pytest

from builder.frontend.errors import ExpansionProblem
from builder.frontend.words import expand, expand_words

ENV = {"dir": "/data", "name": "web-07", "empty": "", "é": "e", "many": "a  b", "x_1": "u", "0": "zero"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a$dir.x", "a/data.x"),  # VEC-01
        ("a${dir}x", "a/datax"),
        ('"$dir/$name"', "/data/web-07"),
        ("'$dir'", "$dir"),
        ("${u:-z}", "z"),  # VEC-02
        ("${empty:-z}", "z"),
        ("${empty-z}", ""),
        ("${dir:+y}", "y"),
        ("${empty:+y}", ""),
        ("${empty+y}", "y"),
        ("${u:-${dir}}", "/data"),
        ("${name#web-}", "07"),  # VEC-04
        ("${name%-*}", "web"),
        ("${dir##*a}", ""),
        ("${dir#*a}", "ta"),
        ("${dir/a/o}", "/dota"),
        ("${dir//a/o}", "/doto"),
        (r"a\ b", "a b"),  # VEC-05
        (r"x\$dir", "x$dir"),
        (r'"x\$dir"', "x$dir"),
        (r"'x\$dir'", r"x\$dir"),
        (r'"a\tb"', r"a\tb"),
        ("$1x", "x"),  # VEC-06
        ("$+", "$+"),
        ("$12abc", "abc"),
        ("$@$*$#$?$-$$$!", ""),
        ("$0", "zero"),
        ("$", "$"),
        ("$ a", "$ a"),
        ("$é", "e"),
        ("$x_1", "u"),
        ("a\\", "a"),
        (r"a\tb", "atb"),
        ("\"a\"b'c'", "abc"),
        ('""', ""),
        (r'"\""', '"'),
        (r'"\\"', "\\"),
        ("${u}", ""),
        ("${u+y}", ""),
        ("${u:-a b}", "a b"),
        ("${u:-'a}'}", "a}"),
        ("${u:-\\}}", "}"),
        ("${name%%-*}", "web"),
        ("${name%x}", "web-07"),
        ("${name#*}", "web-07"),
        ("${name##*}", ""),
        ("${name%?}", "web-0"),
        ("${name/e?/X}", "wX-07"),
        ("${name/w*/X}", "X"),
        ("${name/#/X}", "web-07"),
        ("${name//[/X}", "web-07"),
        ("${name/$x_1/X}", "web-07"),
        ("${dir//a/\\$1}", "/d\\$1t\\$1"),
        ("${dir//\\//\\/}", "\\/data"),
        ("${dir#\\/}", "data"),
        ("$012", ""),
        ("${empty/a/b}", ""),
        ("${u/a/b}", ""),
        ("${u#a}", ""),
    ],
)
def test_expansion(text, expected):
    assert expand(text, ENV).text == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${u:?need u}", "u: need u"),  # VEC-03
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${u?}", "u: is not allowed to be unset"),
        ("${.}", "unsupported modifier (.) in substitution"),  # VEC-06
        ("${}", "syntax error: bad substitution"),
        ("${:-a}", "syntax error: bad substitution"),
        ("${{a}", "syntax error: bad substitution"),
        ("${dir", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${dir:=x}", "unsupported modifier (:=) in substitution"),
        ("${dir:#x}", "unsupported modifier (:#) in substitution"),
        ("${dir:x}", "unsupported modifier (:x) in substitution"),
        ("${dir/a}", "syntax error: missing '/' in ${}"),
        ("${dir:-a", "syntax error: missing '}'"),
        ('${dir:-"a', "syntax error: missing '}'"),
        ("${dir/a/b", "syntax error: missing '}'"),
        ("${name#\\web}", "invalid escape '\\w'"),
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ('"a', "unexpected end of statement while looking for matching double-quote"),
    ],
)
def test_problems(text, message):
    with pytest.raises(ExpansionProblem) as caught:
        expand(text, ENV)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert caught.value.message == f'failed to process "{quoted}": {message}'
    assert caught.value.code == "expansion-problem"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p $dir/q r", ("p", "/data/q", "r")),  # VEC-07
        ('p "$name x" r', ("p", "web-07 x", "r")),
        ("p 'a b'c", ("p", "a bc")),
        ("$many", ("a", "b")),
        ('"$many"', ("a  b",)),
        ("x$many", ("xa", "b")),
        ("$empty", ()),
        ('""', ("",)),
        (r"a\ b c", ("a b", "c")),
        ("  a   b ", ("a", "b")),
    ],
)
def test_splitting(text, words):
    assert expand_words(text, ENV)[0] == words


@pytest.mark.parametrize(
    ("text", "modes", "expected"),
    [
        ("a \"$name\" '$name'", {"raw_quotes": True}, "a \"web-07\" '$name'"),
        ("$u ${u} ${u:-x} $name", {"skip_unset": True}, "$u ${u} ${u:-x} web-07"),
        ("${u#a} ${u//a/b}", {"skip_unset": True}, "${u#a} ${u//a/b}"),
        ('it\'s "$name" \\$x', {"no_quotes": True}, 'it\'s "web-07" $x'),
        (r"a\tb \$name", {"raw_escapes": True}, r"a\tb \$name"),
    ],
)
def test_modes(text, modes, expected):
    assert expand(text, ENV, **modes).text == expected


def test_the_escape_character_can_be_a_backtick():
    assert expand(r"c:\x`$dir$dir", ENV, "`").text == r"c:\x$dir/data"


def test_matched_and_unmatched_names():
    found = expand("$dir ${name} $u ${v} ${w:-x} ${z:+y} '$q' ${empty:+$k}", ENV)
    assert found.matched == {"dir", "name", "empty"}
    assert found.unmatched == {"u", "v", "w", "z", "k"}


def test_hostile_nesting_and_growth_are_refused():
    with pytest.raises(ExpansionProblem):
        expand("${a:-" * 5000, ENV)
    big = {"a": "x" * 1_000_000}
    with pytest.raises(ExpansionProblem):
        expand("$a" * 20, big)


def test_patterns_are_never_slow():
    value = {"a": "a" * 2000}
    assert expand("${a##" + "*a" * 30 + "*b}", value).text == value["a"]
