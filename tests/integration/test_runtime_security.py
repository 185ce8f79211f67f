"""What has broken container runtimes before (security-cases 2 and 3): hostile roots, races, leaks."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import capabilities
from runtime.errors import CommandNotExecutable, ContainerError, SetupFailed, UserNotFound
from runtime.launcher import Launcher
from runtime.spec import BindMount, DirRoot, ExecSpec, FileMount, OverlayRoot, TmpfsMount
from tests.support.busybox_root import Lab, have_root, make_root

pytestmark = [
    pytest.mark.root,
    pytest.mark.linux,
    pytest.mark.skipif(not have_root(), reason="needs root and busybox"),
]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher.start() as started:
        yield started


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("base") / "root")


@pytest.fixture
def lab(base: Path, tmp_path: Path, launcher: Launcher) -> Lab:
    return Lab(base, tmp_path / "snapshots", launcher)


@pytest.fixture
def evil(base: Path, tmp_path: Path) -> Path:
    """A root of its own that a test spoils."""
    return Path(shutil.copytree(base, tmp_path / "evil", symlinks=True))


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A host directory that must be the same afterwards."""
    place = tmp_path / "canary"
    (place / "dir").mkdir(parents=True)
    (place / "file").write_text("precious")
    before = fingerprint(place)
    yield place
    assert fingerprint(place) == before


def fingerprint(place: Path) -> list[tuple[str, int, int, int]]:
    rows = []
    for path in sorted([place, *place.rglob("*")]):
        info = path.lstat()
        rows.append((str(path), info.st_mode, info.st_size, info.st_mtime_ns))
    return rows


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("kind", ["link-out", "link-in", "file"])
def test_system_directories_that_are_not_directories_are_refused(
    lab: Lab, evil: Path, canary: Path, name: str, kind: str
) -> None:
    (evil / name).rmdir()
    if kind == "file":
        (evil / name).write_text("")
    else:
        (evil / name).symlink_to(canary / "dir" if kind == "link-out" else "tmp")
    with pytest.raises(SetupFailed, match=f"/{name}"):
        lab.run("true", root=OverlayRoot(lowers=(str(evil),)))


def test_missing_system_directories_are_made(lab: Lab, tmp_path: Path) -> None:
    bare = make_root(tmp_path / "bare", system_dirs=False)
    (tmp_path / "up").mkdir()
    (tmp_path / "work").mkdir()
    root = OverlayRoot(lowers=(str(bare),), upper=str(tmp_path / "up"), work=str(tmp_path / "work"))
    lab.sh("test -e /proc/self && test -c /dev/null && test -d /sys/class", root=root, clean_stubs=True)
    # As with the reference builder, these mount points stay in the layer.
    assert sorted(os.listdir(tmp_path / "up")) == ["dev", "proc", "sys"]


def test_nodes_of_the_image_in_dev_are_never_used(lab: Lab, evil: Path) -> None:
    (evil / "dev" / "null").symlink_to("/etc/passwd")
    (evil / "dev" / "console").symlink_to("/etc/passwd")
    (evil / "dev" / "pts").symlink_to("/etc")
    before = (evil / "etc" / "passwd").read_text()
    output = lab.sh(
        "echo x > /dev/null; stat -c %F /dev/null; wc -c < /proc/keys", root=DirRoot(path=str(evil))
    )
    assert output.split("\n")[0] == "character special file"
    assert output.split()[-1] == "0"
    assert (evil / "etc" / "passwd").read_text() == before


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10, 20, 100, 1023])
def test_working_directory_through_descriptors_is_refused(lab: Lab, number: int) -> None:
    for path in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../..", f"/proc/1/fd/{number}"):
        with pytest.raises(ContainerError):
            lab.run("pwd", cwd=path)


@pytest.mark.parametrize("path", ["/proc/self/cwd", "/proc/self/root", "/proc/1/root/etc"])
def test_working_directory_through_other_magic_links_is_refused(lab: Lab, path: str) -> None:
    with pytest.raises(SetupFailed):
        lab.run("pwd", cwd=path)


def test_working_directory_through_a_link_stays_in_the_root(lab: Lab, evil: Path, canary: Path) -> None:
    (evil / "a").symlink_to(canary)
    lab.sh("pwd", root=DirRoot(path=str(evil)), cwd="/a/made", user="bob")
    assert not (canary / "made").exists()
    assert (evil / str(canary)[1:] / "made").is_dir()


def test_mount_targets_through_links_stay_in_the_root(lab: Lab, evil: Path, canary: Path) -> None:
    (evil / "out").symlink_to(canary)
    (evil / "up").symlink_to("../../../../../../..")
    mounts = (
        TmpfsMount(target="/out/dir"),
        FileMount(target="/out/new", data=b"x"),
        TmpfsMount(target=f"/up/{str(canary)[1:]}/other"),
    )
    lab.sh(
        "touch /out/dir/inside; cat /out/new", root=DirRoot(path=str(evil)), mounts=mounts, clean_stubs=True
    )


def test_mount_target_in_procfs_descriptors_is_refused(lab: Lab, canary: Path) -> None:
    for target in ("/proc/self/fd/5/x", "/proc/1/root/tmp/x", "/proc/self/cwd/x"):
        with pytest.raises(SetupFailed):
            lab.run("true", mounts=(TmpfsMount(target=target),))


def test_stub_clean_up_never_follows_links(lab: Lab, canary: Path) -> None:
    mounts = (FileMount(target="/opt/deep/file", data=b"x"), TmpfsMount(target="/srv/dir"))
    script = f"mv /opt/deep /opt/moved; ln -s {canary} /opt/deep; mv /srv /srv2; ln -s {canary} /srv"
    lab.run("sh", "-c", script, mounts=mounts, clean_stubs=True)
    assert (canary / "file").read_text() == "precious"
    assert (canary / "dir").is_dir()


def test_stub_that_became_a_link_or_content_is_left(lab: Lab, canary: Path) -> None:
    spec = lab.spec(
        "sh",
        "-c",
        "umount /a; rm /a; ln -s /etc/passwd /a; umount /b; echo mine > /b",
        mounts=(FileMount(target="/a", data=b""), FileMount(target="/b", data=b"")),
        clean_stubs=True,
        capabilities=(*capabilities.DEFAULT, "SYS_ADMIN"),
        seccomp="unconfined",
    )
    status, output = lab.run_spec(spec)
    assert status.code == 0, output
    assert (lab.upper / "a").is_symlink()
    assert (lab.upper / "b").read_text() == "mine\n"


def test_subpaths_do_not_leave_their_source(lab: Lab, tmp_path: Path, canary: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "link").symlink_to(canary)
    (source / "up").symlink_to("../canary")
    for subpath in ("link", "up", "../canary", "link/dir"):
        try:
            lab.run(
                "sh",
                "-c",
                "touch /m/owned",
                mounts=(BindMount(target="/m", source=str(source), subpath=subpath),),
            )
        except SetupFailed:
            continue
    with pytest.raises(SetupFailed):
        lab.run("true", mounts=(BindMount(target="/m", source="/", subpath="/proc/self/fd/0"),))


class Flipper:
    """Exchanges two names as fast as it can (renameat2 RENAME_EXCHANGE)."""

    def __init__(self, first: Path, second: Path) -> None:
        self._names = os.fsencode(first), os.fsencode(second)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._flip)
        self.turns = 0

    def __enter__(self) -> Flipper:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _flip(self) -> None:
        rename = ctypes.CDLL(None).renameat2
        while not self._stop.is_set():
            for _ in range(100):
                rename(-100, self._names[0], -100, self._names[1], 2)
            self.turns += 100


def test_racing_mount_targets(lab: Lab, evil: Path, canary: Path, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: the target's parent flips between a directory and a link to the
    host."""
    volume = tmp_path / "volume"
    (volume / "a").mkdir(parents=True)
    (volume / "b").symlink_to(canary)
    mounts = (
        BindMount(target="/vol", source=str(volume)),
        TmpfsMount(target="/vol/a/dir"),
        FileMount(target="/vol/a/stub", data=b"x"),
    )
    with Flipper(volume / "a", volume / "b"):
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            try:
                lab.run(
                    "sh",
                    "-c",
                    "echo x > /vol/a/dir/x",
                    root=DirRoot(path=str(evil)),
                    mounts=mounts,
                    clean_stubs=True,
                )
            except SetupFailed:
                continue


def test_racing_sub_path(lab: Lab, tmp_path: Path, canary: Path) -> None:
    """CVE-2024-23651: the sub-path of a mount flips between a directory and a link to the host."""
    source = tmp_path / "cache"
    (source / "a").mkdir(parents=True)
    (source / "b").symlink_to(canary)
    mounts = (BindMount(target="/m", source=str(source), subpath="a"),)
    with Flipper(source / "a", source / "b"):
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            try:
                _, output = lab.run("sh", "-c", "ls /m", mounts=mounts)
            except SetupFailed:
                continue
            assert "file" not in output


@pytest.mark.parametrize("name", ["etc/passwd", "etc/group"])
@pytest.mark.parametrize(
    "kind", ["fifo", "device", "huge", "link-out", "loop", "directory", "procfs", "socket"]
)
def test_user_files_that_are_traps(lab: Lab, evil: Path, canary: Path, name: str, kind: str) -> None:
    victim = evil / name
    victim.unlink()
    if kind == "fifo":
        os.mkfifo(victim)
    elif kind == "device":
        os.mknod(victim, 0o020666, os.makedev(1, 5))
    elif kind == "huge":
        with open(victim, "wb") as file:
            file.truncate(1 << 30)
    elif kind == "link-out":
        (canary / "file").lstat()
        victim.symlink_to("/etc/shadow")
    elif kind == "loop":
        victim.symlink_to(victim.name)
    elif kind == "directory":
        victim.mkdir()
    elif kind == "procfs":
        victim.symlink_to("/proc/kmsg")
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(victim))
    start = time.monotonic()
    root = DirRoot(path=str(evil))
    assert lab.sh("grep ^Uid /proc/self/status", root=root, user="5:6").split()[1] == "5"
    with pytest.raises(UserNotFound):
        lab.run("true", root=root, user="carol:crew")
    assert time.monotonic() - start < 2


def test_long_lines_and_rubbish_in_passwd(lab: Lab, evil: Path) -> None:
    rubbish = (
        b"x" * 300_000
        + b"\nroot::::\nbob:x:99999999999:1:::\nbob:x:-1:0::/:\nbob:x:12:13::/b:/bin/sh\n\xff\xfe:x:1"
    )
    (evil / "etc" / "passwd").write_bytes(rubbish)
    root = DirRoot(path=str(evil))
    assert lab.sh("grep ^Uid /proc/self/status", root=root, user="bob").split()[1] == "12"


def test_interpreter_cannot_be_written_through_proc_self_exe(lab: Lab, tmp_path: Path) -> None:
    """CVE-2019-5736: a container that executes /proc/self/exe runs our interpreter, and must not get to write
    it."""
    interpreter = Path(os.path.realpath(sys.executable))
    before = interpreter.stat().st_mtime_ns, hashlib.sha256(interpreter.read_bytes()).hexdigest()
    for script in (b"#!/proc/self/exe -c\n", b"#!/proc/self/exe\nimport os\n"):
        mount = FileMount(target="/evil", data=script, mode=0o755)
        try:
            lab.run("/evil", mounts=(mount,))
        except ContainerError:
            pass
    # With the host's libraries inside, it does run: then its own executable has to be on a read-only mount.
    code = (
        b"import os\nprint('read-only' if os.statvfs('/proc/self/exe').f_flag & os.ST_RDONLY else 'writable')\n"
        b"os.open('/proc/self/exe', os.O_WRONLY)\n"
    )
    mounts = tuple(
        BindMount(target=place, source=place, readonly=True)
        for place in ("/lib", "/lib64", "/usr")
        if Path(place).exists()
    )
    script_file = FileMount(target="/evil.py", data=code, mode=0o755)
    status, output = lab.run("/proc/self/exe", "-S", "/evil.py", mounts=(*mounts, script_file))
    assert status.code == 1
    assert output.startswith("read-only")
    assert (interpreter.stat().st_mtime_ns, hashlib.sha256(interpreter.read_bytes()).hexdigest()) == before


def test_nothing_of_the_launcher_shows(lab: Lab) -> None:
    output = lab.sh(
        "cat /proc/1/cmdline /proc/1/environ | tr '\\0' '\\n'; ls /proc | grep -c '^[0-9]'; cat /proc/1/status"
    )
    assert "runtime" not in output
    assert "launcher" not in output
    assert str(lab.base) not in lab.sh("cat /proc/1/environ")


def test_old_root_is_gone(lab: Lab) -> None:
    points = [row.split()[1] for row in lab.sh("cat /proc/1/mounts").splitlines()]
    allowed = ("/proc", "/sys", "/dev")
    assert [p for p in points if p != "/" and not p.startswith(allowed)] == []
    assert lab.sh("ls /../../..") == lab.sh("ls /")


def test_kill_everything_reaches_nothing_outside(lab: Lab) -> None:
    lab.run("sh", "-c", "kill -9 -1")
    status, _ = lab.run("sh", "-c", f"kill -9 {os.getpid()}")
    assert status.code != 0


def test_exec_cannot_be_traced_and_holds_nothing(lab: Lab) -> None:
    """CVE-2016-9962: what enters a container shows no descriptor of ours while it does."""
    watcher = (
        "while true; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/self) continue;; esac; "
        "for f in $p/fd/*; do readlink $f; done; done; done > /seen 2>/dev/null"
    )
    main = lab.launcher.run(lab.spec("sh", "-c", watcher), stdout=1, stderr=2)
    held = [os.open(lab.base / "etc" / "passwd", os.O_RDONLY) for _ in range(50)]
    null = os.open("/dev/null", os.O_RDWR)
    for _ in range(20):
        spec = ExecSpec(args=("true",), env=("PATH=/bin",), capabilities=capabilities.DEFAULT)
        lab.launcher.enter(main.pid, spec, stdout=null, stderr=null).wait()
    for fd in (*held, null):
        os.close(fd)
    main.kill()
    main.wait()
    seen = set((lab.upper / "seen").read_text().split("\n"))
    assert not {row for row in seen if "passwd" in row or "ns/" in row or "pidfd" in row}


def test_exec_capabilities_are_cut_to_the_containers(lab: Lab) -> None:
    main = lab.launcher.run(lab.spec("sleep", "60", capabilities=("CHOWN",)), stdout=1, stderr=2)
    read, write = os.pipe()
    spec = ExecSpec(
        args=("grep", "^Cap", "/proc/self/status"), env=("PATH=/bin",), capabilities=capabilities.ALL
    )
    lab.launcher.enter(main.pid, spec, stdout=write, stderr=write).wait()
    os.close(write)
    with open(read) as stream:
        rows = dict(line.split() for line in stream.read().splitlines())
    assert rows["CapBnd:"] == rows["CapEff:"] == f"{1:016x}"
    assert rows["CapInh:"] == "0" * 16
    main.kill()
    main.wait()


def test_exec_working_directory_through_descriptors_is_refused(lab: Lab) -> None:
    main = lab.launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    for number in (3, 4, 5, 8, 10):
        with pytest.raises(SetupFailed):
            lab.launcher.enter(
                main.pid,
                ExecSpec(args=("pwd",), env=("PATH=/bin",), cwd=f"/proc/self/fd/{number}"),
                stdout=1,
                stderr=2,
            )
    main.kill()
    main.wait()


def test_terminal_is_the_containers_own(lab: Lab) -> None:
    """TIOCSTI and kin: the session is new, and the controlling terminal is none, or the container's own."""
    output = lab.sh("cat /proc/self/stat; tty || true")
    fields = output.split(") ")[-1].split()
    assert fields[3] == "1"  # session
    assert fields[4] == "0"  # controlling terminal


def test_directories_as_commands(lab: Lab) -> None:
    with pytest.raises(CommandNotExecutable):
        lab.run("/proc/self/fd")
