"""RUN --mount: rows MNT."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import PybuildError, SolveError
from builder.llb.ops import Mount, SecretEnv
from builder.solver.ops.agentsocket import agent_socket
from builder.solver.types import Secret, SshAgent
from tests.support.buildlab import Built, Lab
from tests.support.dockerfiles import FakeResolver, converted, execs, names, ops
from tests.support.rows import row

root = pytest.mark.root


def run(line: str, before: str = "", **options: Any) -> Any:
    return execs(converted(f"FROM a\n{before}RUN {line} cmd\n", **options))[-1]


def mounts(*flags: str, before: str = "", **options: Any) -> tuple[Mount, ...]:
    """The mounts of a step but its root."""
    return run(" ".join(f"--mount={flag}" for flag in flags), before, **options).mounts[1:]


def message(flag: str, before: str = "") -> str:
    with pytest.raises(PybuildError) as caught:
        mounts(flag, before=before)
    return caught.value.message.removeprefix("dockerfile parse error on line 2: ")


@row("MNT-01")
def test_keys_and_their_other_names() -> None:
    (plain,) = mounts("type=bind,source=/s,target=/t,readonly=false")
    for flag in (
        "src=/s,dst=/t,rw",
        "SOURCE=/s,Destination=/t,ReadWrite=true",
        "source=/s,target=/t,ro=false",
    ):
        assert mounts(flag) == (plain,), flag
    (found,) = mounts("type=cache,id=i,target=/t,sharing=locked,mode=0700,uid=1,gid=2,ro")
    assert (found.id, found.sharing, found.readonly) == ("/i", "locked", True)
    (found,) = mounts("type=secret,id=i,target=/t,required=true,mode=444,uid=1,gid=2")
    assert (found.optional, found.mode, found.uid, found.gid) == (False, 0o444, 1, 2)
    assert mounts("type=tmpfs,target=/t,size=1k")[0].size_bytes == 1024
    assert run("--mount=type=secret,id=i,env=E").secret_env == (SecretEnv(id="i", name="E", optional=True),)
    (found,) = mounts("""'type=bind,"target=/a,b"'""")
    assert found.dest == "/a,b"
    (found,) = mounts("type=$t,target=/$v/x,id=$v,uid=$n", before="ARG t=cache v=w n=5\n")
    assert (found.type, found.dest, found.id) == ("cache", "/w/x", "/w")


@row("MNT-02")
@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("type=foobar,target=/t", 'unsupported mount type "foobar"'),
        ("type=secert,id=a", 'unsupported mount type "secert" (did you mean secret?)'),
        ("foobar=1,target=/t", "unexpected key 'foobar' in 'foobar=1'"),
        ("type=,target=/t", 'unsupported mount type ""'),
        ("tagret=/t", "unexpected key 'tagret' in 'tagret=/t' (did you mean target?)"),
        ("type=cache,target", "invalid field 'target' must be a key=value pair"),
    ],
)
def test_types_and_keys(flag: str, expected: str) -> None:
    assert message(flag) == expected
    assert [mounts(f"type={name},target=/t")[0].type for name in ("bind", "cache", "tmpfs", "secret", "ssh")]


@row("MNT-03")
def test_which_are_read_only() -> None:
    found = {
        name: mounts(f"type={name},target=/t")[0].readonly
        for name in ("bind", "secret", "ssh", "cache", "tmpfs")
    }
    assert found == {"bind": True, "secret": True, "ssh": True, "cache": False, "tmpfs": False}


@row("MNT-04")
def test_targets() -> None:
    assert [
        mount.dest for mount in mounts("target=a/../b", "type=cache,target=c", before="WORKDIR /w\n")
    ] == ["/w/b", "/w/c"]
    assert mounts("target=x")[0].dest == "/x"
    assert message("target=/") == 'invalid mount target "/"'
    assert message("type=tmpfs") == 'invalid mount target ""'
    assert message("type=cache,target=a/..") == 'invalid mount target "a/.."'


@row("MNT-05")
def test_where_from() -> None:
    text = "FROM a AS one\nRUN 1\nFROM b\nRUN --mount=from={},target=/t x\n"

    def bases(name: str, **contexts: Any) -> list[str]:
        found = converted(text.format(name), FakeResolver(contexts=contexts))
        return [
            op.identifier.removeprefix("docker-image://docker.io/library/").partition("@")[0]
            for op in ops(found, "SourceOp")
        ]

    assert sorted(bases("one")) == sorted(bases("ONE")) == ["a:latest", "b:latest"]
    assert sorted(bases("img:1")) == ["b:latest", "img:1"]
    assert sorted(bases("named", named=("local", "local://named"))) == ["b:latest", "local://named"]
    assert sorted(bases("0")) == ["0:latest", "b:latest"], "an index is a name like any other"
    expected = "'from' doesn't support variable expansion, define alias stage instead"
    assert message("from=$x,target=/t") == expected
    with pytest.raises(PybuildError) as caught:
        converted("FROM a AS one\nRUN --mount=from=two,target=/t x\nFROM b AS two\n", target="one")
    assert caught.value.message == (
        'cannot mount from stage "two" to "/t", stage needs to be defined before current command'
    )


@root
@row("MNT-05", "MNT-06")
def test_bind_mounts(lab: Lab) -> None:
    lab.quick("FROM scratch\nCOPY a /a\n", {"a": "image"}, tags=("conf-mnt:1",))
    context = lab.context({"d/x": "context", "other": "o"})
    os.symlink("/d", context / "abs")
    os.symlink("/../../d", context / "out")
    text = (
        "FROM busybox AS one\nRUN mkdir -p /s/in && echo stage > /s/in/f && ln -s /s /link\n"
        "FROM busybox\n"
        "RUN --mount=target=/c cat /c/d/x > /1; ls /c | sort > /all\n"
        "RUN --mount=source=d/x,target=/file cat /file > /2\n"
        "RUN --mount=source=abs/x,target=/file cat /file > /3\n"
        "RUN --mount=source=out,target=/dir cat /dir/x > /4\n"
        "RUN --mount=from=one,source=/link/in,target=/s cat /s/f > /5\n"
        "RUN --mount=from=conf-mnt:1,target=/i cat /i/a > /6\n"
        "RUN --mount=target=/c touch /c/new || echo readonly > /7\n"
        "RUN --mount=source=d,target=/c,rw echo more >> /c/x && touch /c/new && cat /c/x > /8\n"
        "RUN --mount=source=d,target=/c,rw ls /c > /9; cat /c/x >> /9\n"
    )
    built = Built(lab, lab.build(context, text))
    assert [built.read(name) for name in "1234"] == ["context"] * 4
    assert {"d", "other", "abs", "out"} <= set(built.read("all").split())
    assert (built.read("5"), built.read("6"), built.read("7")) == ("stage\n", "image", "readonly\n")
    assert built.read("8") == "contextmore\n"
    assert built.read("9") == "x\ncontext"
    with pytest.raises(PybuildError, match="missing"):
        lab.build(context, "FROM busybox\nRUN --mount=source=missing,target=/x true\n")


@row("MNT-06")
def test_a_bind_mount_asks_for_its_path_only() -> None:
    found = converted("FROM a\nRUN --mount=source=d/x,target=/t y\nCOPY e f\n")
    (source,) = [op for op in ops(found, "SourceOp") if op.identifier == "local://context"]
    assert source.attr("local.followpaths") == '["d/x","e"]'


@row("MNT-07")
def test_names_of_caches() -> None:
    assert mounts("type=cache,target=/root/.cache/./x/")[0].id == "//root/.cache/x"
    assert mounts("type=cache,target=/t,id=name")[0].id == "/name"
    assert mounts("type=cache,target=/\udce9")[0].id == "//\\xe9", "what is no UTF-8 can be a name too"
    space = (("BUILDKIT_CACHE_MOUNT_NS", "ns"),)
    assert mounts("type=cache,target=/t,id=name", build_args=space)[0].id == "ns/name"


@root
@row("MNT-07", "MNT-10")
def test_caches_last(lab: Lab) -> None:
    text = (
        "FROM busybox AS seed\nRUN mkdir -p /s && echo seed > /s/f\nFROM busybox\n"
        "RUN --mount=type=cache,target=/mnt07 echo {0} >> /mnt07/log; cat /mnt07/log > /log\n"
        "RUN --mount=type=cache,id=mnt07s,from=seed,source=/s,target=/s cat /s/f > /f; echo {0} >> /s/f\n"
    )
    assert lab.quick(text.format(1)).read("log") == "1\n"
    second = lab.quick(text.format(2))
    assert (second.read("log"), second.read("f")) == ("1\n2\n", "seed\n1\n")
    assert not second.has("mnt07")
    assert lab.quick(text.format(1)).read("log") == "1\n", "content is no part of the key"
    assert lab.steps_run() == []
    other = "FROM busybox\nRUN --mount=type=cache,id=/mnt07,target=/x cat /x/log > /log\n"
    assert lab.quick(other).read("log") == "1\n2\n"
    assert lab.quick(text.format(3), no_cache=True).read("log") == "3\n", "MNT-10"


@root
@row("MNT-08")
def test_sharing(lab: Lab) -> None:
    stage = (
        "FROM busybox AS s{n}\nRUN --mount=type=cache,id=mnt08-{mode},sharing={mode},target=/c echo {n} >> /c/log;"
        " sleep 0.2; cat /c/log > /log{n}\n"
    )
    for mode, lines in (("private", {1}), ("locked", {1, 2}), ("shared", {2})):
        text = "".join(stage.format(n=n, mode=mode) for n in (1, 2))
        built = lab.quick(text + "FROM busybox\nCOPY --from=s1 /log1 /\nCOPY --from=s2 /log2 /\n")
        assert {len(built.read(f"log{n}").split()) for n in (1, 2)} == lines, mode


@row("MNT-08")
def test_sharing_values() -> None:
    assert mounts("type=cache,target=/c")[0].sharing == "shared"
    assert message("type=cache,target=/c,sharing=foobar") == 'unsupported sharing value "foobar"'
    assert message("type=cache,target=/c,sharing=") == 'unsupported sharing value ""'
    with pytest.raises(PybuildError, match='unsupported sharing value ""'):
        mounts("type=cache,target=/c,sharing=$un", before="ARG un\n")
    for kind in ("bind", "tmpfs", "ssh"):
        assert (
            message(f"type={kind},target=/c,sharing=locked") == f"invalid cache sharing set for {kind} mount"
        )


@root
@row("MNT-09")
def test_the_owner_of_a_new_cache(lab: Lab) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=cache,id=mnt09{0},target=/c{1} stat -c %a:%u:%g /c > /s; touch /c/x\n"
    )
    assert lab.quick(text.format("a", "")).read("s") == "755:0:0\n"
    assert lab.quick(text.format("b", ",uid=7,gid=8,mode=0710")).read("s") == "710:7:8\n"
    assert lab.quick(text.format("c", ",uid=7")).read("s") == "755:7:0\n"
    found = names(converted("FROM a\nRUN --mount=type=cache,target=/c,uid=5 x\n"))
    assert "[internal] setting cache mount permissions" in found
    assert "[internal] setting cache mount permissions" not in names(
        converted("FROM a\nRUN --mount=type=cache,target=/c x\n")
    )


@row("MNT-11")
def test_sizes_of_tmpfs() -> None:
    found = {
        size: mounts(f"type=tmpfs,target=/t,size={size}")[0].size_bytes
        for size in ("10", "64m", "1g", "1.5k", "2MB")
    }
    assert found == {"10": 10, "64m": 64 << 20, "1g": 1 << 30, "1.5k": 1536, "2MB": 2 << 20}
    for kind in ("bind", "cache", "secret", "ssh"):
        assert message(f"type={kind},target=/t,size=1") == f"unexpected key 'size' for mount type '{kind}'"


@root
@row("MNT-03", "MNT-11")
def test_tmpfs(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=8m touch /t/x && df -k /t | grep /t > /df\n"
    )
    assert "8192" in built.read("df").split()
    assert built.layer_names() == ["df"]


@row("MNT-12")
def test_secret_mounts() -> None:
    (found,) = mounts("type=secret,id=dir/tok")
    assert (found.id, found.dest, found.mode, found.uid, found.gid) == (
        "dir/tok",
        "/run/secrets/tok",
        0o400,
        0,
        0,
    )
    assert found.optional
    assert mounts("type=secret,target=/x/key")[0].id == "key"
    op = run("--mount=type=secret,id=a,env=A --mount=type=secret,id=b,env=B,target=/b")
    assert [secret.name for secret in op.secret_env] == ["A", "B"]
    assert [mount.dest for mount in op.mounts[1:]] == ["/b"]


@root
@row("MNT-12", "MNT-13")
def test_secrets(lab: Lab) -> None:
    value = b"mnt13-vjkwq"
    text = (
        "FROM busybox\nRUN --mount=type=secret,id=s stat -c %a:%u:%g /run/secrets/s > /1; md5sum < /run/secrets/s > /sum\n"
        "RUN --mount=type=secret,id=s,target=/etc/k,mode=0440,uid=5,gid=6 stat -c %a:%u:%g /etc/k > /2\n"
        'RUN --mount=type=secret,id=s,env=S test -n "$S" && test ! -e /run/secrets/s && echo ok > /3\n'
        'RUN --mount=type=secret,id=s,env=S,target=/k cmp_=$(cat /k); test "$S" = "$cmp_" && echo ok > /4\n'
        'RUN --mount=type=secret,id=none,env=N echo "${N-unset}" > /5\n'
        "RUN --mount=type=secret,id=none test -e /run/secrets/none || echo absent > /6\n"
    )
    built = lab.quick(text, secrets=(Secret(id="s", data=value),))
    assert [built.read(name) for name in "123456"] == [
        "400:0:0\n",
        "440:5:6\n",
        "ok\n",
        "ok\n",
        "unset\n",
        "absent\n",
    ]
    assert not built.has("run/secrets")
    assert lab.quick(text, secrets=(Secret(id="s", data=b"another"),)).id == built.id
    assert lab.steps_run() == [], "the value is no part of the key"
    assert value.decode() not in str(built.json)
    held = [path for path in lab.store.root.rglob("*") if path.is_file() and path.stat().st_size < 1 << 22]
    assert not [path for path in held if value in path.read_bytes()]
    with pytest.raises(SolveError, match="secret gone: not found"):
        lab.quick("FROM busybox\nRUN --mount=type=secret,id=gone,required=true true\n")


@row("MNT-14")
def test_secret_errors() -> None:
    assert message("type=secret,id=a,from=b") == "secret mount should not have a from"
    assert message("type=secret,id=a,sharing=locked") == "secret mount should not define sharing"
    assert message("type=secret") == "invalid secret mount. one of source, target required"
    assert message("type=secret,id=a,source=b") == "both source and id can't be set"
    assert mounts("type=secret,source=b") == mounts("type=secret,id=b")


@row("MNT-15")
def test_ssh_mounts() -> None:
    op = run(
        "--mount=type=ssh --mount=type=ssh,id=x,required --mount=type=ssh,target=/s,mode=0666,uid=3,gid=4"
    )
    found = {mount.dest: mount for mount in op.mounts[1:]}
    assert sorted(found) == ["/run/buildkit/ssh_agent.0", "/run/buildkit/ssh_agent.1", "/s"]
    first, second = found["/run/buildkit/ssh_agent.0"], found["/run/buildkit/ssh_agent.1"]
    assert (first.id, first.mode, first.optional) == ("default", 0o600, True)
    assert (second.id, second.optional) == ("x", False)
    assert "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0" in op.meta.env
    assert "SSH_AUTH_SOCK=own" in run("--mount=type=ssh", "ENV SSH_AUTH_SOCK=own\n").meta.env
    assert message("type=ssh,source=x") == "ssh does not support source"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """The socket of something that answers a line with the same line in capitals."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "agent"))
    server.listen()

    def serve() -> None:
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            with one:
                one.sendall(one.recv(100).upper())

    threading.Thread(target=serve, daemon=True).start()
    yield str(tmp_path / "agent")
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@root
@row("MNT-15")
def test_an_agent_is_forwarded(lab: Lab, agent: str) -> None:
    ssh = (SshAgent(id="default", socket=agent),)
    text = (
        "FROM busybox\nRUN --mount=type=ssh stat -c %a:%u:%g:%F $SSH_AUTH_SOCK > /1\n"
        "USER app\nRUN --mount=type=ssh,uid=1000,mode=0640,target=/tmp/a"
        " stat -c %a:%u:%g $SSH_AUTH_SOCK > /tmp/2\n"
        "RUN --mount=type=ssh,id=absent test -e /run/buildkit/ssh_agent.0 || echo none > /tmp/4\n"
    )
    built = lab.quick(text, ssh=ssh)
    assert built.read("1") == "600:0:0:socket\n"
    assert built.read("tmp/2") == "640:1000:0\n"
    assert built.read("tmp/4") == "none\n"
    assert not built.has("run/buildkit")
    with pytest.raises(SolveError, match='no SSH key "x" forwarded from the client'):
        lab.quick("FROM busybox\nRUN --mount=type=ssh,id=x,required true\n", ssh=ssh)


@row("MNT-15")
def test_what_a_step_says_reaches_the_agent(agent: str, tmp_path: Path) -> None:
    directory = tmp_path / ("deep" * 30)
    directory.mkdir()
    ids = {"uid": os.getuid(), "gid": os.getgid()}
    with agent_socket(agent, directory, mode=0o600, raw=True, **ids) as path:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as step:
                os.symlink(path, tmp_path / "short")
                step.connect(str(tmp_path / "short"))
                (tmp_path / "short").unlink()
                step.sendall(b"hello")
                assert step.recv(100) == b"HELLO"
                assert step.recv(100) == b""


@row("MNT-16")
def test_keys_that_do_not_fit() -> None:
    for kind in ("bind", "tmpfs"):
        for key in ("mode", "uid", "gid"):
            assert message(f"type={kind},target=/t,{key}=1") == f'{key} not allowed for "{kind}" type mounts'
    for key, value in (("mode", "9"), ("uid", "-1"), ("gid", "x")):
        assert message(f"type=cache,target=/t,{key}={value}") == f"invalid value {value} for {key}"
    assert message("target=/t,ro=maybe") == "invalid value for readonly: maybe"
    assert message("type=tmpfs,target=/t,size=big") == "invalid value for size: big"
    assert message("required,type=secret,id=x") == "unexpected key 'required' for mount type 'bind'"
    assert message("target=/t,size=1m,type=tmpfs") == "unexpected key 'size' for mount type 'bind'"
    for kind in ("bind", "cache", "tmpfs"):
        assert (
            message(f"type={kind},target=/t,required") == f"unexpected key 'required' for mount type '{kind}'"
        )
