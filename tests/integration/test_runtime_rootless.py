"""Containers without root: a user namespace with one id, and with a range of ids (EXE-31)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.rootless import MARKER
from tests.support.busybox_root import have_root

pytestmark = [
    pytest.mark.root,  # to become somebody else
    pytest.mark.linux,
    pytest.mark.skipif(
        not have_root() or not shutil.which("setpriv"), reason="needs root, busybox and setpriv"
    ),
]

PROLOGUE = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.environ["REPO"])
from runtime import rootless
if rootless.needed():
    sys.exit(rootless.reexec([sys.executable, *sys.argv], dict(os.environ, INSIDE="1")))
"""

CONTAINERS = (
    PROLOGUE
    + """
from runtime.errors import SetupFailed
from runtime.launcher import Launcher
from runtime.spec import DirRoot, FileMount, Limits, Network, OverlayRoot, TmpfsMount
from tests.support.busybox_root import Lab, make_root

work = Path(os.environ["WORK"])
base = make_root(work / "root", system_dirs=False)
with Launcher.start() as launcher:
    lab = Lab(base, work / "s", launcher)
    def root(name):
        (work / name / "u").mkdir(parents=True)
        (work / name / "w").mkdir()
        return OverlayRoot(lowers=(str(base),), upper=str(work / name / "u"), work=str(work / name / "w"), userxattr=True)
    single = os.environ[rootless.MARKER] == "single"
    mounts = (FileMount(target="/run/secrets/x", data=b"s"), TmpfsMount(target="/t"))
    script = "test $$ = 1; echo > /dev/null; head -c 1 /dev/urandom > /dev/null; cat /run/secrets/x; rm -r /tmp; ls /sys"
    lab.sh(script, root=root("one"), mounts=mounts, clean_stubs=True)
    assert not (work / "one" / "u" / "run").exists()
    lab.sh("touch /made", root=DirRoot(path=str(base)))
    assert (base / "made").exists()
    lab.sh("ls /sys", root=root("two"), network=Network(mode="host"))
    lab.sh("grep -q 'Seccomp:.*2' /proc/self/status && ! mount -t tmpfs x /tmp", root=root("three"))
    handle = launcher.run(lab.spec("true", root=root("four"), limits=Limits(memory_bytes=1 << 26)), stdout=1, stderr=2)
    print("warnings", bool(handle.warnings))
    handle.wait()
    handle = launcher.run(lab.spec("tty", root=root("five"), terminal=True), stdout=1, stderr=2)
    print(os.read(handle.terminal, 100))
    handle.wait()
    try:
        print(lab.sh("id -u; id -g; id -G", root=root("six"), user="bob:staff"))
    except SetupFailed as error:
        print("refused", error.call, error.hint)
"""
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that anybody may reach and use."""
    work = Path(tempfile.mkdtemp(prefix="pybuild-rootless-"))
    work.chmod(0o777)
    yield work
    shutil.rmtree(work)


@pytest.fixture
def somebody() -> Iterator[int]:
    """A user with ranges in /etc/subuid, for the time of a test."""
    name = f"pybuild{os.getpid()}"
    made = subprocess.run(["useradd", "--no-create-home", name], capture_output=True)
    if made.returncode != 0 or not shutil.which("newuidmap"):
        pytest.skip("needs useradd and newuidmap")
    try:
        import pwd

        yield pwd.getpwnam(name).pw_uid
    finally:
        subprocess.run(["userdel", name], capture_output=True)


def command(uid: int, script: Path) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", sys.executable, str(script)]


def environment(work: Path) -> dict[str, str]:
    repo = Path(__file__).resolve().parents[2]
    return {"PATH": os.environ["PATH"], "REPO": str(repo), "WORK": str(work), "PYTHONDONTWRITEBYTECODE": "1"}


def run_as(uid: int, source: str, work: Path) -> subprocess.CompletedProcess[str]:
    script = work / "script.py"
    script.write_text(source)
    return subprocess.run(
        command(uid, script), env=environment(work), capture_output=True, text=True, timeout=60
    )


def test_containers_with_one_id(place: Path) -> None:
    done = run_as(1234, CONTAINERS, place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warnings True" in done.stdout
    assert "/dev/pts/0" in done.stdout
    assert "\n0\n0\n0\n" in done.stdout  # bob has no id here: the only one stands in


def test_containers_with_a_range_of_ids(place: Path, somebody: int) -> None:
    done = run_as(somebody, CONTAINERS, place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[-3:] == ["1000", "50", "50"]


def test_status_and_signals_pass_through(place: Path) -> None:
    assert run_as(1234, PROLOGUE + "sys.exit(7)", place).returncode == 7
    assert run_as(1234, PROLOGUE + "os.kill(os.getpid(), 9)", place).returncode == 137
    marker = run_as(1234, PROLOGUE + f"print(os.environ['{MARKER}'], os.geteuid())", place)
    assert marker.stdout.split() == ["single", "0"]
    script = place / "script.py"
    script.write_text(PROLOGUE + "import time; print('up', flush=True); time.sleep(30)")
    process = subprocess.Popen(command(1234, script), env=environment(place), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    process.stdout.close()


def test_missing_permission_is_explained(place: Path) -> None:
    limit = Path("/proc/sys/user/max_user_namespaces")
    source = PROLOGUE.replace(
        "    sys.exit(",
        "    import ctypes, struct\n    from runtime.errors import NotPermitted\n    try:\n      sys.exit(",
    ).replace(
        'INSIDE="1")))',
        'INSIDE="1")))\n    except NotPermitted as error:\n      print(error.hint); sys.exit(9)',
    )
    # In a namespace whose limit is 0 no further one can be made.
    wrapper = place / "wrap.py"
    wrapper.write_text(
        "import ctypes, os, sys\n"
        "ctypes.CDLL(None).unshare(0x10000000)\n"
        "open('/proc/self/setgroups', 'w').write('deny')\n"
        f"open('/proc/self/uid_map', 'w').write('1234 1234 1')\n"
        f"open('{limit}', 'w').write('0')\n"
        "os.execv(sys.executable, [sys.executable, sys.argv[1]])\n"
    )
    script = place / "script.py"
    script.write_text(source)
    done = subprocess.run(
        [*command(1234, wrapper), str(script)], env=environment(place), capture_output=True, text=True
    )
    if done.returncode != 9:
        pytest.skip(f"cannot lower the limit here: {done.stderr[-200:]}")
    assert "max_user_namespaces" in done.stdout
