"""Shapes and checks of single instructions: rows SYN, FRM-01, FRM-02, HDC-08, MET-09, ONB-03."""

from __future__ import annotations

import subprocess
import sys

import pytest

from builder.frontend import instructions as i
from builder.frontend.errors import DockerfileError, suggestion
from builder.frontend.parser import Dockerfile, Nodes, parse, parse_nodes
from builder.frontend.syntax import check_frontend, detect_syntax


def one(line, escape=""):
    return parse(f"{escape}{line}".encode()).instructions[0]


def problem(line):
    with pytest.raises(DockerfileError) as caught:
        parse(line.encode())
    return caught.value


@pytest.mark.parametrize(
    ("line", "args", "shell"),
    [
        ("RUN a  b", ("a  b",), True),
        ("run echo a # b", ("echo a # b",), True),
        ('RUN ["a", "b c"]', ("a", "b c"), False),
        ('RUN [ "a" ]  ', ("a",), False),
        ("RUN ['a']", ("['a']",), True),
        ('RUN ["a"] x', ('["a"] x',), True),
        ('RUN ["a"', ('["a"',), True),
        ('RUN ["\\u00e9\\t"]', ("é\t",), False),
        ("CMD []", (), False),
        ("CMD", (), True),
        ("RUN -- --x", ("--x",), True),
        ("RUN a --network=x", ("a --network=x",), True),
    ],
)
def test_commands(line, args, shell):
    command = one(line).command
    assert (command.args, command.shell) == (args, shell)


@pytest.mark.parametrize(
    ("line", "items"),
    [
        ("ENV a=b c=d", (("a", "b"), ("c", "d"))),
        ("ENV a=b\\ c d='e f' g=\"h i\"", (("a", "b\\ c"), ("d", "'e f'"), ("g", '"h i"'))),
        ("ENV a  b=c  d", (("a", "b=c  d"),)),
        ("ENV a 'b c'", (("a", "'b c'"),)),
        ("ENV a=", (("a", ""),)),
        ('LABEL "a b"=c d=', (('"a b"', "c"), ("d", ""))),
        ("LABEL 'x y' z", (("'x", "y' z"),)),
        ('ARG a b=c d="e f"', (("a", None), ("b", "c"), ("d", '"e f"'))),
        ("ARG --x a", (("a", None),)),
    ],
)
def test_pairs(line, items):
    assert one(line).items == items


@pytest.mark.parametrize(
    ("line", "sources", "dest"),
    [
        ("COPY a b c/", ("a", "b"), "c/"),
        ('COPY ["a b", "c"]', ("a b",), "c"),
        ('COPY "a" b', ('"a"',), "b"),
        ("COPY [a b", ("[a",), "b"),
        ("COPY [a] b]", ("[a]",), "b]"),
        ("ADD --link a b", ("a",), "b"),
        ("COPY -- --a b", ("--a",), "b"),
    ],
)
def test_sources(line, sources, dest):
    found = one(line)
    assert (found.sources, found.dest) == (sources, dest)


def test_copy_flags():
    found = one("COPY --from=x --chown=1:2 --chmod=755 --link --exclude=a --exclude='b c' --parents s d")
    assert found[1:] == (("s",), "d", (), "1:2", "755", True, ("a", "b c"), "x", True)


def test_add_flags():
    found = one("ADD --keep-git-dir=false --checksum=sha256:x --unpack=TRUE s d")
    assert (found.keep_git_dir, found.checksum, found.unpack) == (False, "sha256:x", True)
    assert one("ADD s d").unpack is None


def test_run_flags():
    found = one(
        'RUN --mount=type=bind,from=x,source="a b",target=/t --network=none --security=insecure --device=g a'
    )
    assert (found.network, found.security, found.devices) == ("none", "insecure", ("g",))
    assert found.mounts == ("type=bind,from=x,source=a b,target=/t",)
    assert found.mount_sources == ("x",)


def test_from():
    found = one("from --platform=$P a:b As Build-1.x")
    assert (found.image, found.stage, found.platform) == ("a:b", "build-1.x", "$P")
    assert (found.as_typed, found.stage_typed, found.at.typed) == ("As", "Build-1.x", "from")


def test_backtick_escape():
    found = one('ENV a=b` c d="`"" e=f\\', "# escape=`\n")
    assert found.items == (("a", "b` c"), ("d", '"`""'), ("e", "f\\"))
    assert one('RUN ["c:\\\\x"]', "# escape=`\n").command.args == ("c:\\x",)


def test_healthcheck():
    found = one("HEALTHCHECK --interval=1m30s --timeout=.5s --retries=3 CMD curl x").check
    assert found.test == ("CMD-SHELL", "curl x")
    assert (found.interval_ns, found.timeout_ns, found.retries) == (90 * 10**9, 5 * 10**8, 3)
    assert one('HEALTHCHECK cmd ["a", "b"]').check.test == ("CMD", "a", "b")
    assert one("HEALTHCHECK --interval=1 none").check.test == ("NONE",)


def test_onbuild_keeps_the_text_of_its_trigger():
    found = one("ONBUILD  copy  a  b")
    assert found.expression == "copy  a  b"
    assert isinstance(found.trigger, i.Copy)
    assert one("ONBUILD RUN <<EOF\nx\nEOF\n").expression == "RUN <<EOF\nx\nEOF"


def test_heredoc_sources():
    found = one("COPY a <<b /c\nbody\nb\n")
    assert (found.sources, [h.content for h in found.heredocs]) == (("a",), ["body\n"])


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("RUNN a", "unknown-instruction", "dockerfile parse error on line 1: unknown instruction: RUNN (did you mean RUN?)"),
        ("foobar a", "unknown-instruction", "dockerfile parse error on line 1: unknown instruction: foobar"),
        ("ONBUILD RUNN a", "unknown-instruction", "unknown instruction: RUNN (did you mean RUN?)"),
        ("RUN [1]", "dockerfile-syntax", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("RUN", "dockerfile-syntax", "RUN requires at least one argument"),
        ("RUN []", "dockerfile-syntax", "RUN requires at least one argument"),
        ("SHELL a", "dockerfile-syntax", "SHELL requires the arguments to be in JSON form"),
        ("FROM a b", "dockerfile-syntax", "FROM requires either one or three arguments"),
        ("FROM a of b", "dockerfile-syntax", "FROM requires either one or three arguments"),
        ("FROM", "dockerfile-syntax", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", "dockerfile-syntax", 'invalid name for build stage: "1x"'),
        ("COPY a", "dockerfile-syntax", "COPY requires at least two arguments, but only one was provided. Destination could not be determined"),
        ("COPY a <<EOF\nx\nEOF\n", "dockerfile-syntax", "COPY cannot accept a heredoc as a destination"),
        ("COPY --from=$x a b", "bad-flag", "variable expansion is not supported for --from"),
        ("COPY --checksum=x a b", "dockerfile-syntax", "checksum can't be specified for COPY"),
        ("ENV a", "dockerfile-syntax", "ENV must have two arguments"),
        ("ENV a=b c", "dockerfile-syntax", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ("ENV =b", "dockerfile-syntax", "ENV names can not be blank"),
        ("LABEL", "dockerfile-syntax", "LABEL requires at least one argument"),
        ("ARG =b", "dockerfile-syntax", "ARG names can not be blank"),
        ("WORKDIR", "dockerfile-syntax", "WORKDIR requires exactly one argument"),
        ("VOLUME", "dockerfile-syntax", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "dockerfile-syntax", "VOLUME specified can not be an empty string"),
        ("COPY --frm=a b c", "bad-flag", "unknown flag: --frm (did you mean --from?)"),
        ("COPY --from=a --from=b c d", "bad-flag", "duplicate flag specified: --from"),
        ("COPY --from a b", "bad-flag", "missing a value on flag: --from"),
        ("COPY --link= a b", "bad-flag", "missing a value on flag: --link"),
        ("COPY --link=x a b", "bad-flag", "expecting boolean value for flag --link, not: x"),
        ("USER --x a", "bad-flag", "unknown flag: --x"),
        ("RUN --network=x a", "dockerfile-syntax", 'invalid network mode "x"'),
        ("RUN --security=x a", "dockerfile-syntax", 'security "x" is not valid'),
        ("HEALTHCHECK", "dockerfile-syntax", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK CMD", "dockerfile-syntax", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE a", "dockerfile-syntax", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK X a", "dockerfile-syntax", 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --interval=1us CMD a", "dockerfile-syntax", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --interval=1 CMD a", "dockerfile-syntax", 'time: invalid duration "1"'),
        ("HEALTHCHECK --retries=-1 CMD a", "dockerfile-syntax", "--retries cannot be negative (-1)"),
        ("ONBUILD", "dockerfile-syntax", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN a", "dockerfile-syntax", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM a", "dockerfile-syntax", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD MAINTAINER a", "dockerfile-syntax", "MAINTAINER isn't allowed as an ONBUILD trigger"),
    ],
)  # fmt: skip
def test_refused(line, code, message):
    found = problem(line)
    assert found.code == code
    assert message in found.message
    assert found.message.startswith("dockerfile parse error on line 1: ")
    assert found.span is not None
    assert found.span.start == 1
    assert found.source_lines[0] == line.split("\n")[0]


def test_errors_name_their_lines():
    found = problem("FROM a\n\nRUN b \\\n c\nCOPY \\\n a\n")
    assert (found.span.start, found.span.end) == (5, 6)


def test_names_are_compared_without_case():
    assert [type(x).__name__ for x in parse(b"from a\nRun b\nCMD c\n").instructions] == ["From", "Run", "Cmd"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("RUM", " (did you mean RUN?)"),
        ("xyzzy", ""),
        ("run", " (did you mean RUN?)"),
        ("RUN", ""),
        ("", ""),
        ("COPPY", " (did you mean COPY?)"),
    ],
)
def test_suggestions(word, expected):
    assert suggestion(word, ["RUN", "COPY", "FROM"]) == expected


def test_nodes_survive_storage():
    data = b'# escape=`\n# hi\nFROM a\nRUN x `\n\n y <<E\nbody \xff\nE\nONBUILD COPY ["a"] b\nHEALTHCHECK CMD x\n'
    nodes = parse_nodes(data)
    again = Nodes.from_bytes(nodes.to_bytes())
    assert again == nodes
    assert Dockerfile.from_nodes(again, data).instructions == parse(data).instructions


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"[1,[],[],[]]", b"{}", b'[2,["a"],[],[]]'])
def test_unusable_stored_nodes(data):
    with pytest.raises(DockerfileError):
        Nodes.from_bytes(data)


def test_a_stored_parse_needs_no_lark():
    nodes = parse_nodes(b"FROM scratch\nCOPY a b\n").to_bytes()
    code = (
        "import sys\n"
        "from builder.frontend.convert import convert\n"
        "from builder.frontend.parser import Dockerfile, Nodes\n"
        "from tests.support.dockerfiles import FakeResolver, options\n"
        f"found = Dockerfile.from_nodes(Nodes.from_bytes({nodes!r}), b'FROM scratch\\nCOPY a b\\n')\n"
        "convert(found, options(), FakeResolver())\n"
        "heavy = {'lark', 'networkx', 'requests', 'subprocess', 'socket', 'threading', 'ctypes', 'sqlite3'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=".")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"# syntax=docker/dockerfile:1\nFROM a", "docker/dockerfile:1"),
        (b"#!/bin/x\n#syntax = a/b c\n", "a/b c"),
        (b"// syntax=a\n", "a"),
        (b'{"syntax": "a"}', "a"),
        (b"# escape=`\n# syntax=a\n", "a"),
        (b"# other\n# syntax=a\n", None),
        (b"FROM a\n", None),
        (b"{", None),
        (b"", None),
    ],
)
def test_syntax_detection(text, expected):
    assert detect_syntax(text) == expected


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "docker/dockerfile:1",
        "docker.io/docker/dockerfile-upstream:master-labs",
        "r:5000/docker/dockerfile@sha256:x",
        "dockerfile.v0",
    ],
)
def test_the_dockerfile_frontend_is_this_one(ref):
    check_frontend(ref)


@pytest.mark.parametrize("ref", ["evil/frontend", "docker/dockerfilex", "dockerfile"])
def test_other_frontends_are_refused(ref):
    with pytest.raises(DockerfileError) as caught:
        check_frontend(ref)
    assert caught.value.code == "unsupported-frontend"
