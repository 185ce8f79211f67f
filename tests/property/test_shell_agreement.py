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
    "q": "it's \"so\"", "back": "one\\two", "dollar": "$a ${dir}",
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
            pattern(rng) if rng.random() < 0.8 else rng.choice(["$a", "${name}", "${unset:-*}", "${star}"])
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
        + rng.choice(["", "R", "$a", "$unset", "<>"])
        + "}"
    )


def default(rng, depth, *, replaces, quoted):
    """The word behind ``:-``: quotes inside double quotes differ between shells, so there are none there."""
    parts = [literal(rng)]
    if depth > 0 and rng.random() < 0.5:
        parts.append(variable(rng, depth, replaces=replaces, quoted=quoted))
    if not quoted and rng.random() < 0.3:
        parts.append(rng.choice(["'s $a }'", '"d $a"', "\\}", "\\$a"]))
    return "".join(parts)


def word(rng, *, replaces):
    parts = []
    for _ in range(rng.randrange(1, 5)):
        kind = rng.randrange(6)
        if kind == 0:
            parts.append(literal(rng))
        elif kind in (1, 2):
            parts.append(variable(rng, 2, replaces=replaces, quoted=False))
        elif kind == 3:
            parts.append("'" + rng.choice(["", "$a", "a b", 'x"y', "\\", "${dir}"]) + "'")
        elif kind == 4:
            inside = "".join(
                rng.choice([lambda: literal(rng), lambda: variable(rng, 2, replaces=replaces, quoted=True), lambda: rng.choice(["\\$a", '\\"', "\\\\", "\\x", "'", " ", "$ "])])()
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
