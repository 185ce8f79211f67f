"""RUN with its mounts, networks and limits (RUN, MNT and EXE rows)."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import PybuildError, SolveError, StepFailed
from builder.llb.ops import Ulimit
from builder.solver.types import Secret, SshAgent
from tests.support.buildlab import Lab

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("run"))
    yield made
    made.close()


def test_bind_from_context_stage_and_image(lab: Lab) -> None:
    """MNT-05, MNT-06, MNT-18."""
    lab.quick("FROM scratch\nCOPY a /a\n", {"a": "image"}, tags=("lib:1",))
    built = lab.quick(
        "FROM busybox AS one\nRUN mkdir /s && echo stage > /s/f\n"
        "FROM busybox\nWORKDIR /w\n"
        "RUN --mount=target=/ctx cat /ctx/d/x > /1\n"
        "RUN --mount=type=bind,source=d,target=rel cat rel/x > /2\n"
        "RUN --mount=source=d/x,target=/file cat /file > /3\n"
        "RUN --mount=from=one,src=/s,dst=/st cat /st/f > /4\n"
        "RUN --mount=from=lib:1,target=/img cat /img/a > /5\n"
        "RUN --mount=target=/ctx if echo no > /ctx/new; then echo writable; else echo readonly; fi > /6\n"
        "RUN --mount=source=d,target=/rw,rw echo more > /rw/x && echo new > /rw/y && cat /rw/x /rw/y > /7\n"
        "RUN --mount=source=d,target=/rw cat /rw/x > /8; ls /rw >> /8\n"
        "RUN --mount=from=one,target=/o,rw rm -r /o/s && touch /o/gone\n"
        "COPY --from=one /s/f /9\n",
        {"d/x": "context"},
    )
    assert built.read("1") == built.read("2") == built.read("3") == "context"
    assert built.read("4") == built.read("9") == "stage\n"
    assert built.read("5") == "image"
    assert built.read("6") == "readonly\n"
    assert built.read("7") == "more\nnew\n"
    assert built.read("8") == "contextx\n"
    for stub in ("ctx", "file", "st", "img", "rw", "o", "w/rel"):
        assert not built.has(stub), stub


def test_context_bind_is_keyed_by_what_it_selects(lab: Lab) -> None:
    """CKY-04, CPY-25."""
    from tests.support.buildlab import Built

    root = lab.context({"d/x": "1", "other": "1"})
    text = "FROM busybox\nRUN --mount=source=d,target=/d cat /d/x > /out\n"
    first = Built(lab, lab.build(root, text))
    (root / "other").write_text("2")
    assert lab.build(root).image_id == first.id
    (root / "d/x").write_text("2")
    assert Built(lab, lab.build(root)).read("out") == "2"
    (root / "d/x").write_text("1")
    assert lab.build(root).image_id == first.id


def test_cache_mount_keeps_its_content(lab: Lab) -> None:
    """MNT-07, MNT-09."""
    text = (
        "FROM busybox\nRUN --mount=type=cache,target=/c,uid=1000,gid=7,mode=0700"
        " stat -c %a:%u:%g /c > /stat && echo {0} >> /c/log && cat /c/log > /log\n"
    )
    assert lab.quick(text.format(1)).read("log") == "1\n"
    second = lab.quick(text.format(2))
    assert second.read("log") == "1\n2\n"
    assert second.read("stat") == "700:1000:7\n"
    assert not second.has("c")
    same = lab.quick(
        "FROM busybox\nRUN --mount=type=cache,id=/c,target=/elsewhere,uid=1000,gid=7,mode=0700 cat /elsewhere/log > /log\n"
    )
    assert same.read("log") == "1\n2\n"
    own = lab.quick("FROM busybox\nRUN --mount=type=cache,id=own,target=/c ls -a /c > /log\n")
    assert own.read("log") == ".\n..\n"
    cleared = lab.quick(text.format(3), no_cache=True)
    assert cleared.read("log") == "3\n", "MNT-10"


def test_cache_mount_starts_with_the_content_of_a_stage(lab: Lab) -> None:
    """MNT-07."""
    text = (
        "FROM busybox AS seed\nRUN mkdir -p /s/in && echo seed > /s/in/f\nFROM busybox\n"
        "RUN --mount=type=cache,id=seeded,from=seed,source=/s,target=/c cat /c/in/f > /f && echo {0} >> /c/in/f\n"
    )
    assert lab.quick(text.format(1)).read("f") == "seed\n"
    assert lab.quick(text.format(2)).read("f") == "seed\n1\n"


def test_cache_sharing_modes(lab: Lab) -> None:
    """MNT-08: private writers have directories of their own, locked ones wait for each other."""
    stage = (
        "FROM busybox AS s{n}\nRUN --mount=type=cache,id={mode},sharing={mode},target=/c echo {n} >> /c/log;"
        " sleep 0.3; cat /c/log > /log{n}\n"
    )
    for mode, lines in (("private", {1}), ("locked", {1, 2}), ("shared", {2})):
        text = "".join(stage.format(n=n, mode=mode) for n in (1, 2))
        built = lab.quick(text + "FROM busybox\nCOPY --from=s1 /log1 /\nCOPY --from=s2 /log2 /\n")
        assert {len(built.read(f"log{n}").split()) for n in (1, 2)} == lines, mode


@pytest.mark.parametrize("mode", ["shared", "private", "locked"])
def test_a_cache_mount_named_twice_in_one_step(lab: Lab, mode: str) -> None:
    """EXE-32: one directory, and no waiting for oneself."""
    mounts = " ".join(f"--mount=type=cache,id=twice-{mode},sharing={mode},target=/{name}" for name in "ab")
    assert lab.quick(f"FROM busybox\nRUN {mounts} touch /a/x && ls /b > /o\n").read("o") == "x\n"


def test_tmpfs(lab: Lab) -> None:
    """MNT-11."""
    built = lab.quick(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=8m df -k /t | grep /t > /df; touch /t/x\n"
        "RUN --mount=type=tmpfs,target=/t ls /t > /ls\n"
    )
    assert "8192" in built.read("df")
    assert built.read("ls") == ""
    assert not built.has("t")


def test_secrets(lab: Lab) -> None:
    """MNT-12, MNT-13."""
    text = (
        "FROM busybox\nRUN --mount=type=secret,id=a cat /run/secrets/a | tr a-z A-Z > /1; stat -c %a:%u /run/secrets/a > /2\n"
        "RUN --mount=type=secret,id=a,target=/etc/deep/s,mode=0444,uid=5 stat -c %a:%u /etc/deep/s > /3\n"
        'RUN --mount=type=secret,id=a,env=TOKEN echo "$TOKEN" | tr a-z A-Z > /4; ls /run > /5 2> /dev/null || true\n'
        "RUN --mount=type=secret,id=b ls -d /run/secrets/b > /6 2>&1 || true\n"
        "RUN --mount=type=secret,target=/x/a tr a-z A-Z < /x/a > /7\n"
    )
    built = lab.quick(text, secrets=(Secret(id="a", data=b"wlkqzpv"),))
    assert built.read("1") == built.read("7") == "WLKQZPV"
    assert built.read("2") == "400:0\n"
    assert built.read("3") == "444:5\n"
    assert built.read("4") == "WLKQZPV\n"
    assert built.read("5") == ""
    assert "No such file" in built.read("6")
    assert not any(built.has(path) for path in ("run/secrets", "etc/deep", "x"))
    held = [p for p in lab.store.root.rglob("*") if p.is_file() and p.stat().st_size < 1 << 24]
    assert not [p for p in held if b"wlkqzpv" in p.read_bytes()]
    with pytest.raises(SolveError, match="secret zz: not found") as caught:
        lab.quick("FROM busybox\nRUN --mount=type=secret,id=zz,required=true true\n")
    assert caught.value.first_line == 2


def test_ssh_agent_socket(lab: Lab, tmp_path: Path) -> None:
    """MNT-15."""
    path = tmp_path / "agent"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    text = "FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /sock\n"
    built = lab.quick(text, ssh=(SshAgent(id="default", socket=str(path)),))
    server.close()
    assert built.read("sock") == "/run/buildkit/ssh_agent.0\n"
    assert not built.has("run/buildkit")
    with pytest.raises(SolveError, match='no SSH key "x" forwarded'):
        lab.quick("FROM busybox\nRUN --mount=type=ssh,id=x,required true\n")
    optional = lab.quick("FROM busybox\nRUN --mount=type=ssh,id=x test -S $SSH_AUTH_SOCK; echo $? > /s\n")
    assert optional.read("s") == "1\n"


def test_networks(lab: Lab) -> None:
    """RUN-06, EXE-16."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def answer() -> None:
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            one.sendall(b"hello\n")
            one.close()

    threading.Thread(target=answer, daemon=True).start()
    try:
        text = f"FROM busybox\nRUN --network={{}} nc 127.0.0.1 {port} > /n < /dev/null || true\n"
        assert lab.quick(text.format("none")).read("n") == ""
        with pytest.raises(SolveError, match=r"network\.host is not allowed") as caught:
            lab.quick(text.format("host"))
        assert caught.value.first_line == 2
        assert lab.quick(text.format("host"), allow=("network.host",)).read("n") == "hello\n"
        text = f"FROM busybox\nRUN nc 127.0.0.1 {port} > /n < /dev/null || true\n"
        assert lab.quick(text, network="none").read("n") == ""
        assert lab.quick(text, network="host").read("n") == "hello\n"
    finally:
        server.close()


def test_insecure_needs_to_be_allowed(lab: Lab) -> None:
    """RUN-07."""
    text = "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status > /caps\n"
    with pytest.raises(SolveError, match=r"security\.insecure is not allowed"):
        lab.quick(text)
    assert lab.quick(text, allow=("security.insecure",)).read("caps").split()[1] > "0000001" + "0" * 9


def test_hosts_limits_and_shared_memory(lab: Lab) -> None:
    """RUN-10."""
    built = lab.quick(
        "FROM busybox\nRUN cat /etc/hosts > /1; ulimit -n > /2; df -k /dev/shm | grep shm > /3; hostname > /4\n",
        extra_hosts=(("db", "10.1.2.3"),),
        ulimits=(Ulimit(name="nofile", soft=99, hard=100),),
        shm_size_bytes=1 << 20,
    )
    assert "10.1.2.3\tdb" in built.read("1")
    assert built.read("2") == "99\n"
    assert "1024" in built.read("3")
    assert built.read("4") == "buildkitsandbox\n"
    with built.tree() as view:
        found = view.lstat("etc/hosts")
    assert found is None or found.st_size == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"extra_hosts": (("me", "host-gateway"),)}, "host-gateway has no meaning"),
        ({"ulimits": (Ulimit(name="nothing", soft=1, hard=1),)}, "unknown resource limit 'nothing'"),
        ({"ulimits": (Ulimit(name="nofile", soft=1 << 40, hard=1 << 40),)}, "ulimit nofile=.*not permitted"),
        ({"cgroup_parent": "../x"}, "bad cgroup path"),
    ],
)
def test_options_that_no_container_can_have(lab: Lab, options: dict[str, Any], words: str) -> None:
    with pytest.raises(PybuildError, match=words):
        lab.quick("FROM busybox\nRUN true\n", no_cache=True, **options)


def test_host_gateway_is_the_host(lab: Lab) -> None:
    built = lab.quick(
        "FROM busybox\nRUN cat /etc/hosts > /1\n",
        network="host",
        allow=("network.host",),
        extra_hosts=(("me", "host-gateway"),),
    )
    assert "127.0.0.1\tme" in built.read("1")


def test_shell_user_workdir_environment(lab: Lab) -> None:
    """RUN-01, RUN-02, MET-01, MET-05, EXE-10…12."""
    built = lab.quick(
        "FROM busybox\nARG ARGUMENT=arg\nENV FROM_ENV=env\nUSER app\nWORKDIR /home/app/w\n"
        "RUN id -u > who; id -g >> who; pwd > where; env > env\n"
        'RUN ["sh", "-c", "echo $0-$FROM_ENV", "zero"]\nRUN ["touch", "$FROM_ENV"]\n'
        'SHELL ["/bin/sh", "-ec"]\nRUN false || true; echo $- > flags\nUSER 4321:8765\nWORKDIR /numeric\nRUN id -u > /tmp/n; id -g >> /tmp/n; id -G >> /tmp/n\n'
        "USER root\nWORKDIR rel\nRUN pwd > /tmp/rel\n"
    )
    assert built.read("home/app/w/who") == "1000\n1000\n"
    assert built.read("home/app/w/where") == "/home/app/w\n"
    env = dict(line.split("=", 1) for line in built.read("home/app/w/env").splitlines())
    assert (env["ARGUMENT"], env["FROM_ENV"], env["HOME"]) == ("arg", "env", "/home/app")
    assert "PATH" in env
    assert built.has("home/app/w/$FROM_ENV")
    assert "e" in built.read("home/app/w/flags")
    assert built.read("tmp/n") == "4321\n8765\n8765\n"
    assert built.read("tmp/rel") == "/numeric/rel\n"
    assert built.stat("home/app/w").st_uid == 1000
    assert (built.stat("numeric").st_uid, built.stat("numeric").st_gid) == (4321, 8765)
    assert built.stat("numeric/rel").st_uid == 0
    assert built.json["config"]["Shell"] == ["/bin/sh", "-ec"]


def test_proxy_arguments_stay_out(lab: Lab) -> None:
    """ARG-10."""
    text = "FROM busybox\nRUN echo $HTTP_PROXY $http_proxy > /p\n"
    first = lab.quick(text, build_args=(("HTTP_PROXY", "http://one:1"),))
    assert first.read("p") == "http://one:1 http://one:1\n"
    assert "one:1" not in str(first.json)
    assert lab.quick(text, build_args=(("http_proxy", "http://two:2"),)).id == first.id


def test_stdin_is_empty_and_children_end_with_the_step(lab: Lab) -> None:
    """EXE-01, EXE-24."""
    built = lab.quick("FROM busybox\nRUN cat > /in; (sleep 300; echo late > /late) > /dev/null 2>&1 & true\n")
    assert built.read("in") == ""
    assert not built.has("late")
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 300" not in left


def test_failures_say_what_and_where(lab: Lab) -> None:
    """RUN-04, EXE-11, DIA rows."""
    with pytest.raises(StepFailed) as caught:
        lab.quick("FROM busybox\n\nRUN echo out; echo err >&2; \\\n    exit 42\n")
    error = caught.value
    assert error.exit_code == 42
    assert error.message.endswith("did not complete successfully: exit code: 42")
    assert (error.filename, error.first_line, error.last_line) == ("Dockerfile", 3, 4)
    assert {"out", "err"} <= set(
        "\n".join(map(str, error.log_tail)).replace("b'", "").replace("'", "").split()
    )
    with pytest.raises(PybuildError, match="unable to find user ghost") as missing:
        lab.quick("FROM busybox\nUSER ghost\nRUN true\n")
    assert getattr(missing.value, "first_line", None) == 3
    with pytest.raises(PybuildError, match="nosuch") as command:
        lab.quick('FROM busybox\nRUN ["nosuch"]\n')
    assert getattr(command.value, "first_line", None) == 2
