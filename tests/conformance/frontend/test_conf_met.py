"""Instructions that set what the image says of itself, and WORKDIR (MET rows)."""

from __future__ import annotations

import pytest

from builder.errors import PybuildError
from builder.frontend.errors import DockerfileError
from builder.llb.ops import MkDir
from tests.support.buildlab import Lab
from tests.support.dockerfiles import FakeResolver, base_image, converted, execs, history, ops, rules
from tests.support.rows import row


def problem(text):
    with pytest.raises(DockerfileError) as caught:
        converted(text)
    return caught.value.message


def config(text, **base):
    configs = {"docker.io/library/a:latest": base_image(**base)} if base else {}
    return converted(text, FakeResolver(configs)).config


@row("MET-01")
def test_workdir_is_joined_and_cleaned() -> None:
    found = converted("FROM a\nUSER app:adm\nWORKDIR /w/./x/../y\nWORKDIR z\nWORKDIR ../up\n")
    made = [action.action for op in ops(found, "FileOp") for action in op.actions]
    assert [m.path for m in made] == ["/w/y", "/w/y/z", "/w/y/up"]
    assert all(isinstance(m, MkDir) and m.mode == 0o755 and m.make_parents for m in made)
    assert (made[0].owner.user.name, made[0].owner.group.name) == ("app", "adm")
    assert found.config.workdir == "/w/y/up"
    stays = converted("FROM a\nWORKDIR /w\nWORKDIR $un\nWORKDIR ''\n")
    assert (history(stays)[1:], rules(stays)) == (["WORKDIR /w"] * 2, [("UndefinedVar", 3)]), (
        "empty: no change"
    )
    (root,) = history(converted("FROM a\nWORKDIR /\n"))
    assert root == "· WORKDIR /", "the root is no layer"
    timed = converted("FROM a\nWORKDIR /w\n", epoch=12)
    assert ops(timed, "FileOp")[0].actions[0].action.timestamp_ns == 12_000_000_000


@row("MET-01")
@pytest.mark.root
def test_workdir_is_made(lab: Lab) -> None:
    built = lab.quick("FROM busybox\nUSER app\nWORKDIR /w/x\nWORKDIR /tmp\nRUN pwd > /tmp/here\n")
    for path in ("w", "w/x"):
        found = built.stat(path)
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o755, 1000, 1000)
    assert built.stat("tmp").st_mode & 0o7777 == 0o1777, "one that is there stays as it is"
    assert built.read("tmp/here") == "/tmp\n"
    assert built.layers == 4


@row("MET-02")
@pytest.mark.root
def test_user_is_not_checked_until_a_run(lab: Lab) -> None:
    assert lab.quick("FROM busybox\nUSER no-such:group\n").json["config"]["User"] == "no-such:group"
    with pytest.raises(PybuildError, match="no-such"):
        lab.quick("FROM busybox\nUSER no-such\nRUN true\n")
    for base, owner in (("scratch", "app"), ("busybox", "no-such:group"), ("busybox", "0:no-such")):
        made = lab.quick(f"FROM {base}\nUSER {owner}\nWORKDIR /w\n").stat("w")
        assert (made.st_uid, made.st_gid) == (0, 0), "a directory of nobody's is root's"


@row("MET-03")
def test_cmd() -> None:
    assert config("FROM a\nCMD one\nCMD echo $x  y\n").cmd == ("/bin/sh", "-c", "echo $x  y")
    found = config('FROM a\nSHELL ["sh", "-e"]\nCMD run\n')
    assert found.cmd == ("sh", "-e", "run")
    assert found.args_escaped
    assert config('FROM a\nCMD ["x", "$y"]\n').cmd == ("x", "$y")
    assert config('FROM a\nCMD ["x"]\n').to_json()["config"]["ArgsEscaped"] is True
    cleared = config("FROM a\nCMD []\n", cmd=("c",))
    assert cleared.cmd is None
    assert "Cmd" not in cleared.to_json()["config"]


@row("MET-04")
def test_entrypoint_resets_the_inherited_cmd() -> None:
    assert config('FROM a\nENTRYPOINT ["e"]\n', cmd=("c",)).cmd is None
    assert config('FROM a\nCMD ["d"]\nENTRYPOINT ["e"]\n', cmd=("c",)).cmd == ("d",)
    assert config('FROM a AS b\nCMD ["d"]\nFROM b\nENTRYPOINT ["e"]\n').cmd is None
    cleared = config("FROM a\nENTRYPOINT []\n", entrypoint=("e",), cmd=("c",))
    assert cleared.entrypoint is None
    assert "Entrypoint" not in cleared.to_json()["config"]


@row("MET-05")
def test_shell() -> None:
    assert "SHELL requires the arguments to be in JSON form" in problem("FROM a\nSHELL sh\n")
    found = converted('FROM a AS b\nSHELL ["bash", "-c"]\nFROM b\nRUN x\nCMD y\nENTRYPOINT z\n')
    assert execs(found)[0].meta.args == ("bash", "-c", "x")
    assert (found.config.shell, found.config.cmd) == (("bash", "-c"), ("bash", "-c", "y"))
    assert found.config.entrypoint == ("bash", "-c", "z")
    assert config("FROM a\nCMD x\n", shell=("zsh",)).cmd == ("zsh", "x")


@row("MET-06")
def test_expose() -> None:
    found = converted('FROM a\nARG p="81 82/UDP"\nEXPOSE 8000-8002 80 443/sctp $p\n')
    assert sorted(found.config.exposed_ports) == [
        "443/sctp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp", "81/tcp", "82/udp",
    ]  # fmt: skip
    assert found.config.to_json()["config"]["ExposedPorts"]["80/tcp"] == {}
    assert history(converted("FROM a\nEXPOSE 9 80 443\n")) == ["· EXPOSE [443/tcp 80/tcp 9/tcp]"]


@row("MET-07")
@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("127.0.0.1:80:", 'invalid port: "127.0.0.1:80:": no port specified'),
        ("80/foo", 'invalid port: "80/foo": invalid proto: foo'),
        ("abc", "invalid containerPort: abc"),
        ("x:80", "invalid hostPort: x"),
        ("1.2.3:1:80", "invalid IP address: 1.2.3"),
        ("1-3:10-11", "invalid ranges specified for container and host Ports: 10-11 and 1-3"),
    ],
)
def test_bad_ports(port: str, message: str) -> None:
    assert message in problem(f"FROM a\nEXPOSE {port}\n")


@row("MET-07")
def test_ports_with_commas() -> None:
    with pytest.raises(DockerfileError, match="invalid containerPort: 80,443") as caught:
        converted("FROM a\nEXPOSE 80,443\n")
    assert caught.value.hint == "ports are separated by blanks"


@row("MET-07")
def test_host_ports_are_left_out() -> None:
    found = converted("FROM a\nEXPOSE 127.0.0.1:8080:80\n")
    assert found.config.exposed_ports == ("80/tcp",)
    assert rules(found) == [("ExposeInvalidFormat", 2)]


@row("MET-08")
@pytest.mark.root
def test_volume(lab: Lab) -> None:
    assert "VOLUME specified can not be an empty string" in problem('FROM a\nVOLUME [""]\n')
    assert "VOLUME specified can not be an empty string" in problem('FROM a\nVOLUME "$unset"\n')
    assert config('FROM a\nVOLUME /a /b\nVOLUME ["/c"]\n').volumes == ("/a", "/b", "/c")
    built = lab.quick("FROM busybox\nRUN mkdir /v\nVOLUME /v\nRUN echo later > /v/f\n")
    assert built.json["config"]["Volumes"] == {"/v": {}}
    assert built.read("v/f") == "later\n", "later changes are kept"


@row("MET-09")
def test_healthcheck() -> None:
    found = config(
        "FROM a\nHEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=2ms --start-interval=1h --retries=4 "
        'CMD ["x", "y"]\n'
    ).to_json()["config"]["Healthcheck"]
    assert found == {
        "Test": ["CMD", "x", "y"],
        "Interval": 90_000_000_000,
        "Timeout": 1_500_000_000,
        "StartPeriod": 2_000_000,
        "StartInterval": 3_600_000_000_000,
        "Retries": 4,
    }
    shell = config("FROM a\nHEALTHCHECK CMD x && y\n").to_json()["config"]["Healthcheck"]
    assert shell == {"Test": ["CMD-SHELL", "x && y"]}
    assert config("FROM a\nHEALTHCHECK NONE\n").healthcheck.test == ("NONE",)


@row("MET-09")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--interval=100us CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("--start-period=-1s CMD x", 'Interval "start-period" cannot be less than 1ms'),
        ("--retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("CMD", "Missing command after HEALTHCHECK CMD"),
        ("FOO x", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
    ],
)
def test_bad_healthchecks(line: str, message: str) -> None:
    assert message in problem(f"FROM a\nHEALTHCHECK {line}\n")


@row("MET-10")
def test_stopsignal() -> None:
    for signal in ("SIGTERM", "TERM", "9", "SIGRTMIN+3"):
        assert config(f"FROM a\nSTOPSIGNAL {signal}\n").stop_signal == signal
    assert config("FROM a\nARG s=SIGHUP\nSTOPSIGNAL $s\n").stop_signal == "SIGHUP"
    with pytest.raises(DockerfileError) as caught:
        converted("FROM a\nSTOPSIGNAL NOPE\n")
    assert "NOPE" in caught.value.message
    assert caught.value.span.start == 2
    with pytest.raises(DockerfileError) as caught:
        converted("FROM a\nSTOPSIGNAL SIGTREM\n")
    assert caught.value.hint == "did you mean SIGTERM?"
    for number in ("0", "-9", "65"):
        with pytest.raises(DockerfileError, match=f"invalid signal: {number}") as caught:
            converted(f"FROM a\nSTOPSIGNAL {number}\n")
        assert str(caught.value.hint).startswith("want a number from 1 to 64")
    converted("FROM a AS bad\nSTOPSIGNAL NOPE\nFROM a\n")  # only a stage that is needed is looked at


@row("MET-11")
def test_the_last_one_wins() -> None:
    found = converted(
        'FROM a\nCMD ["1"]\nCMD ["2"]\nENTRYPOINT ["3"]\nENTRYPOINT ["4"]\nHEALTHCHECK CMD 5\nHEALTHCHECK CMD 6\n'
    )
    assert (found.config.cmd, found.config.entrypoint) == (("2",), ("4",))
    assert found.config.healthcheck.test == ("CMD-SHELL", "6")
    assert rules(found) == [("MultipleInstructionsDisallowed", line) for line in (2, 4, 6)]
