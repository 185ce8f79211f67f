"""RUN: rows RUN."""

from __future__ import annotations

from typing import Any

import pytest

from builder.errors import PybuildError, SolveError, StepFailed
from builder.llb.definition import LinuxResources
from builder.llb.ops import Mount, Ulimit
from builder.oci.platform import Platform
from runtime.spec import Limits
from tests.support.buildlab import Lab
from tests.support.dockerfiles import FakeResolver, base_image, converted, execs, history
from tests.support.rows import row

root = pytest.mark.root


def run(line: str, before: str = "", **options: Any) -> Any:
    return execs(converted(f"FROM a\n{before}RUN {line}\n", **options))[-1]


def message(line: str) -> str:
    with pytest.raises(PybuildError) as caught:
        run(line)
    return caught.value.message.removeprefix("dockerfile parse error on line 2: ")


@row("RUN-01")
def test_forms() -> None:
    assert run('echo "$a"  b').meta.args == ("/bin/sh", "-c", 'echo "$a"  b')
    assert run('["a", "$b", "c d"]', "ENV b=x\n").meta.args == ("a", "$b", "c d")
    assert run("a b", 'SHELL ["/bin/bash", "-ec"]\n').meta.args == ("/bin/bash", "-ec", "a b")
    assert run("['a', 'b']").meta.args == ("/bin/sh", "-c", "['a', 'b']")
    windows = Platform("windows", "amd64")
    resolver = FakeResolver({"docker.io/library/a:latest": base_image(platform=windows)})
    found = converted("FROM a\nRUN dir c:\nCMD x\n", resolver, platform=windows)
    assert execs(found)[0].meta.args == ("cmd", "/S", "/C", "dir c:")
    assert found.config.cmd == ("cmd", "/S", "/C", "x")


@row("RUN-01")
def test_commands_without_nul() -> None:
    for line in ('["echo", "a\\u0000b"]', "<<E\na\0b\nE"):
        assert message(line) == "a command cannot hold NUL bytes"


@root
@row("RUN-01", "RUN-02")
def test_what_a_command_sees(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nENV e=env\nARG a=arg\nUSER app\nWORKDIR /home/app/w\n"
        'RUN id -un > who; pwd > where; env > env\nRUN ["touch", "$e"]\nRUN ["sh", "-c", "echo $e > sh"]\n'
    )
    assert (built.read("home/app/w/who"), built.read("home/app/w/where")) == ("app\n", "/home/app/w\n")
    env = dict(line.split("=", 1) for line in built.read("home/app/w/env").splitlines())
    assert (env["e"], env["a"]) == ("env", "arg")
    assert "/bin" in env["PATH"].split(":")
    assert built.has("home/app/w/$e")
    assert built.read("home/app/w/sh") == "env\n"


@root
@row("RUN-03")
def test_one_layer_each(lab: Lab) -> None:
    base = lab.quick("FROM busybox\n").layers
    built = lab.quick(
        "FROM busybox\nRUN true\nRUN mkdir -p /d/e && touch /d/f && rm -r /d/e\nENV a=b\nRUN true # again\n"
    )
    assert built.layers == base + 3
    assert [built.layer_names(base + index) for index in range(3)] == [[], ["d", "d/f"], []]
    assert len(built.config.diff_ids) == base + 3
    assert [entry.empty_layer for entry in built.config.history[-4:]] == [False, False, True, False]


@root
@row("RUN-04")
def test_a_failing_command(lab: Lab) -> None:
    for line, argv, code in (
        ("exit 7", "/bin/sh -c exit 7", 7),
        ('["sh", "-c", "exit 3"]', "sh -c exit 3", 3),
    ):
        with pytest.raises(StepFailed) as caught:
            lab.quick(f"FROM busybox\nRUN {line}\n")
        expected = f'process "{argv}" did not complete successfully: exit code: {code}'
        assert caught.value.message == expected
        assert caught.value.exit_code == code


@root
@row("RUN-05")
def test_what_makes_a_command_run_again(lab: Lab) -> None:
    text = "FROM busybox AS one\nRUN date +%s%N > /one\nFROM busybox AS two\nCOPY --from=one /one /\nRUN date +%s%N > /two\n"
    first = lab.quick(text)
    assert lab.quick(text).id == first.id
    assert lab.steps_run() == []
    lab.quick(text, no_cache_filter=("TWO",))
    assert [name for name in lab.steps_run() if "RUN" in name] == ["[two 3/3] RUN date +%s%N > /two"]
    lab.quick(text, no_cache=True)
    assert len([name for name in lab.steps_run() if "RUN" in name]) == 2
    lab.quick(text.replace("date +%s%N > /one", "echo other > /one"))
    assert len([name for name in lab.steps_run() if "RUN" in name]) == 2, "a changed ancestor"


@row("RUN-06")
def test_network_flag() -> None:
    assert run("a").network == run("--network=default a").network == "sandbox"
    assert (run("--network=none a").network, run("--network=host a").network) == ("none", "host")
    assert run("a", network_mode="none").network == "none"
    assert run("--network=default a", network_mode="none").network == "sandbox"
    assert message("--network=foo a") == 'invalid network mode "foo"'
    assert message("--network=$n a") == 'invalid network mode "$n"'


@root
@row("RUN-06", "RUN-07")
def test_entitlements(lab: Lab) -> None:
    text = "FROM busybox\nRUN --network=host cat /proc/net/dev | wc -l > /n\n"
    with pytest.raises(SolveError, match=r"network\.host is not allowed"):
        lab.quick(text)
    assert int(lab.quick(text, allow=("network.host",)).read("n")) >= 3
    text = "FROM busybox\nRUN {}grep CapEff /proc/self/status > /caps\n"
    with pytest.raises(SolveError, match=r"security\.insecure is not allowed"):
        lab.quick(text.format("--security=insecure "))
    insecure = lab.quick(text.format("--security=insecure "), allow=("security.insecure",)).read("caps")
    sandbox = lab.quick(text.format("--security=sandbox ")).read("caps")
    assert int(insecure.split()[1], 16) & (1 << 21), "may mount"
    assert not int(sandbox.split()[1], 16) & (1 << 21)


@row("RUN-07")
def test_security_flag() -> None:
    assert run("a").security == run("--security=sandbox a").security == "sandbox"
    assert run("--security=insecure a").security == "insecure"
    assert message("--security=foo a") == 'security "foo" is not valid'


@row("RUN-08")
def test_device_flag() -> None:
    op = run("--device=v.com/c=n --device=v.com/c=m,required --device=name=v.com/c=o,required=false a")
    assert op.devices == ("v.com/c=n", "v.com/c=m,required", "v.com/c=o")
    for value in ("required", "name=", "v/c=n,foo=bar", "v/c=n,required=maybe", "v/c=n,v/c=m"):
        with pytest.raises(PybuildError) as caught:
            run(f"--device={value} a")
        assert caught.value.code == "bad-flag", value


@root
@row("RUN-08")
def test_devices_that_are_not_here(lab: Lab) -> None:
    text = "FROM busybox\nRUN --device=v.com/c=n{} echo ran > /r\n"
    assert lab.quick(text.format(""), allow=("device",)).read("r") == "ran\n"
    with pytest.raises(SolveError, match=r"required device v\.com/c=n is not registered"):
        lab.quick(text.format(",required"), allow=("device",))


@row("RUN-09")
def test_mounts_are_repeatable() -> None:
    op = run("--mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/b x")
    assert [mount.dest for mount in op.mounts] == ["/", "/a", "/b"]
    assert message("--mount=foobar a") == "unexpected key 'foobar' in 'foobar'"
    assert run("a").mounts == (Mount(dest="/", input=0, output=0),)


@row("RUN-10")
def test_options_reach_every_command() -> None:
    resources = LinuxResources(memory_bytes=1 << 26)
    found = converted(
        "FROM a\nRUN one\nRUN two\n",
        extra_hosts=(("h", "1.2.3.4"),),
        shm_size_bytes=1 << 20,
        ulimits=(Ulimit(name="nofile", soft=1, hard=2),),
        cgroup_parent="/p",
        hostname="box",
        resources=resources,
        devices=("v/c=n",),
    )
    for op in execs(found):
        assert op.meta.extra_hosts == (("h", "1.2.3.4"),)
        assert Mount(dest="/dev/shm", type="tmpfs", size_bytes=1 << 20) in op.mounts
        assert op.meta.ulimits == (Ulimit(name="nofile", soft=1, hard=2),)
        assert (op.meta.cgroup_parent, op.meta.hostname, op.devices) == ("/p", "box", ("v/c=n",))
    runs = [vertex for vertex in found.definition.vertices if type(vertex.op).__name__ == "ExecOp"]
    assert [vertex.meta.resources for vertex in runs] == [resources] * 2


@root
@row("RUN-10")
def test_options_in_a_build(lab: Lab) -> None:
    text = "FROM busybox\nRUN cat /etc/hosts > /h; ulimit -n > /u; df -k /dev/shm | tail -1 > /s; hostname > /n\n"
    options: dict[str, Any] = {
        "ulimits": (Ulimit(name="nofile", soft=98, hard=99),), "shm_size_bytes": 1 << 20, "hostname": "box",
        "limits": Limits(memory_bytes=1 << 28), "cgroup_parent": "/conf",
    }  # fmt: skip
    built = lab.quick(text, extra_hosts=(("db", "10.0.0.1"),), **options)
    assert "10.0.0.1\tdb" in built.read("h")
    assert (built.read("u"), built.read("n")) == ("98\n", "box\n")
    assert "1024" in built.read("s").split()
    lab.quick(text, extra_hosts=(("db", "10.0.0.2"),), **options)
    assert lab.steps_run() == [], "an address is no part of the key"
    lab.quick(text, extra_hosts=(("other", "10.0.0.1"),), **options)
    assert len(lab.steps_run()) == 1, "a host's name is"


BASE = "FROM busybox\n{before}RUN {flags}{command}\n"


@root
@row("RUN-11")
def test_what_is_in_the_key(lab: Lab) -> None:
    plain = {"before": "", "flags": "", "command": "true keyed"}
    lab.quick(BASE.format(**plain))
    changes: tuple[dict[str, Any], ...] = (
        {"command": "true keyed again"},
        {"before": "ENV keyed=1\n"},
        {"before": "ARG keyed=2\n"},
        {"before": "WORKDIR /tmp\n"},
        {"before": "USER app\n"},
        {"flags": "--mount=type=tmpfs,target=/t "},
        {"flags": "--mount=type=tmpfs,target=/u "},
        {"flags": "--mount=type=cache,target=/t "},
        {"flags": "--mount=type=cache,target=/t,id=other,sharing=locked "},
        {"flags": "--mount=type=secret,id=s "},
        {"flags": "--mount=type=secret,id=t "},
        {"flags": "--mount=type=ssh "},
        {"flags": "--network=none "},
    )
    for change in changes:
        text = BASE.format(**{**plain, **change})
        lab.quick(text)
        ran = [name for name in lab.steps_run() if "RUN" in name]
        if "--network=none" not in text:  # builds of this laboratory have no network anyway
            assert len(ran) == 1, text
        lab.quick(text)
        assert lab.steps_run() == [], text
    text = BASE.format(**{**plain, "flags": "--security=insecure "})
    lab.quick(text, allow=("security.insecure",))
    assert len(lab.steps_run()) == 1
    lab.quick(BASE.format(**plain), build_args=(("http_proxy", "x"),))
    assert lab.steps_run() == []


@row("RUN-11")
def test_network_is_in_the_definition() -> None:
    assert run("--network=none a") != run("a")
    assert history(converted("FROM a\nRUN --network=none a\n")) == ["RUN /bin/sh -c a # buildkit"]
