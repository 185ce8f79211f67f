"""Metadata instructions, history and the epoch: sections 10, 17 and 18 of the rows."""

from __future__ import annotations

import pytest

from builder.frontend.durations import format_duration, parse_duration
from builder.frontend.errors import DockerfileError
from builder.frontend.history import quote
from builder.llb.ops import MkDir, SourceOp, UserOpt
from builder.oci.config import HealthCheck
from builder.oci.platform import Platform
from tests.support.dockerfiles import FakeResolver, base_image, converted, execs, history, names, ops, rules


def config(lines, **changes):
    return converted(f"FROM scratch\n{lines}\n", **changes).config


def problem(lines, **changes):
    with pytest.raises(DockerfileError) as caught:
        config(lines, **changes)
    return caught.value


def test_env():
    found = config("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\nENV $abc=x e=")
    assert found.env[1:] == ("abc=bye", "def=hello", "ghi=bye", "bye=x", "e=")
    assert config("ENV x=q\nENV x=y z=$x").env[1:] == ("x=y", "z=q")  # VEC-10
    assert (
        config("ENV p a  'b'  $PATH").env[1]
        == "p=a  b  /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )


def test_labels():
    found = config('LABEL a=1 "b c"=2\nLABEL a=3', labels=(("z", "9"), ("b c", "4")))
    assert dict(found.labels) == {"a": "3", "b c": "4", "z": "9"}


def test_workdir():
    found = converted("FROM a\nUSER app:grp\nWORKDIR /a\nWORKDIR b/../c\nWORKDIR ${u:-d}\nWORKDIR /\n")
    actions = [op.actions[0].action for op in ops(found, "FileOp")]
    assert [action.path for action in actions] == ["/a", "/a/c", "/a/c/d"]
    assert actions[0].owner.user == UserOpt(name="app", input=0)
    assert actions[0].mode == 0o755
    assert found.config.workdir == "/"
    assert history(found) == ["· USER app:grp", "WORKDIR /a", "WORKDIR /a/c", "WORKDIR /a/c/d", "· WORKDIR /"]
    assert names(found)[1] == "[2/5] WORKDIR /a"


def test_cmd_and_entrypoint():
    assert config('CMD ["a"]').cmd == ("a",)
    assert config("CMD a b").cmd == ("/bin/sh", "-c", "a b")
    assert config("CMD a").args_escaped
    assert config("CMD []").cmd is None
    assert config('SHELL ["s"]\nCMD a').cmd == ("s", "a")
    base = FakeResolver({"docker.io/library/a:latest": base_image(cmd=("c",), entrypoint=("e",))})
    assert converted("FROM a\nENTRYPOINT x\n", base).config.cmd is None
    assert converted('FROM a\nCMD ["y"]\nENTRYPOINT x\n', base).config.cmd == ("y",)
    assert converted("FROM a\nENTRYPOINT []\n", base).config.entrypoint is None
    assert converted("FROM a\n", base).config.entrypoint == ("e",)


def test_expose():
    found = config("ARG p=90-91/udp\nEXPOSE 80 443/TCP 1.2.3.4:5:6 $p 7:8 80")
    assert found.exposed_ports == ("90/udp", "91/udp", "6/tcp", "443/tcp", "8/tcp", "80/tcp")
    assert history(converted("FROM a\nEXPOSE 80 443\n")) == ["· EXPOSE [443/tcp 80/tcp]"]


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("/tcp", 'invalid port: "/tcp": no port specified'),
        ("80/x", "invalid proto: x"),
        ("x", "invalid containerPort: x"),
        ("70000", "invalid containerPort: 70000"),
        ("9-8", "invalid containerPort: 9-8"),
        ("x:80", "invalid hostPort: x"),
        ("a:1:80", "invalid IP address: a"),
        ("1-2:3-5", "invalid ranges specified for container and host Ports: 3-5 and 1-2"),
    ],
)
def test_bad_ports(port, message):
    assert message in problem(f"EXPOSE {port}").message


def test_volume_user_stopsignal_shell_maintainer():
    found = config(
        'ARG v=/x\nVOLUME $v /y\nVOLUME ["/z"]\nUSER a:b\nSTOPSIGNAL SIGTERM\nSHELL ["s", "t"]\nMAINTAINER me <x>'
    )
    assert found.volumes == ("/x", "/y", "/z")
    assert (found.user, found.stop_signal, found.shell, found.author) == (
        "a:b",
        "SIGTERM",
        ("s", "t"),
        "me <x>",
    )


@pytest.mark.parametrize("signal", ["TERM", "SIGKILL", "9", "sigusr1", "SIGRTMIN+3", "RTMAX-14", "RTMIN"])
def test_signals(signal):
    assert config(f"STOPSIGNAL {signal}").stop_signal == signal


@pytest.mark.parametrize("signal", ["SIGFOO", "0", "65", "RTMIN+99", "-9", "$u"])
def test_bad_signals(signal):
    assert problem(f"STOPSIGNAL {signal}").message.startswith("invalid signal")


def test_healthcheck():
    found = config("HEALTHCHECK --interval=30s --retries=3 CMD x")
    assert found.healthcheck == HealthCheck(test=("CMD-SHELL", "x"), interval_ns=30 * 10**9, retries=3)
    assert config("HEALTHCHECK CMD x\nHEALTHCHECK NONE").healthcheck == HealthCheck(test=("NONE",))


def test_history_texts():
    found = converted(
        """
        FROM a
        ENV k=v l="m n"
        LABEL k=v
        ARG x y=1
        CMD ["a", "b\\"c"]
        ENTRYPOINT e
        USER u
        VOLUME /a /b
        STOPSIGNAL 9
        SHELL ["/bin/bash", "-c"]
        MAINTAINER me
        HEALTHCHECK --interval=30s CMD x
        ONBUILD RUN a
        """
    )
    assert history(found) == [
        "· ENV k=v l=m n",
        "· LABEL k=v",
        "· ARG x y=1",
        '· CMD ["a" "b\\"c"]',
        '· ENTRYPOINT ["/bin/sh" "-c" "e"]',
        "· USER u",
        "· VOLUME [/a /b]",
        "· STOPSIGNAL 9",
        "· SHELL [/bin/bash -c]",
        "· MAINTAINER me",
        "· HEALTHCHECK {Test:[CMD-SHELL x] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
    ]
    assert {entry.comment for entry in found.config.history[1:]} == {"buildkit.dockerfile.v0"}


def test_one_non_empty_entry_per_layer():
    found = converted("FROM a\nWORKDIR /\nWORKDIR /a\nRUN x\nCOPY --link a b\nADD a b\nENV a=b\n")
    assert sum(not entry.empty_layer for entry in found.config.history) == 1 + 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", '"a"'),
        ('a"\\\n\t', '"a\\"\\\\\\n\\t"'),
        ("é\u2028\x01\udcff", '"é\\u2028\\x01\\xff"'),
        ("", '""'),
    ],
)
def test_quoting(text, expected):
    assert quote(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30s", 30 * 10**9),
        ("1m30s", 90 * 10**9),
        ("1h0m0s", 3600 * 10**9),
        ("1.5s", 1_500_000_000),
        ("100ms", 10**8),
        ("0s", 0),
        ("2µs", 2000),
        ("3ns", 3),
    ],
)
def test_durations(text, value):
    assert parse_duration(text) == value
    assert format_duration(value) == text


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1s2", ".s", "--1s", "9" * 30 + "s", "999999999h"])
def test_bad_durations(text):
    with pytest.raises(DockerfileError):
        parse_duration(text)


# Platform fields


def test_platform_of_the_config():
    base = FakeResolver({"docker.io/library/a:latest": base_image(Platform("linux", "arm64", "", "10.1"))})
    found = converted("FROM a\n", base, platform=Platform("linux", "arm64"), platform_explicit=True)
    assert found.config.platform == Platform("linux", "arm64", "", "10.1")
    found = converted("FROM scratch\n", platform=Platform("linux", "arm"), platform_explicit=True)
    assert found.config.platform == Platform("linux", "arm", "v7")


# SOURCE_DATE_EPOCH


def test_epoch_from_the_build_argument():
    found = converted(
        "FROM a\nARG SOURCE_DATE_EPOCH\nWORKDIR /w\nRUN r\n", build_args=(("SOURCE_DATE_EPOCH", "60"),)
    )
    assert found.epoch == 60
    assert found.config.history[-1].created == "1970-01-01T00:01:00Z"
    assert ops(found, "FileOp")[0].actions[0].action == MkDir(
        path="/w", make_parents=True, timestamp_ns=60 * 10**9
    )
    assert "SOURCE_DATE_EPOCH=60" in execs(found)[0].meta.env
    assert found.unused_build_args == ()


def test_epoch_from_a_global_argument_and_none():
    assert converted("ARG SOURCE_DATE_EPOCH=7\nFROM a\n").epoch == 7
    assert (
        converted("ARG SOURCE_DATE_EPOCH=7\nFROM a\n", build_args=(("SOURCE_DATE_EPOCH", ""),)).epoch is None
    )
    assert converted("ARG SOURCE_DATE_EPOCH=7\nFROM a\n", epoch=8).epoch == 8
    assert converted("FROM a\nRUN r\n").config.history[-1].created is None


def test_epoch_of_a_source():
    resolver = FakeResolver(
        epochs={"git://h/r.git": 5, "https://h/f": 6}, contexts={"n": ("git", "git://h/r.git")}
    )
    text = "FROM a\nRUN r\nFROM scratch AS src\nARG u=f\nADD https://h/$u /\nFROM a\n"
    for value, expected in (("src", 6), ("n", 5), ("9", 9)):
        assert converted(text, resolver, build_args=(("SOURCE_DATE_EPOCH", value),)).epoch == expected
    context = SourceOp(identifier="git://h/r.git")
    found = converted(text, resolver, build_args=(("SOURCE_DATE_EPOCH", "context"),), context=context)
    assert found.epoch == 5
    assert converted(text, resolver, build_args=(("SOURCE_DATE_EPOCH", "context"),)).epoch is None


@pytest.mark.parametrize(
    ("value", "text", "message"),
    [
        ("x", "FROM a\n", "invalid SOURCE_DATE_EPOCH: x"),
        ("-1", "FROM a\n", "invalid SOURCE_DATE_EPOCH: -1"),
        ("999999999999999", "FROM a\n", "invalid SOURCE_DATE_EPOCH: 999999999999999"),
        ("s", "FROM a AS s\n", "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        ("s", "FROM scratch AS s\n", "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        ("s", "FROM scratch AS s\nRUN a\n", "source-only requirements: unsupported RUN instruction"),
    ],
)
def test_bad_epochs(value, text, message):
    with pytest.raises(DockerfileError) as caught:
        converted(text, build_args=(("SOURCE_DATE_EPOCH", value),))
    assert message in caught.value.message


def test_undefined_variables_are_linted_with_their_lines():
    found = converted("FROM a\nARG declared\nENV a=$declared b=$PAHT c=${d:-x} e=$nothing\nLABEL x=$a\n")
    assert [str(warning) for warning in found.warnings] == [
        "UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?) (line 3)",
        "UndefinedVar: Usage of undefined variable '$d' (line 3)",
        "UndefinedVar: Usage of undefined variable '$nothing' (line 3)",
    ]
    assert rules(converted('FROM a\nRUN echo $x\nCMD ["$y"]\n')) == []
