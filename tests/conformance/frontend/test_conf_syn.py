"""Instruction syntax, flags and here-documents: rows SYN and HDC."""

from __future__ import annotations

from typing import Any

import pytest

from builder.errors import PybuildError
from builder.frontend.parser import parse
from builder.llb.ops import MkFile, Mount
from builder.oci.platform import Platform
from tests.support.buildlab import Lab
from tests.support.dockerfiles import FakeResolver, base_image, converted, copies, execs, history, names, ops
from tests.support.rows import row


def message(line: str, resolver: FakeResolver | None = None) -> str:
    """The complaint about a line after ``FROM a``, which must stand there with its wrapper."""
    with pytest.raises(PybuildError) as caught:
        converted(f"FROM a\n{line}\n", resolver)
    return caught.value.message.removeprefix("dockerfile parse error on line 2: ")


def after(lines: str) -> Any:
    return converted(f"FROM a\n{lines}\n")


def argv(line: str) -> tuple[str, ...]:
    return execs(after(line))[-1].meta.args


def files(conversion: Any) -> list[MkFile]:
    return [
        item.action
        for op in ops(conversion, "FileOp")
        for item in op.actions
        if isinstance(item.action, MkFile)
    ]


SHELL = ("/bin/sh", "-c")
NO_DESTINATION = (
    "requires at least two arguments, but only one was provided. Destination could not be determined"
)


@row("SYN-01")
def test_names_in_any_case_and_any_blank() -> None:
    for text in ("run b", "RuN\tb", "RUN\vb", "RUN\fb", "RUN \t  b"):
        found = after(text)
        assert execs(found)[0].meta.args == (*SHELL, "b")
    typed = [item.at.typed for item in parse(b"from a\nRun b\n").instructions]
    assert typed == ["from", "Run"]


@row("SYN-02")
def test_unknown_instructions() -> None:
    with pytest.raises(PybuildError) as caught:
        converted("FROM a\n\nCOPPY a b\n")
    assert (
        caught.value.message
        == "dockerfile parse error on line 3: unknown instruction: COPPY (did you mean COPY?)"
    )
    assert message("frobnicate x") == "unknown instruction: frobnicate"
    assert message("wrkdir x") == "unknown instruction: wrkdir (did you mean WORKDIR?)"
    with pytest.raises(PybuildError) as caught:
        converted("FROM a\nRUN b \\\n c\nSHELL x\n")
    assert caught.value.message.startswith("dockerfile parse error on line 4: SHELL ")
    for line, char in (("LABEL\u00a0a=b", "NO-BREAK SPACE"), ("\u200bLABEL a=b", "ZERO WIDTH SPACE")):
        with pytest.raises(PybuildError) as caught:
            converted(f"FROM a\n{line}\n")
        assert line.split(" ")[0] in caught.value.message, "only blanks of ASCII end a name"
        assert char in str(caught.value.hint), "what cannot be seen is named"


@row("SYN-03")
def test_every_instruction_has_its_grammar() -> None:
    config = after('CMD a  "b"').config
    assert config.cmd == (*SHELL, 'a  "b"')
    assert after('CMD ["a", "b"]').config.cmd == ("a", "b")
    assert after('ENTRYPOINT ["a"]').config.entrypoint == ("a",)
    assert after("ENTRYPOINT a b").config.entrypoint == (*SHELL, "a b")
    assert after('SHELL ["x", "y"]\nRUN z').config.shell == ("x", "y")
    assert argv('RUN ["a", "b c"]') == ("a", "b c")
    assert [copy.src for copy in copies(after("COPY a b c/"))] == ["/a", "/b"]
    assert [copy.src for copy in copies(after('ADD ["a b", "c/"]'))] == ["/a b"]
    assert sorted(after("VOLUME /a /b").config.volumes) == ["/a", "/b"]
    assert sorted(after('VOLUME ["/a b"]').config.volumes) == ["/a b"]
    assert sorted(after("EXPOSE 1 2/udp").config.exposed_ports) == ["1/tcp", "2/udp"]
    assert after('ENV a=b c="d e"').config.env[1:] == ("a=b", "c=d e")
    assert dict(after("LABEL a=b 'c d'=e").config.labels) == {"a": "b", "c d": "e"}
    assert execs(after('ARG a="b c" d\nRUN r'))[0].meta.env[1:] == ("a=b c",)
    assert after("WORKDIR /a b").config.workdir == "/a b"
    assert after("USER a b").config.user == "a b"
    assert after("STOPSIGNAL SIGTERM").config.stop_signal == "SIGTERM"
    assert after("MAINTAINER a <b>").config.author == "a <b>"
    assert after("ONBUILD RUN x  y").config.on_build == ("RUN x  y",)
    assert after("HEALTHCHECK CMD a b").config.healthcheck.test == ("CMD-SHELL", "a b")
    assert after('HEALTHCHECK CMD ["a", "b"]').config.healthcheck.test == ("CMD", "a", "b")


@row("SYN-04")
def test_json_or_not() -> None:
    for text in ("['a']", '["a"', '["a"] # b', "[NaN]", '["a",]'):
        assert argv(f"RUN {text}") == (*SHELL, text)
    assert argv(r'RUN [ "a\tb", "\u00e9" ] ') == ("a\tb", "é")
    for text in ('["a", 1]', "[null]", '[["a"]]', "[true]"):
        expected = "when using JSON array syntax, arrays must be comprised of strings only"
        assert message(f"RUN {text}") == expected


@row("SYN-05")
def test_flags_stand_first() -> None:
    (copy,) = copies(after("COPY --chmod=\"6\"44 --exclude='a b' --exclude=c\\ d x y"))
    assert copy.src == "/x"
    assert "a b" in "".join(copy.exclude_patterns)
    assert "c d" in "".join(copy.exclude_patterns)
    assert [copy.src for copy in copies(after("COPY -- --chmod=644 b/"))] == ["/--chmod=644"]
    assert argv("RUN -- --x") == (*SHELL, "--x")
    assert argv("RUN a --mount=x") == (*SHELL, "a --mount=x")
    assert argv("RUN --network=none a") == (*SHELL, "a")


@row("SYN-06")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COPY --foobar=1 a b", "unknown flag: --foobar"),
        ("COPY --form=x a b", "unknown flag: --form (did you mean --from?)"),
        ("RUN --chown=x a", "unknown flag: --chown"),
        ("WORKDIR --x /a", "unknown flag: --x"),
        ("COPY --from=a --from=b a b", "duplicate flag specified: --from"),
        ("COPY --link --link a b", "duplicate flag specified: --link"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --link=yes a b", "expecting boolean value for flag --link, not: yes"),
    ],
)
def test_flag_errors(line: str, expected: str) -> None:
    assert message(line) == expected


@row("SYN-06")
def test_flags_that_are_fine() -> None:
    for flag in ("--link", "--link=TRUE", "--link=false", "--chown=", "--from="):
        assert copies(after(f"COPY {flag} a b"))[0].src == "/a"
    assert len(execs(after("RUN --mount=target=/a --mount=target=/b x"))[0].mounts) == 3
    assert converted("FROM --platform= a\n").target == "stage-0"


@row("SYN-07")
def test_instructions_that_swallow_flags() -> None:
    assert execs(after("ARG --x --y=z a=b\nRUN r"))[0].meta.env[1:] == ("a=b",)
    assert after("STOPSIGNAL --x SIGINT").config.stop_signal == "SIGINT"
    assert after("HEALTHCHECK --bad --interval=x NONE").config.healthcheck.test == ("NONE",)


@row("SYN-08")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *(
            (f"{name}", f"{name} requires at least one argument")
            for name in ("ENV", "LABEL", "ARG", "EXPOSE")
        ),
        *(
            (f"{name}", f"{name} requires at least one argument")
            for name in ("VOLUME", "HEALTHCHECK", "SHELL")
        ),
        *((name, f"{name} requires exactly one argument") for name in ("WORKDIR", "USER", "STOPSIGNAL")),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        *((f"{name} a", f"{name} {NO_DESTINATION}") for name in ("ADD", "COPY")),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS b c", "FROM requires either one or three arguments"),
        ("FROM a IS b", "FROM requires either one or three arguments"),
    ],
)
def test_argument_counts(line: str, expected: str) -> None:
    assert message(line) == expected


@row("SYN-09")
def test_names_and_values() -> None:
    assert after('ENV a b "c"  $PATH=x').config.env[1:] == ("a=b c  /usr/bin:/bin=x",)
    assert after("LABEL a b  c").config.labels == (("a", "b  c"),)
    assert message("ENV a") == "ENV must have two arguments"
    assert message("LABEL a") == "LABEL must have two arguments"
    expected = 'Syntax error - can\'t find = in "c". Must be of the form: name=value'
    assert message("ENV a=b c") == message("LABEL a=b c") == expected
    assert message("ENV =b") == "ENV names can not be blank"
    assert message("LABEL a=b =c") == "LABEL names can not be blank"


@row("SYN-10")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ('a="b c" d=e', ("a=b c", "d=e")),
        (r"a=b\ c d=e", ("a=b c", "d=e")),
        (r"a='b\' c=d", ("a=b\\", "c=d")),
        ('a="" b=c', ("a=", "b=c")),
        ("a=''\tb=\"x'y\"", ("a=", "b=x'y")),
        ('a=b"c d"e', ("a=bc de",)),
        ("a=b\\\\\\", ("a=b\\",)),
        (r'a="b\"c" d=e', ('a=b"c', "d=e")),
    ],
)
def test_words_of_names_and_values(words: str, expected: tuple[str, ...]) -> None:
    assert after(f"ENV {words}").config.env[1:] == expected
    assert execs(after(f"ARG {words}\nRUN r"))[0].meta.env[1:] == expected


@row("SYN-11")
def test_paths_are_split_at_blanks_only() -> None:
    assert [copy.src for copy in copies(after('COPY "a" b'))] == ["/a"]
    assert [copy.src for copy in copies(after('COPY ["a b", "c"]'))] == ["/a b"]
    assert [copy.src for copy in copies(after("COPY a\\ b c/"))] == ["/a", "/b"]
    assert sorted(after("VOLUME '/a' \"/b\"").config.volumes) == ["/a", "/b"]
    assert "looking for matching double-quote" in message('COPY "a b" c/')


@row("SYN-12")
def test_names_show_the_joined_line_without_bodies() -> None:
    found = after("RUN a \\\n# x\n   b\nCOPY <<E /x\nbody\nE")
    assert names(found)[1] == "[2/3] RUN a    b"
    assert names(found)[-1] == "[3/3] COPY <<E /x"
    assert history(found)[0] == "RUN /bin/sh -c a    b # buildkit"
    assert "body" not in "".join(history(found))


# Here-documents


@row("HDC-01")
def test_where_heredocs_are_recognised() -> None:
    found = files(after("COPY <<A <<B /d/\n1\nA\n2\nB\nADD <<C /c\n3\nC"))
    assert [(item.path, item.data) for item in found] == [("/A", b"1\n"), ("/B", b"2\n"), ("/C", b"3\n")]
    assert argv("RUN <<E\nx\nE") == (*SHELL, "x\n")
    assert after("ONBUILD RUN <<E\nx\nE").config.on_build == ("RUN <<E\nx\nE",)
    assert message("RUN <<E\nx") == "unterminated heredoc"
    assert message("COPY <<A <<B /d/\n1\nB") == "unterminated heredoc"
    assert after("CMD cat <<E").config.cmd == (*SHELL, "cat <<E")


@row("HDC-02")
def test_bodies_are_verbatim() -> None:
    body = "a \\\n# no comment\n\n  b # c\nENV x\n"
    assert argv(f"RUN <<E\n{body}E") == (*SHELL, body)


@row("HDC-03")
def test_tabs_are_stripped_where_asked() -> None:
    assert argv("RUN <<-E\n\t\ta\n  b\n\tE") == (*SHELL, "a\n  b\n")
    assert files(after("COPY <<-E /x\n\t \ta\n\t\tE"))[0].data == b" \ta\n"
    assert message("RUN <<-E\nx\n  E") == message("RUN <<E\nx\n\tE") == "unterminated heredoc"


@row("HDC-04")
def test_quoted_words_are_not_expanded() -> None:
    for word in ("'E'", '"E"', "E''", "\\E"):
        assert files(after(f"ENV v=1\nCOPY <<{word} /x\n$v\nE"))[0].data == b"$v\n", word
    assert files(after("ENV v=1\nCOPY <<E /x\n$v ${u:-2}\nE"))[0].data == b"1 2\n"
    assert argv("ENV v=1\nRUN <<E\n$v\nE") == (*SHELL, "$v\n")


@row("HDC-01", "HDC-04", "HDC-07", "HDC-08")
def test_a_quoted_word_may_hold_blanks() -> None:
    for word, name in (('"a b"', "a b"), ("'a  b'", "a  b"), ("a\\ b", "a b"), ('x" y "z', "x y z")):
        (file,) = files(after(f"ENV v=1\nCOPY <<{word} plain /x/\n$v\n{name}"))
        assert (file.path, file.data) == (f"/{name}", b"$v\n"), word
    two = files(after("ADD <<'a b' <<\"c d\" /x/\n1\na b\n2\nc d"))
    assert [(file.path, file.data) for file in two] == [("/a b", b"1\n"), ("/c d", b"2\n")]
    assert argv("RUN <<'a b'\necho $v\na b") == (*SHELL, "echo $v\n")
    assert message('COPY f <<"a b"\nx\na b') == "COPY cannot accept a heredoc as a destination"
    assert message('COPY <<"a b"\nx\na b').startswith("COPY requires at least two arguments")
    with pytest.raises(PybuildError, match="unterminated heredoc") as caught:
        after('COPY <<"a b /x\n1\na b')
    assert (caught.value.hint, caught.value.spans[0].start) == ('the quote in <<"a b /x is not closed', 2)


@row("HDC-05")
def test_a_lone_heredoc_is_a_script() -> None:
    found = after("RUN <<EOF\n#!/usr/bin/env x\necho $y\nEOF")
    (op,) = execs(found)
    assert op.meta.args == ("/dev/pipes/EOF",)
    assert op.mounts[1] == Mount(dest="/dev/pipes/", input=1, readonly=True)
    (script,) = files(found)
    assert (script.path, script.mode, script.data) == ("/EOF", 0o755, b"#!/usr/bin/env x\necho $y\n")
    assert argv('SHELL ["bash", "-e"]\nRUN <<EOF\necho\nEOF') == ("bash", "-e", "echo\n")
    windows = Platform("windows", "amd64")
    resolver = FakeResolver({"docker.io/library/a:latest": base_image(platform=windows)})
    found = converted("FROM a\nRUN <<E\n#!x\nE\n", resolver, platform=windows)
    assert execs(found)[0].meta.args == ("cmd", "/S", "/C", "#!x\n"), "scripts are not for Windows"


@row("HDC-05", "HDC-06", "HDC-07")
@pytest.mark.root
def test_heredocs_really_run(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nARG v=1\n"
        "RUN <<EOF\n#!/bin/cat\nscript $v\nEOF\n"
        "RUN <<EOF\n#!/bin/sh\necho $0 $v > /script\nEOF\n"
        "RUN <<EOF\necho $v > /plain\ntouch /two\nEOF\n"
        "RUN cat <<A - <<'B' > /both; echo more >> /both\na $v\nA\nb $v\nB\n"
        "COPY <<conf /etc/conf\nv=$v 'q' \\$v\nconf\n"
        "COPY --chown=5:6 --chmod=600 <<conf /owned\nx\nconf\n"
    )
    assert "script $v\n" in lab.watcher.log()
    assert built.read("script") == "/dev/pipes/EOF 1\n"
    assert built.read("plain") == "1\n"
    assert built.has("two")
    assert built.read("both") == "b $v\nmore\n"
    assert built.read("etc/conf") == "v=1 'q' $v\n"
    assert not built.has("dev/pipes")
    plain, owned = built.stat("etc/conf"), built.stat("owned")
    assert (plain.st_mode & 0o7777, plain.st_uid, plain.st_gid) == (0o644, 0, 0)
    assert (owned.st_mode & 0o7777, owned.st_uid, owned.st_gid) == (0o600, 5, 6)


@row("HDC-06")
def test_heredocs_in_a_command_line_go_to_the_shell() -> None:
    expected = "cat <<A <<-'B' | x\n1\nA\n\t2\nB"
    assert argv("RUN cat <<A <<-'B' | x\n1\nA\n\t2\n\tB") == (*SHELL, expected)


@row("HDC-07")
def test_heredoc_files() -> None:
    found = files(after("ENV n=x\nCOPY <<f$n /d/\n$n \"q\" '$n' \\$n `\nf$n"))
    assert [(item.path, item.mode, item.owner) for item in found] == [("/f$n", 0o644, None)]
    assert found[0].data == b"x \"q\" 'x' $n `\n"


@row("HDC-08")
def test_a_heredoc_is_no_destination() -> None:
    assert message("COPY a <<E\nx\nE") == "COPY cannot accept a heredoc as a destination"
    assert message("ADD <<A <<B\nx\nA\ny\nB") == "ADD cannot accept a heredoc as a destination"


@row("HDC-09")
def test_step_names_of_heredocs() -> None:
    assert names(after("RUN <<E\n\n  \necho 1\necho 2\nE"))[-1] == "[2/2] RUN <<E (echo 1...)"
    assert names(after("RUN <<E\n  echo 1\n\nE"))[-1] == "[2/2] RUN <<E (echo 1)"
    assert names(after("RUN cat <<E\necho 1\nE"))[-1] == "[2/2] RUN cat <<E"


@row("HDC-10")
def test_heredocs_and_json() -> None:
    assert argv('RUN ["cat", "<<E"]') == ("cat", "<<E")
    assert argv('RUN ["cat"] <<E\nx\nE') == (*SHELL, '["cat"] <<E\nx\nE')
    stored = after("ONBUILD COPY <<A <<-B /d/\n1\nA\n\t2\n\tB").config.on_build
    assert stored == ("COPY <<A <<-B /d/\n1\nA\n\t2\nB",)
    base = FakeResolver({"docker.io/library/a:latest": base_image(on_build=stored)})
    assert [item.data for item in files(converted("FROM a\n", base))] == [b"1\n", b"2\n"]


@row("HDC-11")
@pytest.mark.parametrize(
    "command",
    ["cat <<<word", "cat <<", "cat << E", 'echo "<<E"', "echo '<<E'", "echo a<<E", "x <<< E", "<<<E"],
)
def test_what_is_no_heredoc(command: str) -> None:
    assert argv(f"RUN {command}") == (*SHELL, command)


@row("HDC-11")
def test_descriptor_numbers() -> None:
    assert argv("RUN cat 3<<E\nx\nE") == (*SHELL, "cat 3<<E\nx\nE")
    assert argv("RUN 0<<E\nx\nE") == (*SHELL, "x\n")
