"""Environment, user, directory, other processors, devices and ordinary users (EXE-10…12, 28, 29, 31)."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.build.local import LazyMachine
from builder.errors import PybuildError, StepFailed
from builder.llb.definition import Edge, Vertex, VertexMeta
from builder.llb.ops import ExecMeta, ExecOp, Mount, SecretEnv
from builder.solver.ops.machine import EMULATOR, Emulation
from builder.solver.types import Secret
from runtime import emulation
from runtime.launcher import Launcher
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.handmade import Bench
from tests.support.rows import row
from tests.support.solving import BASE

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def bench(lab: Lab) -> Iterator[Bench]:
    with Launcher.start() as launcher:
        yield Bench(lab.store, launcher)


def step(bench: Bench, *args: str, secret_env: tuple[SecretEnv, ...] = (), **meta: Any) -> Vertex:
    op = ExecOp(
        meta=ExecMeta(args=args, **meta), mounts=(Mount(dest="/", input=0, output=0),), secret_env=secret_env
    )
    return bench.take(Vertex(op=op, inputs=(Edge(BASE.digest),), meta=VertexMeta(name=" ".join(args))))


def printed(bench: Bench, vertex: Vertex, **more: Any) -> str:
    bench.solved(vertex, **more)
    return bench.watcher.log(vertex.name)


@row("EXE-10")
def test_environment(bench: Bench) -> None:
    secrets = (Secret(id="s", data=b"word"),)
    shown = step(
        bench, "/bin/cat", "/proc/self/environ",
        env=("B=1", "A=2", "HTTPS_PROXY=own"), proxy_env=(("http_proxy", "h:1"), ("https_proxy", "no")),
        secret_env=(SecretEnv(id="s", name="TOKEN"),), user="app",
    )  # fmt: skip
    lines = printed(bench, shown, secrets=secrets).split("\0")[:-1]
    without_home = [line for line in lines if not line.startswith("HOME=")]
    assert without_home == [
        "B=1", "A=2", "HTTPS_PROXY=own", "http_proxy=h:1", "HTTP_PROXY=h:1", "https_proxy=no",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TOKEN=word",
    ]  # fmt: skip
    assert "HOME=/home/app" in lines
    for user, env, home in (("4321", (), "/"), ("", (), "/root"), ("app", ("HOME=/mine",), "/mine")):
        lines = printed(bench, step(bench, "/bin/cat", "/proc/self/environ", env=env, user=user)).split("\0")
        assert f"HOME={home}" in lines
        assert not [line for line in lines if line.startswith(("HOSTNAME=", "PWD=", "SHLVL="))]


@row("EXE-11")
@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("", "0 0 0"),
        ("app", "1000 1000 1000 7"),
        ("1000", "1000 1000 1000 7"),
        ("app:extra", "1000 7 7"),
        ("1000:5", "1000 5 5"),
        ("4321", "4321 0 0"),
        ("4321:8765", "4321 8765 8765"),
    ],
)
def test_users(bench: Bench, user: str, shown: str) -> None:
    vertex = step(bench, "/bin/sh", "-c", "echo $(id -u) $(id -g) $(id -G)", user=user, env=("PATH=/bin",))
    assert printed(bench, vertex) == f"{shown}\n"


@row("EXE-11")
def test_unknown_users(bench: Bench, lab: Lab) -> None:
    with pytest.raises(PybuildError, match="unable to find user nobody: no matching entries in passwd file"):
        bench.solve(step(bench, "/bin/true", user="nobody"))
    with pytest.raises(PybuildError, match="unable to find group nogroup"):
        bench.solve(step(bench, "/bin/true", user="app:nogroup"))
    lab.quick("FROM busybox\nRUN rm /etc/passwd /etc/group\nUSER 5:6\nRUN true\n")


@row("EXE-12")
def test_working_directory_and_lookup(bench: Bench, lab: Lab) -> None:
    made = step(bench, "/bin/sh", "-c", "pwd > here", cwd="/srv/deep/er", user="app", env=("PATH=/bin",))
    with bench.view(made) as view:
        for path in ("srv", "srv/deep", "srv/deep/er"):
            st = view.lstat(path)
            assert st is not None and (st.st_mode & 0o777, st.st_uid, st.st_gid) == (0o755, 1000, 1000)
        assert view.read("srv/deep/er/here", 100) == b"/srv/deep/er\n"
    built = lab.quick(
        "FROM busybox\nRUN ln -s /../../../../inside /way && mkdir -p /tools"
        " && printf '#!/bin/sh\\necho mine > /ran\\n' > /tools/tool && chmod +x /tools/tool\n"
        'WORKDIR /way\nRUN ["touch", "f"]\nENV PATH=/tools:/bin\nRUN ["tool"]\n'
    )
    assert built.has("inside/f") and not Path("/inside").exists()
    assert built.read("ran") == "mine\n"


@row("EXE-28")
def test_foreign_programs(lab: Lab) -> None:
    found = Emulation("/usr/bin/qemu-arm64-static")
    assert (found.mount.target, found.mount.source, found.mount.readonly) == (EMULATOR, found.path, True)
    assert EMULATOR == "/dev/.buildkit_qemu_emulator"
    assert found.args(("/bin/x", "a"), (), lambda: pytest.fail("not looked up"))[0] == EMULATOR
    context = lab.context()
    (context / "seven").write_bytes(
        emulation.small_program("arm64", bytes.fromhex("e00080d2a80b80d2010000d4"))
    )
    (context / "seven").chmod(0o755)
    with pytest.raises(StepFailed) as caught:
        lab.build(context, 'FROM scratch\nCOPY seven /bin/\nRUN ["seven"]\n', platforms=("linux/arm64",))
    assert caught.value.exit_code == 7, "an instruction of another processor chose this number"


@row("EXE-29")
def test_cdi_devices(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("library")
    edits = {
        "env": ["GPU=zero"],
        "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero", "fileMode": 438}],
        "mounts": [{"hostPath": str(tmp_path / "given"), "containerPath": "/gpu/lib", "options": ["ro"]}],
    }
    spec = {"cdiVersion": "0.6.0", "kind": "a.b/gpu", "devices": [{"name": "zero", "containerEdits": edits}]}
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/gpu.json").write_text(json.dumps(spec))
    before, lab._machine = lab._machine, LazyMachine(cdi_dirs=(str(tmp_path / "cdi"),))
    try:
        text = "FROM busybox\nENV GPU=before\nRUN --device=a.b/gpu=zero echo $GPU $(head -c 3 /dev/gpu0 | wc -c) $(cat /gpu/lib) > /o\n"
        built = lab.quick(text, allow=("device",))
    finally:
        lab._machine.close()
        lab._machine = before
    assert built.read("o") == "zero 3 library\n", "its edits come last"
    assert not built.has("gpu") and not built.has("dev/gpu0")


class Somebody(Runner):
    """The command as a user without any rights."""

    @property
    def prefix(self) -> list[str]:
        return ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", *super().prefix]


@row("EXE-31", "BET-01")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
def test_an_ordinary_user_without_daemon_or_id_ranges(lab: Lab, tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    Runner(lab.store.root).run("save", "-o", archive, "busybox")
    work = Path(tempfile.mkdtemp(prefix="pybuild-nobody-"))
    try:
        shutil.copy(archive, work / "base.tar")
        (work / "base.tar").chmod(0o644)
        (work / "context").mkdir()
        (work / "context/Dockerfile").write_text(
            "FROM busybox\nCOPY --chown=5:6 f /f\nRUN id -u > /who; chown 7:6 /f\nCOPY --link --chown=8:9 f /linked/f\n"
        )
        (work / "context/f").write_text("f")
        for path in (work, work / "context"):
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
            path.chmod(0o755)
        user = Somebody(work / "root")
        user.env["HOME"] = str(work)
        found = json.loads(user.run("doctor", "--format=json").out)
        text = json.dumps(found)
        assert "rootless" in text and "subuid" in text, "what is missing, and which fallback is used"
        user.run("load", "-i", work / "base.tar")
        user.run("build", "--network=none", f"--output=type=tar,dest={work}/out.tar", work / "context")
        listed = subprocess.run(
            ["tar", "--numeric-owner", "-tvf", work / "out.tar", "f", "linked/f"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert " 7/6 " in listed.stdout and " 8/9 " in listed.stdout
        shown = subprocess.run(
            ["tar", "-xOf", work / "out.tar", "who"], capture_output=True, text=True, check=True
        )
        assert shown.stdout == "0\n"
        left = subprocess.run(["ps", "-U", "nobody", "-o", "args"], capture_output=True, text=True).stdout
        assert "pybuild" not in left, "no daemon stays"
    finally:
        shutil.rmtree(work)
