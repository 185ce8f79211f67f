"""``${…}`` and quotes mean what they mean to real shells, for the forms that Dockerfiles and shells share.

Every shell gets one script with all cases: ``r=WORD; printf '%s\\0' "$r"``. An assignment is neither split nor
globbed, as in a Dockerfile. Cases come from fixed seeds; what only some shells know (``/``) is asked of those.
"""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess

import pytest

from builder.frontend.errors import ExpansionProblem
from builder.frontend.words import expand

pytestmark = pytest.mark.property

ENV = {
    "a": "x", "dir": "/data/app/data", "name": "web-07.tar.gz", "empty": "", "sp": "two  words", "star": "a*b?c",
    "q": "it's \"so\"", "back": "one\\two", "dollar": "$a ${dir}", "end": "x}", "sub": "/x/y",
}  # fmt: skip
NAMES = [*ENV, "unset"]
CASES = 1500

SHELLS = [
    pytest.param(command, replaces, id="-".join(command[:2]).replace("---", "-"))
    for command, replaces in (
        (["dash"], False),
        (["busybox", "sh"], False),  # its "//" with a pattern that matches nothing never ends
        (["bash", "--norc", "--noprofile"], True),
        (["bash", "--posix"], True),
    )
]


def literal(rng):
    return "".join(rng.choice("abtx07./-_:=,") for _ in range(rng.randrange(4)))


def pattern(rng):
    return "".join(
        rng.choice(["*", "?", "a", "t", "/", ".", "-", "web", "data", "\\*", "\\?", "0"])
        for _ in range(rng.randrange(1, 4))
    )


def variable(rng, depth, *, replaces, quoted):
    name = rng.choice(NAMES)
    kind = rng.randrange(8 if replaces else 7)
    if kind == 0:
        # the name must end here
        return f"${name}" + rng.choice(["/", ".", "-", ":", ","])
    if kind in (1, 2):
        return "${" + name + "}"
    if kind in (3, 4):
        operator = rng.choice([":-", "-", ":+", "+"])
        return "${" + name + operator + default(rng, depth - 1, replaces=replaces, quoted=quoted) + "}"
    if kind in (5, 6):
        operator = rng.choice(["#", "##", "%", "%%"])
        inside = (
            pattern(rng)
            if rng.random() < 0.8
            else rng.choice(
                ["$a", "${name}", "${unset:-*}", "${star}", "*${a:+${unset-t}}", '"/"', "'-'", "\\}"]
            )
        )
        return "${" + name + operator + inside + "}"
    # a plain pattern: shells disagree about what an escape in it means
    found = "".join(
        rng.choice(["*", "?", "a", "t", ".", "-", "web", "0"]) for _ in range(rng.randrange(1, 4))
    )
    return (
        "${"
        + name
        + rng.choice(["/", "//"])
        + found
        + "/"
        + rng.choice(["", "R", "$a", "$unset", "<>", '"b c"', "'o'", "${name%%.*}", "${unset:-${a}}"])
        + "}"
    )


def default(rng, depth, *, replaces, quoted):
    """The word behind ``:-``: single quotes inside double quotes differ between shells and Dockerfiles."""
    parts = [literal(rng)]
    if depth > 0 and rng.random() < 0.6:
        parts.append(variable(rng, depth, replaces=replaces, quoted=quoted))
    if rng.random() < 0.3:
        parts.append(rng.choice(["\\}", "\\$a", "\\\\", '\\"', '"d $a"', '"in ${unset:-"$a b"}"']))
    if not quoted and rng.random() < 0.3:
        parts.append(rng.choice(["'s $a }'", "'\"'", "\\a", "\\'", '"}"', '"it\'s"']))
    return "".join(parts)


def word(rng, *, replaces):
    parts = []
    for _ in range(rng.randrange(1, 5)):
        kind = rng.randrange(6)
        if kind == 0:
            parts.append(literal(rng))
        elif kind in (1, 2):
            parts.append(variable(rng, 3, replaces=replaces, quoted=False))
        elif kind == 3:
            parts.append("'" + rng.choice(["", "$a", "a b", 'x"y', "\\", "${dir}"]) + "'")
        elif kind == 4:
            inside = "".join(
                rng.choice([lambda: literal(rng), lambda: variable(rng, 3, replaces=replaces, quoted=True), lambda: rng.choice(["\\$a", '\\"', "\\\\", "\\x", "'", " ", "$ "])])()
                for _ in range(rng.randrange(4))
            )  # fmt: skip
            parts.append(f'"{inside} "')
        else:
            parts.append(rng.choice(["\\$a", "\\\\", "\\'", '\\"', "\\ ", "\\a", "\\*"]))
    return "".join(parts)


def ours(text):
    try:
        return expand(text, ENV).text
    except ExpansionProblem:
        return None


@pytest.mark.parametrize(("shell", "replaces"), SHELLS)
@pytest.mark.parametrize("seed", [1, 2])
def test_expansion_agrees_with_the_shell(shell, replaces, seed):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"needs {shell[0]}")
    rng = random.Random(f"{seed}")
    words = [word(rng, replaces=replaces) for _ in range(CASES)]
    lines = [f"{name}={shlex.quote(value)}" for name, value in ENV.items()]
    lines += [f"r={text}; printf '%s\\0' \"$r\"" for text in words]
    done = subprocess.run(
        shell,
        input="\n".join(lines).encode(),
        capture_output=True,
        timeout=60,
        check=False,
        env={"LC_ALL": "C.UTF-8"},
    )
    theirs = done.stdout.decode().split("\0")
    assert done.returncode == 0, done.stderr.decode()
    assert len(theirs) == len(words) + 1
    differ = [
        (text, ours(text), found) for text, found in zip(words, theirs, strict=False) if ours(text) != found
    ]
    assert not differ, f"seed {seed}: {len(differ)} differ:\n" + "\n".join(map(repr, differ[:20]))


def words_of(table):
    """The words of a table, which stand two blanks apart."""
    return [text for line in table.strip().split("\n") for text in line.split("  ")]


SHARED = words_of(r"""
${unset:-${empty:-${unset-${a:+deep}}}}  ${a:+${a:+${a}}}  ${unset:-${unset:?no}}  ${unset-}  ${unset:-}
${empty-x}  ${empty:-x}  ${empty+x}  ${empty:+x}  ${a+}  ${unset+x}  ${unset:-"a b"}  ${unset:-'a b'}
${unset:-a\ b}  ${unset:-"}"}  ${unset:-'}'}  ${unset:-\}}  ${unset:-a}b}  ${unset:-'${a}'}  ${unset:-\"}
${unset:-\'}  ${unset:-\\}  ${unset:-$}  "${unset:-a b}"  "${unset:-"a  b"}"  "${unset:-\}}"  "${unset:-\"}"
"${unset:-\\}"  "${unset:-\$a}"  "${a:+"$a"}"  ${dir#}  ${dir%}  ${dir#*}  ${dir##*}  ${dir%*}  ${dir%%*}
${dir#/data/app/data}  ${dir%nothing}  "${dir#"/"}"  "${dir#'/'}"  "${dir#\/}"  ${name#web-??}  ${name%???}
${name#?}  ${name%%?*}  ${star#a\*}  ${star%\?c}  ${star#a\*b\?}  ${back#one\\}  ${back%\\*}  ${q#"it's"}
${q#it?s}  ${end%\}}  ${end%"}"}  ${end%'}'}  ${dir##*"/"}  ${dir%'/'*}  $a$dir  $a_b  ${a}_b  $1  ${1}  $@
$*  $  $.  $+  $/  "$"  "$."  "'$a'"  '"$a"'  "a$a"'$a'$a  ""''  "a b"\ c  'it'\''s'  \a  \"  ?  [ab]
""")
REPLACED = words_of(r"""
${dir/a/o}  ${dir//a/o}  ${dir/data/}  ${dir//data/}  ${dir/\//_}  ${dir//\//_}  ${dir/a*a/X}  ${dir//a?/X}
${dir/*/X}  ${dir//*/X}  ${dir/nothing/X}  ${dir//\/data/X}  ${dir/a/$a}  ${dir/a/'$a'}  ${dir/"a"/o}
${dir/'a'/o}  ${dir/$unset/X}  ${dir//$unset/X}  ${dir/d$unset/X}  ${empty/a/b}  ${empty/*/b}  ${empty//*/b}
${unset/a/b}  ${dir//?/X}  ${star/\*/X}  ${star/a*b/X}  ${dir/a/}  ${dir/${a}/y}  ${dir/${unset:-a}/y}
${dir/a/${name%%.*}}  ${dir/a/${unset:-${a}}}  ${back/\\/X}  ${end/\}/X}  "${dir/a/"o"}"  "${dir/a/'o'}"
${dir/$sub/X}  ${uni#na?ve}  ${uni%??}  ${uni##*-}  ${uni/é/e}  ${uni//é/e}  ${uni/??/X}  ${uni//?/.}
${uni#naï}
""")
"""Only bash can replace, and only it counts characters where others count bytes."""

DIFFERENT = [
    # The language has fewer forms (EXP-01, EXP-03): lengths, assignments, slices, cases, and `/` without an end.
    ("${#dir}", None, "14"), ("${a:=y}", None, "x"), ("${unset=y}", None, "y"), ("${dir:1:2}", None, "da"),
    ("${dir^^}", None, "/DATA/APP/DATA"), ("${dir@Q}", None, "'/data/app/data'"), ("${dir/a}", None, "/dta/app/data"),
    # What stands behind an operator is always looked at, even when nobody needs it (EXP-01).
    ("${a:-${unset:?no}}", None, "x"),
    # No bracket classes, and only `*`, `?` and the escape itself can be escaped (EXP-08).
    ("${name#[wx]}", "web-07.tar.gz", "eb-07.tar.gz"), ("${name#[!x]}", "web-07.tar.gz", "eb-07.tar.gz"),
    ("${brk#a[b]}", "c", "a[b]c"), (r"${brk#a\[b\]}", None, "c"), (r"${q#it\'s}", None, ' "so"'), (r"${sp//\ /_}", None, "two__words"),
    # Quotes in a pattern are removed, and do not make its wildcards literal: an escape does (EXP-08).
    ("${star##'a*'}", "", "b?c"), ('${star##"a*"}', "", "b?c"), ("${star/'*'/X}", "X", "aXb?c"),
    # `#` and `%` before a pattern to replace are characters, `&` in a replacement is one (EXP-08, EXP-09).
    (r"${dir/#\/data/X}", "/data/app/data", "X/app/data"), ("${dir/%data/X}", "/data/app/data", "/data/app/X"),
    ("${dir/a/&}", "/d&ta/app/data", "/data/app/data"),
    # Escapes in a replacement stay, as in the reference (EXP-09).
    (r"${dir/a/\/}", r"/d\/ta/app/data", "/d/ta/app/data"), (r"${dir/a/\\}", r"/d\\ta/app/data", r"/d\ta/app/data"),
    # Quotes inside braces are quotes also within double quotes, and escapes there are those of unquoted text (EXP-06).
    ("\"${unset:-'a'}\"", "a", "'a'"), (r'"${unset:-\a}"', "a", r"\a"), ("\"${unset:-\\'}\"", "'", r"\'"),
    # Parameters of a shell that a Dockerfile has not (EXP-04); numbers are taken whole.
    ("$?", "", "0"), ("$#", "", "0"), ("${#}", "", "0"), ("$10", "", "0"), ("$0", "", "bash"),
    ("$aé", "", "xé"), ("$'a'", "$a", "a"), ('$"a"', "$a", "a"),
    # No command or arithmetic substitution, no home directory; a backtick is a character (EXP-06).
    ("$((1+2))", "$((1+2))", "3"), ("~", "~", "/home/h"), (r'"\`"', r"\`", "`"), ("$(echo)y", "$(echo)y", "y"),
]  # fmt: skip
MORE = {"uni": "naïve-été-日本", "brk": "a[b]c"}


def told(shell, words):
    """What a shell makes of each word; None where it fails."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in {**ENV, **MORE}.items()]
    lines += [
        f"(eval {shlex.quote(f'r={text}')} && printf '%s\\0' \"$r\") || printf '\\001\\0'" for text in words
    ]
    done = subprocess.run(
        shell,
        input="\n".join(lines).encode(),
        capture_output=True,
        timeout=60,
        check=False,
        env={"LC_ALL": "C.UTF-8", "HOME": "/home/h"},
    )
    found = done.stdout.decode().split("\0")[:-1]
    return {text: None if value == "\1" else value for text, value in zip(words, found, strict=True)}


def of_table(text):
    try:
        return expand(text, {**ENV, **MORE}).text
    except ExpansionProblem:
        return None


@pytest.mark.parametrize(("shell", "replaces"), SHELLS)
def test_every_shared_form(shell, replaces):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"needs {shell[0]}")
    found = told(shell, [*SHARED, *(REPLACED if replaces else ())])
    assert len(found) > 80
    assert {text: of_table(text) for text in found} == found


def test_where_the_language_is_not_a_shell():
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    found = told(["bash", "--norc", "--noprofile"], [text for text, _, _ in DIFFERENT])
    for text, meant, theirs in DIFFERENT:
        assert (of_table(text), found[text]) == (meant, theirs), text
        assert meant != theirs


@pytest.mark.parametrize(
    "text", ["${unset:?}", "${unset?}", "${empty:?}", "${unset:?say $a}", "${dir:?no}", "${empty?no}"]
)
@pytest.mark.parametrize(("shell", "replaces"), SHELLS)
def test_demanded_values_fail_where_the_shell_fails(shell, replaces, text):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"needs {shell[0]}")
    lines = [f"{name}={shlex.quote(value)}" for name, value in ENV.items()]
    script = "\n".join([*lines, f"r={text}", "exit 0"])
    done = subprocess.run(shell, input=script.encode(), capture_output=True, timeout=60, check=False)
    assert (done.returncode == 0) == (ours(text) is not None)
