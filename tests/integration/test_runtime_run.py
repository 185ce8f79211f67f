"""Containers are started, confined, waited for and cleaned up after (EXE rows)."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import capabilities, plan
from runtime.errors import CommandNotExecutable, CommandNotFound, SetupFailed, UserNotFound
from runtime.launcher import Launcher
from runtime.spec import (
    BindMount,
    Device,
    DirRoot,
    ExecSpec,
    FileMount,
    Limits,
    Network,
    OverlayMount,
    OverlayRoot,
    Rlimit,
    TmpfsMount,
)
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


def upper_files(lab: Lab) -> list[str]:
    return sorted(str(path.relative_to(lab.upper)) for path in lab.upper.rglob("*"))


def test_exit_code_and_output(lab: Lab) -> None:
    status, output = lab.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (status.code, status.signal) == (7, None)
    assert sorted(output.split()) == ["err", "out"]


def test_signal_is_reported(lab: Lab) -> None:
    handle = lab.launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    handle.kill(signal.SIGKILL)
    status = handle.wait()
    assert status.signal == signal.SIGKILL
    assert status.shell_code == 137


def test_changes_land_in_the_upper_directory(lab: Lab) -> None:
    lab.sh("echo hi > /file; mkdir /dir")
    assert upper_files(lab) == ["dir", "file"]


def test_namespaces_are_new_and_process_is_pid_one(lab: Lab) -> None:
    output = lab.sh("echo $$; for n in pid mnt ipc uts net; do readlink /proc/self/ns/$n; done")
    pid, *namespaces = output.split()
    assert pid == "1"
    ours = [os.readlink(f"/proc/self/ns/{n}") for n in ("pid", "mnt", "ipc", "uts", "net")]
    assert not set(namespaces) & set(ours)


def test_default_mounts(lab: Lab) -> None:
    rows = [line.split() for line in lab.sh("cat /proc/self/mounts").splitlines()]
    found = {row[1]: (row[2], set(row[3].split(","))) for row in rows}
    assert found["/"][0] == "overlay"
    assert found["/proc"][0] == "proc"
    assert found["/dev"][0] == "tmpfs"
    assert {"nosuid", "mode=755", "size=65536k"} <= found["/dev"][1]
    assert {"gid=5", "mode=620", "ptmxmode=666", "nosuid", "noexec"} <= found["/dev/pts"][1]
    assert {"nosuid", "noexec", "nodev", "size=65536k"} <= found["/dev/shm"][1]
    assert found["/dev/mqueue"][0] == "mqueue"
    assert {"ro", "nosuid", "noexec", "nodev"} <= found["/sys"][1]
    assert "ro" in found["/sys/fs/cgroup"][1]
    assert "ro" in found["/proc/sys"][1]
    assert "/run" not in found


def test_masked_and_readonly_paths(lab: Lab) -> None:
    output = lab.sh(
        "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware /proc/acpi | wc -l"
    )
    assert output.split()[0] == "0"
    status, _ = lab.run("sh", "-c", "echo x > /proc/sys/kernel/hostname")
    assert status.code != 0


def test_capabilities(lab: Lab) -> None:
    rows = dict(line.split() for line in lab.sh("grep ^Cap /proc/self/status").splitlines())
    expected = f"{capabilities.mask(capabilities.DEFAULT):016x}"
    assert rows["CapInh:"] == rows["CapAmb:"] == "0" * 16
    assert rows["CapPrm:"] == rows["CapEff:"] == rows["CapBnd:"] == expected
    rows = dict(line.split() for line in lab.sh("grep ^Cap /proc/self/status", user="bob").splitlines())
    assert rows["CapInh:"] == rows["CapEff:"] == rows["CapPrm:"] == "0" * 16
    assert rows["CapBnd:"] == expected


def test_no_new_privileges_is_off_unless_asked(lab: Lab) -> None:
    assert lab.sh("grep NoNewPrivs /proc/self/status").split()[1] == "0"
    assert lab.sh("grep NoNewPrivs /proc/self/status", no_new_privileges=True).split()[1] == "1"


def test_seccomp_filters(lab: Lab) -> None:
    assert lab.sh("grep Seccomp: /proc/self/status").split()[1] == "2"
    assert lab.sh("grep Seccomp: /proc/self/status", seccomp="unconfined").split()[1] == "0"
    status, output = lab.run("unshare", "-m", "true")
    assert status.code != 0
    assert "permitted" in output
    assert lab.run("unshare", "-m", "true", seccomp="unconfined", capabilities=("SYS_ADMIN",))[0].code == 0
    assert lab.run("unshare", "-m", "true", capabilities=("SYS_ADMIN",))[0].code == 0


def test_only_three_descriptors_and_empty_stdin(lab: Lab) -> None:
    held = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(50)]
    for fd in held:
        os.set_inheritable(fd, True)
    try:
        output = lab.sh("cat; for f in /proc/self/fd/*; do echo ${f##*/}; done; readlink /proc/self/fd/0")
    finally:
        for fd in held:
            os.close(fd)
    assert "/dev/null" in output
    # the shell's own glob opens the directory as 3
    assert set(output.split()) <= {"0", "1", "2", "3", "/dev/null"}


def test_environment_and_home(lab: Lab) -> None:
    lines = lab.sh("env", env=("PATH=/bin", "A=1", "A=2", "EMPTY=")).splitlines()
    assert {"A=2", "EMPTY=", "HOME=/root", "PATH=/bin"} <= set(lines)
    assert {line.split("=")[0] for line in lines} <= {"A", "EMPTY", "HOME", "PATH", "PWD", "SHLVL", "OLDPWD"}
    assert lab.sh("echo $HOME", user="bob").strip() == "/home/bob"
    assert lab.sh("echo $HOME", user="4321").strip() == "/"
    assert lab.sh("echo $HOME", env=("PATH=/bin", "HOME=/x")).strip() == "/x"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "0 0 0 44"),
        ("bob", "1000 1000 44 1000"),
        ("1000", "1000 1000 44 1000"),
        ("bob:staff", "1000 50 50"),
        ("7:8", "7 8 8"),
        ("7", "7 0 0"),
        ("1000:50", "1000 50 50"),
    ],
)
def test_user_forms(lab: Lab, user: str, expected: str) -> None:
    uid, gid, *groups = lab.sh("id -u; id -g; id -G", user=user).split()
    assert [uid, gid, *sorted(groups, key=int)] == expected.split()


def test_unknown_users_are_named(lab: Lab) -> None:
    with pytest.raises(UserNotFound, match="unable to find user nobody: no matching entries in passwd file"):
        lab.run("true", user="nobody")
    for bad in ("-1", "4294967296", "18446744073709551616", "0x0", "٣", "4294967295", "2147483648"):
        with pytest.raises(UserNotFound):
            lab.run("id", user=bad)


def test_commands_that_cannot_run(lab: Lab) -> None:
    with pytest.raises(CommandNotFound, match="executable file not found in \\$PATH"):
        lab.run("nothing-here")
    with pytest.raises(CommandNotFound, match="no such file"):
        lab.run("/nothing/here")
    with pytest.raises(CommandNotExecutable) as denied:
        lab.run("/etc/passwd")
    assert denied.value.exit_status == 126
    with pytest.raises(CommandNotExecutable):
        lab.run("/etc")


def test_script_without_interpreter_says_so(lab: Lab) -> None:
    script = FileMount(target="/run.sh", data=b"#!/no/such/shell\n", mode=0o755)
    with pytest.raises(CommandNotFound, match="interpreter"):
        lab.run("/run.sh", mounts=(script,))


def test_path_lookup_uses_the_containers_path(lab: Lab) -> None:
    tool = FileMount(target="/opt/tool", data=b"#!/bin/sh\necho tool\n", mode=0o755)
    status, output = lab.run("tool", env=("PATH=/nowhere:/etc/passwd:/opt:/bin",), mounts=(tool,))
    assert (status.code, output) == (0, "tool\n")


def test_working_directory_is_made_for_the_user(lab: Lab) -> None:
    assert lab.sh("pwd; stat -c '%u %a' .", cwd="/srv/app", user="bob").split() == ["/srv/app", "1000", "755"]
    assert (lab.upper / "srv" / "app").stat().st_uid == 1000


def test_hostname(lab: Lab) -> None:
    assert lab.sh("hostname", hostname="builder").strip() == "builder"


def test_loopback_is_up_without_network(lab: Lab) -> None:
    output = lab.sh("ip addr; ls /sys/class/net")
    assert "127.0.0.1" in output
    assert output.split()[-1] == "lo"


def test_host_network_is_shared(lab: Lab) -> None:
    assert lab.sh("readlink /proc/self/ns/net", network=Network(mode="host")).strip() == os.readlink(
        "/proc/self/ns/net"
    )


def test_network_of_another_container(lab: Lab) -> None:
    handle = lab.launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    path = f"/proc/{handle.pid}/ns/net"
    wanted = os.readlink(path)
    output = lab.sh("readlink /proc/self/ns/net", network=Network(mode="path", path=path))
    handle.kill()
    handle.wait()
    assert output.strip() == wanted


def test_shared_namespaces(lab: Lab) -> None:
    handle = lab.launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    shared = tuple((n, f"/proc/{handle.pid}/ns/{n}") for n in ("pid", "ipc", "uts"))
    wanted = [os.readlink(path) for _, path in shared]
    output = lab.sh("for n in pid ipc uts; do readlink /proc/self/ns/$n; done; ps", shared=shared)
    handle.kill()
    handle.wait()
    assert output.split()[:3] == wanted
    assert "sleep 60" in output
    output = lab.sh("for n in ipc uts; do readlink /proc/self/ns/$n; done", shared=(("ipc", ""), ("uts", "")))
    assert output.split() == [os.readlink("/proc/self/ns/ipc"), os.readlink("/proc/self/ns/uts")]


def test_background_processes_end_with_the_command(lab: Lab) -> None:
    start = time.monotonic()
    lab.run("sh", "-c", "sleep 30 & exit 0")
    assert time.monotonic() - start < 10


def test_bind_mounts(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("content")
    mounts = (
        BindMount(target="/ro", source=str(source), readonly=True),
        BindMount(target="/rw", source=str(source)),
        BindMount(target="/deep/part", source=str(source), subpath="sub"),
        BindMount(target="/one", source=str(source / "file"), readonly=True),
    )
    lab.sh(
        "cat /ro/file /one; touch /rw/new /deep/part/x; ! touch /ro/no && ! sh -c 'echo >> /one'",
        mounts=mounts,
    )
    assert (source / "new").exists()
    assert (source / "sub" / "x").exists()
    assert (source / "file").read_text() == "content"


def test_throwaway_changes_are_dropped(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    (source / "file").write_text("old")
    mounts = (
        BindMount(target="/d", source=str(source), throwaway=True),
        BindMount(target="/f", source=str(source / "file"), throwaway=True),
    )
    assert (
        lab.sh("echo new > /d/file; echo new > /f; rm -r /d/file; ls -A /d; cat /f", mounts=mounts) == "new\n"
    )
    assert (source / "file").read_text() == "old"


def test_layered_mounts(lab: Lab, tmp_path: Path) -> None:
    for name in ("top", "bottom"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / name).write_text(name)
    lowers = (str(tmp_path / "top"), str(tmp_path / "bottom"))
    mounts = (
        OverlayMount(target="/tree", lowers=lowers),
        OverlayMount(target="/part", lowers=lowers, subpath="sub"),
        OverlayMount(target="/single", lowers=lowers[:1]),
        OverlayMount(target="/scratch", lowers=lowers, throwaway=True),
        OverlayMount(target="/onefile", lowers=lowers, subpath="/sub/top"),
    )
    script = (
        "ls /tree/sub /part /single/sub; ! touch /tree/x; ! touch /single/x; touch /scratch/x; cat /onefile"
    )
    assert lab.sh(script, mounts=mounts).count("top") == 4
    assert not list(tmp_path.glob("*/x"))


def test_tmpfs_and_files_in_memory(lab: Lab) -> None:
    secret = FileMount(target="/run/secrets/key", data=b"hush", mode=0o440, uid=1000, gid=50)
    mounts = (TmpfsMount(target="/cache", size_bytes=1 << 20), secret)
    output = lab.sh(
        "cat /run/secrets/key; stat -c ' %a %u %g' /run/secrets/key; grep -E 'cache|key' /proc/mounts",
        mounts=mounts,
    )
    assert output.startswith("hush 440 1000 50")
    assert "size=1024k" in output
    key_row = next(row for row in output.splitlines() if "secrets" in row)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(key_row.split()[3].split(","))
    assert "hush" not in repr(secret)


def test_mounts_are_made_parents_first(lab: Lab, tmp_path: Path) -> None:
    inner = FileMount(target="/m/in/file", data=b"inner", mode=0o444)
    outer = TmpfsMount(target="/m/in")
    assert lab.sh("cat /m/in/file", mounts=(inner, outer)) == "inner"


def test_stubs_leave_no_trace(lab: Lab, base: Path) -> None:
    before = (base / "etc").stat().st_mtime_ns
    mounts = (
        FileMount(target="/etc/resolv.conf", data=b"nameserver 1.1.1.1\n"),
        FileMount(target="/etc/hosts", data=b"127.0.0.1 localhost\n"),
        FileMount(target="/run/secrets/deep/key", data=b"x"),
        TmpfsMount(target="/var/cache/tool"),
    )
    lab.sh("cat /etc/resolv.conf >/dev/null", mounts=mounts, clean_stubs=True)
    assert [name for name in upper_files(lab) if name != "etc"] == []
    assert (lab.upper / "etc").stat().st_mtime_ns == before
    assert lab.upper.stat().st_mtime_ns != 0


def test_stubs_are_removed_when_the_command_cannot_start(lab: Lab) -> None:
    good, bad = TmpfsMount(target="/made/here"), BindMount(target="/made/there", source="/no/such")
    with pytest.raises(SetupFailed):
        lab.run("true", mounts=(good, bad), clean_stubs=True)
    assert upper_files(lab) == []
    with pytest.raises(CommandNotFound):
        lab.run("nothing", mounts=(good,), clean_stubs=True, terminal=True)
    assert upper_files(lab) == []


def test_kill_and_close_after_the_end_do_nothing(lab: Lab) -> None:
    handle = lab.launcher.run(lab.spec("true"), stdout=1, stderr=2)
    assert handle.wait().code == 0
    handle.kill()
    handle.close()
    assert handle.wait().code == 0


def test_stubs_stay_when_filled_or_when_the_parent_changed(lab: Lab) -> None:
    mounts = (FileMount(target="/opt/a/key", data=b"x"),)
    lab.sh("echo hi > /opt/a/other; touch -d @1000 /opt/a", mounts=mounts, clean_stubs=True)
    assert upper_files(lab) == ["opt", "opt/a", "opt/a/other"]
    assert (lab.upper / "opt" / "a").stat().st_mtime == 1000


def test_dir_root_and_read_only_root(lab: Lab, base: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(base, root, symlinks=True)
    lab.sh("touch /made", root=DirRoot(path=str(root)))
    assert (root / "made").exists()
    lab.sh("! touch /again", root=DirRoot(path=str(root), readonly=True))
    lab.sh("! touch /again; touch /tmp/x", readonly_root=True, mounts=(TmpfsMount(target="/tmp"),))
    lab.sh("! touch /again", root=OverlayRoot(lowers=(str(base),)))


def test_four_hundred_and_fifty_layers(lab: Lab, base: Path, tmp_path: Path) -> None:
    lowers = []
    for number in range(449):
        layer = tmp_path / "layers" / f"{number}" / "fs"
        layer.mkdir(parents=True)
        (layer / f"f{number}").touch()
        lowers.append(str(layer))
    upper, work = tmp_path / "layers" / "u", tmp_path / "layers" / "w"
    upper.mkdir()
    work.mkdir()
    shutil.copytree(base, tmp_path / "layers" / "b" / "fs", symlinks=True)
    lowers.append(str(tmp_path / "layers" / "b" / "fs"))
    root = OverlayRoot(lowers=tuple(lowers), upper=str(upper), work=str(work), volatile=True)
    assert lab.sh("ls / | grep -c '^f'", root=root).strip() == "449"


def test_layer_paths_with_special_characters(lab: Lab, base: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a:b,c\\d"
    for name in ("fs", "work", "low"):
        (odd / name).mkdir(parents=True)
    (odd / "low" / "here").touch()
    root = OverlayRoot(lowers=(str(odd / "low"), str(base)), upper=str(odd / "fs"), work=str(odd / "work"))
    lab.sh("test -e /here; touch /new", root=root)
    assert (odd / "fs" / "new").exists()


def test_rlimits(lab: Lab) -> None:
    assert lab.sh("ulimit -n", rlimits=(Rlimit(name="nofile", soft=99, hard=100),)).strip() == "99"
    with pytest.raises(ValueError, match="resource limit"):
        lab.spec("true") and plan.container_plan(
            lab.spec("true", rlimits=(Rlimit(name="x", soft=1, hard=1),))
        )


def test_memory_limit_and_oom(lab: Lab) -> None:
    limits = Limits(memory_bytes=16 << 20, memory_swap_bytes=16 << 20, pids=20)
    handle = lab.launcher.run(
        lab.spec("sh", "-c", "tail -c 100m /dev/zero >/dev/null", limits=limits), stdout=1, stderr=2
    )
    if handle.warnings:
        pytest.skip(f"no memory controller here: {handle.warnings}")
    status = handle.wait()
    assert status.oom_killed
    assert status.shell_code == 137


def test_pids_limit(lab: Lab) -> None:
    status, output = lab.run(
        "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done", limits=Limits(pids=4)
    )
    assert "fork" in output
    assert status.code != 0


def test_groups_are_removed(lab: Lab) -> None:
    spec = lab.spec("true", limits=Limits(pids=10), accounting=True)
    lab.run_spec(spec)
    assert not [p for p in Path("/sys/fs/cgroup").glob("**/pybuild/*") if p.name == spec.id]


def test_device_rules(lab: Lab) -> None:
    script = "mknod /tmp/disk b 254 0 && mknod /tmp/zero c 1 5 && head -c 4 /tmp/zero | wc -c; ! head -c 1 /tmp/disk"
    output = lab.sh(script)
    assert output.split()[0] == "4"
    assert "not permitted" in output


def test_extra_devices(lab: Lab) -> None:
    device = Device(path="/dev/sub/mine", type="c", major=1, minor=5, mode=0o600, uid=1000)
    output = lab.sh("stat -c '%a %u' /dev/sub/mine; head -c 2 /dev/sub/mine | wc -c", devices=(device,))
    assert output.split() == ["600", "1000", "2"]
    with pytest.raises(SetupFailed):
        lab.run("true", devices=(Device(path="/etc/x", type="c", major=1, minor=5),))


def test_terminal(lab: Lab) -> None:
    spec = lab.spec(
        "sh",
        "-c",
        "tty; stat -c %t:%T /dev/console; echo $$; cat /dev/tty >/dev/null & exec sleep 0",
        terminal=True,
        user="bob",
    )
    handle = lab.launcher.run(spec, stdout=1, stderr=2)
    assert handle.terminal is not None
    data = b""
    while True:
        try:
            chunk = os.read(handle.terminal, 4096)
        except OSError:
            break
        if not chunk:
            break
        data += chunk
    os.close(handle.terminal)
    assert handle.wait().code == 0
    assert b"/dev/pts/0" in data
    assert b"88:0" in data


def test_exec_joins_everything(lab: Lab) -> None:
    main = lab.launcher.run(lab.spec("sleep", "60", limits=Limits(pids=50)), stdout=1, stderr=2)
    read, write = os.pipe()
    script = (
        "for n in pid mnt ipc uts net cgroup; do readlink /proc/self/ns/$n; done; grep CapEff /proc/self/status; "
        "grep CapInh /proc/self/status; id -u; pwd; echo $X; ls /proc/self/fd | wc -l; cat /proc/1/cgroup > /tmp/1; "
        "grep Seccomp: /proc/self/status; hostname; cat /proc/self/cgroup"
    )
    spec = ExecSpec(
        args=("sh", "-c", script), env=("PATH=/bin", "X=7"), cwd="/etc", capabilities=("CHOWN", "SYS_ADMIN")
    )
    process = lab.launcher.enter(main.pid, spec, stdout=write, stderr=write)
    os.close(write)
    assert process.wait().code == 0
    with open(read) as stream:
        lines = stream.read().splitlines()
    names = ("pid", "mnt", "ipc", "uts", "net", "cgroup")
    assert lines[:6] == [os.readlink(f"/proc/{main.pid}/ns/{n}") for n in names]
    assert lines[6].split()[1] == f"{capabilities.mask(('CHOWN',)):016x}"
    assert lines[7].split()[1] == "0" * 16
    assert lines[8:11] == ["0", "/etc", "7"]
    assert lines[11] == "4"  # ls opens the directory
    assert lines[12].split()[1] == "2"
    assert lines[13] == "lab"
    main.kill()
    assert main.wait().signal == 9


def test_exec_failures(lab: Lab) -> None:
    main = lab.launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    with pytest.raises(CommandNotFound):
        lab.launcher.enter(main.pid, ExecSpec(args=("nope",), env=("PATH=/bin",)), stdout=1, stderr=2)
    with pytest.raises(UserNotFound):
        lab.launcher.enter(main.pid, ExecSpec(args=("true",), user="nobody"), stdout=1, stderr=2)
    main.kill()
    main.wait()
    with pytest.raises(SetupFailed):
        lab.launcher.enter(main.pid, ExecSpec(args=("true",)), stdout=1, stderr=2)


def test_exec_with_terminal(lab: Lab) -> None:
    main = lab.launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    spec = ExecSpec(args=("sh", "-c", "tty; echo $$"), env=("PATH=/bin",), terminal=True)
    process = lab.launcher.enter(main.pid, spec, stdout=1, stderr=2)
    assert process.terminal is not None
    assert b"/dev/pts/0" in os.read(process.terminal, 4096)
    process.wait()
    os.close(process.terminal)
    main.kill()
    main.wait()


def test_many_threads(lab: Lab) -> None:
    codes: list[int | None] = []

    def work(number: int) -> None:
        for turn in range(3):
            status, output = lab.run("sh", "-c", f"echo {number}; exit {turn}")
            assert output == f"{number}\n"
            codes.append(status.code)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(c for c in codes if c is not None) == sorted([0, 1, 2] * 8)


def test_closing_the_handle_kills(lab: Lab) -> None:
    handle = lab.launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    pid = handle.pid
    handle.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_death_of_the_launcher_kills_containers(base: Path, tmp_path: Path) -> None:
    launcher = Launcher.start()
    lab = Lab(base, tmp_path, launcher)
    handle = launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    os.kill(launcher._pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{handle.pid}/root/bin").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    handle.close()
    launcher.close()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/pybuild/lab{os.getpid()}-*"))


def test_closing_the_launcher_ends_containers(base: Path, tmp_path: Path) -> None:
    launcher = Launcher.start()
    lab = Lab(base, tmp_path, launcher)
    handle = launcher.run(lab.spec("sleep", "60"), stdout=1, stderr=2)
    launcher.close()
    assert not Path(f"/proc/{handle.pid}").exists()
    assert handle.wait().signal == 9


def test_large_specs_travel(lab: Lab) -> None:
    big = FileMount(target="/big", data=b"x" * 500_000, mode=0o444)
    assert lab.sh("wc -c < /big", mounts=(big,)).strip() == "500000"


def test_missing_sources_are_named(lab: Lab) -> None:
    with pytest.raises(SetupFailed) as caught:
        lab.run("true", mounts=(BindMount(target="/x", source="/no/such/source"),))
    assert caught.value.path == "/no/such/source"
    assert caught.value.errno == 2
    with pytest.raises(ValueError, match="mount target"):
        lab.run("true", mounts=(TmpfsMount(target="/"),))


def test_signal_settings_are_fresh(lab: Lab) -> None:
    _, output = lab.run("grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status")
    rows = dict(line.split() for line in output.splitlines())
    assert rows["SigBlk:"] == rows["SigIgn:"] == "0" * 16


def test_umask(lab: Lab) -> None:
    before = os.umask(0o077)
    try:
        assert lab.sh("umask").strip() == "0022"
    finally:
        os.umask(before)
