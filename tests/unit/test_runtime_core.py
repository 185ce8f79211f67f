"""The pure half of running containers: plans, ids, capabilities, filters, messages."""

from __future__ import annotations

import inspect
import os
import struct
from pathlib import Path

import pytest

from runtime import capabilities, devicefilter, hierarchies, idmap, init, messages, plan, seccomp, user
from runtime import limits as limits_module
from runtime.errors import CommandNotFound, SetupFailed, UserNotFound
from runtime.setup import Setup
from runtime.spec import (
    BindMount,
    ContainerSpec,
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
from runtime.syscalls.linux import failed
from runtime.syscalls.recording import RecordingKernel
from runtime.user import Identity

ROOT = OverlayRoot(lowers=("/layers/2", "/layers/1"), upper="/layers/3", work="/layers/w")


def spec(**options: object) -> ContainerSpec:
    return ContainerSpec(**{"id": "x", "root": ROOT, "args": ("true",), **options})  # type: ignore[arg-type]


def names(made: plan.Plan) -> list[str]:
    return [operation.name for operation in made.operations]


# -- plans
# ------------------------------------------------------------------------------------------------------


def test_every_operation_fits_its_function() -> None:
    full = spec(
        mounts=(
            BindMount(target="/a", source="/s", propagation="rslave"),
            OverlayMount(target="/b", lowers=("/l",)),
            TmpfsMount(target="/c"),
            FileMount(target="/d", data=b"x"),
        ),
        network=Network(mode="path", path="/ns"),
        shared=(("ipc", "/proc/1/ns/ipc"),),
        hostname="h",
        oom_score_adj=5,
        terminal=True,
        rlimits=(Rlimit(name="nofile", soft=1, hard=2),),
        masked_paths=plan.MASKED_PATHS,
        readonly_paths=plan.READONLY_PATHS,
        readonly_root=True,
    )
    more = plan.container_plan(spec(root=DirRoot(path="/r"), shared=(("uts", ""),)))
    inside = plan.exec_plan(ExecSpec(args=("x",), terminal=True, oom_score_adj=1), 1)
    seen = set()
    for made in (plan.container_plan(full), more, inside):
        for operation in made.operations:
            inspect.signature(init.OPERATIONS[operation.name]).bind(None, *operation.args)
            seen.add(operation.name)
    assert seen >= set(init.OPERATIONS) - {"loopback"}


def test_mounts_are_ordered_parents_first_and_stable() -> None:
    mounts = (
        TmpfsMount(target="/a/b/c"),
        TmpfsMount(target="/a"),
        TmpfsMount(target="/a/b"),
        TmpfsMount(target="/aa"),
    )
    made = plan.container_plan(spec(mounts=mounts))
    assert [op.args[0] for op in made.operations if op.name == "tmpfs"] == ["/a", "/a/b", "/a/b/c", "/aa"]


def test_everything_is_mounted_before_the_pivot_and_confined_last() -> None:
    order = names(plan.container_plan(spec(mounts=(TmpfsMount(target="/a"),), masked_paths=("/proc/kcore",))))
    assert order.index("overlay_root") < order.index("proc") < order.index("tmpfs") < order.index("mask")
    assert order.index("mask") < order.index("who") < order.index("pivot") < order.index("directory")
    assert order[-1] == "confine"


def test_namespaces_follow_the_spec() -> None:
    from runtime.syscalls import constants as c

    base = c.CLONE_NEWNS | c.CLONE_NEWCGROUP | c.CLONE_NEWPID | c.CLONE_NEWIPC | c.CLONE_NEWUTS
    assert plan.container_plan(spec()).flags == base | c.CLONE_NEWNET
    assert plan.container_plan(spec(network=Network(mode="host"))).flags == base
    assert plan.container_plan(spec(shared=(("pid", ""), ("ipc", "/p")))).flags == (
        base | c.CLONE_NEWNET
    ) & ~(c.CLONE_NEWPID | c.CLONE_NEWIPC)


def test_descriptions_hide_contents() -> None:
    made = plan.container_plan(spec(mounts=(FileMount(target="/s", data=b"hush hush"),), env=("TOKEN=hush",)))
    assert "hush" not in made.describe()
    assert "<9 bytes>" in made.describe()


@pytest.mark.parametrize(
    "options",
    [
        {"id": "a/b"},
        {"id": ".."},
        {"id": ""},
        {"id": "a\0b"},
        {"cgroup_parent": "/../x"},
        {"mounts": (TmpfsMount(target="/"),)},
        {"mounts": (TmpfsMount(target=""),)},
        {"mounts": (BindMount(target="/a", source="relative"),)},
        {"root": DirRoot(path="relative")},
        {"root": OverlayRoot(lowers=())},
        {"capabilities": ("NOPE",)},
        {"rlimits": (Rlimit(name="nope", soft=1, hard=1),)},
    ],
)
def test_bad_specs_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        plan.container_plan(spec(**options))


def test_root_without_lower_layers_is_the_upper_directory() -> None:
    made = plan.container_plan(spec(root=OverlayRoot(lowers=(), upper="/layers/3", work="/w")))
    assert made.operations[2].name == "dir_root" or "dir_root" in names(made)


# -- confinement order ------------------------------------------------------------------------------------------


def test_confinement_order_for_root() -> None:
    kernel = RecordingKernel()
    setup = Setup(kernel)
    setup.identity = Identity(0, 0, (0,), "/root")
    setup.filter_program = b"\0" * 8
    keep = capabilities.mask(("CHOWN", "KILL"))
    init.confine(setup, keep, True)
    order = list(dict.fromkeys(kernel.names()))
    assert order == ["capget", "prctl", "seccomp", "setgroups", "setgid", "setuid", "capset"]
    assert kernel.calls[-1] == ("capset", keep, keep, 0)
    dropped = {call[2] for call in kernel.calls if call[0] == "prctl" and call[1] == 24}
    assert dropped == set(range(64)) - {0, 5}


def test_other_users_keep_nothing() -> None:
    kernel = RecordingKernel()
    setup = Setup(kernel)
    setup.identity = Identity(5, 5, (5,), "/")
    init.confine(setup, capabilities.mask(capabilities.DEFAULT), False)
    assert kernel.calls[-1] == ("capset", 0, 0, 0)
    assert "seccomp" not in kernel.names()


def test_capabilities_that_we_lack_are_not_asked_for() -> None:
    kernel = RecordingKernel(permitted=1)
    setup = Setup(kernel)
    setup.identity = Identity(0, 0, (), "/")
    init.confine(setup, 0b11, False)
    assert kernel.calls[-1] == ("capset", 1, 1, 0)


def test_setgroups_may_be_denied_in_a_user_namespace_only() -> None:
    kernel = RecordingKernel(fail={"setgroups": 1})
    setup = Setup(kernel)
    setup.identity = Identity(0, 0, (0,), "/")
    with pytest.raises(PermissionError):
        init.confine(setup, 0, False)
    setup.userns = True
    init.confine(setup, 0, False)


# -- the filter -------------------------------------------------------------------------------------------------


def run_filter(program: bytes, architecture: int, number: int, arg0: int = 0) -> int:
    """Execute a filter as the kernel would."""
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    data = struct.pack(
        "<iIQ6Q", number if number < 1 << 31 else number - (1 << 32), architecture, 0, arg0, 0, 0, 0, 0, 0
    )
    accumulator = at = 0
    for _ in range(len(code) + 1):
        op, true, false, value = code[at]
        at += 1
        if op == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif op == 0x05:
            at += value
        elif op == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[
                op
            ]
            at += true if holds else false
    raise AssertionError("endless filter")


X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028


@pytest.mark.parametrize(
    ("machine", "architecture", "number", "arg0", "expected"),
    [
        ("x86_64", X86_64, 0, 0, seccomp.ALLOW),  # read
        ("x86_64", X86_64, 165, 0, seccomp.DENY),  # mount
        ("x86_64", X86_64, 272, 0, seccomp.DENY),  # unshare
        ("x86_64", X86_64, 435, 0, seccomp.UNKNOWN),  # clone3
        ("x86_64", X86_64, 425, 0, seccomp.DENY),  # io_uring_setup
        ("x86_64", X86_64, 56, 0x11, seccomp.ALLOW),  # clone like fork
        ("x86_64", X86_64, 56, 0x10000000, seccomp.DENY),  # clone with a user namespace
        ("x86_64", X86_64, 41, 2, seccomp.ALLOW),  # socket inet
        ("x86_64", X86_64, 41, 40, seccomp.DENY),  # socket vsock
        ("x86_64", X86_64, 135, 8, seccomp.ALLOW),  # personality linux32
        ("x86_64", X86_64, 135, 0x40000, seccomp.DENY),  # personality without randomisation
        ("x86_64", X86_64, 135, 0xFFFFFFFF, seccomp.ALLOW),
        ("x86_64", X86_64, 161, 0, seccomp.ALLOW),  # chroot
        ("x86_64", X86_64, 101, 0, seccomp.ALLOW),  # ptrace
        ("x86_64", X86_64, 310, 0, seccomp.ALLOW),  # process_vm_readv
        ("x86_64", X86_64, 250, 0, seccomp.DENY),  # keyctl
        ("x86_64", X86_64, 999, 0, seccomp.UNKNOWN),
        ("x86_64", X86_64, 0x40000000, 0, seccomp.UNKNOWN),  # x32
        ("x86_64", X86_64, 0xFFFFFFFF, 0, seccomp.UNKNOWN),
        ("x86_64", I386, 5, 0, seccomp.ALLOW),  # open
        ("x86_64", I386, 21, 0, seccomp.DENY),  # mount
        ("x86_64", I386, 120, 0x20000, seccomp.DENY),  # clone with a mount namespace
        ("x86_64", AARCH64, 0, 0, seccomp.KILL_PROCESS),
        ("aarch64", AARCH64, 40, 0, seccomp.DENY),  # mount
        ("aarch64", AARCH64, 63, 0, seccomp.ALLOW),  # read
        ("aarch64", AARCH64, 79, 0, seccomp.ALLOW),  # newfstatat
        ("aarch64", AARCH64, 220, 0x10000000, seccomp.DENY),
        ("aarch64", ARM, 0xF0005, 0, seccomp.ALLOW),  # set_tls
        ("aarch64", ARM, 0xF0009, 0, seccomp.UNKNOWN),
        ("aarch64", ARM, 21, 0, seccomp.DENY),  # mount
        ("aarch64", X86_64, 0, 0, seccomp.KILL_PROCESS),
    ],
)
def test_filter_answers(machine: str, architecture: int, number: int, arg0: int, expected: int) -> None:
    program = seccomp.program(machine, capabilities.DEFAULT)
    assert program is not None
    assert run_filter(program, architecture, number, arg0) == expected


def test_filter_agrees_with_its_table_everywhere() -> None:
    program = seccomp.program("x86_64", capabilities.DEFAULT)
    assert program is not None
    table = seccomp.answers(0, frozenset({"SYS_CHROOT"}))
    for number in range(600):
        answer = run_filter(program, X86_64, number)
        expected = table.get(number, "deny" if number <= 469 else "unknown")
        plain = {
            "allow": seccomp.ALLOW,
            "deny": seccomp.DENY,
            "unknown": seccomp.UNKNOWN,
            "clone3": seccomp.UNKNOWN,
        }
        assert answer == plain.get(expected, seccomp.ALLOW), number


def test_filter_opens_with_capabilities() -> None:
    program = seccomp.program("x86_64", ("SYS_ADMIN",))
    assert program is not None
    for number in (165, 272, 435, 56):
        assert run_filter(program, X86_64, number, 0x10000000) == seccomp.ALLOW
    assert run_filter(program, X86_64, 161) == seccomp.DENY  # chroot has a capability of its own
    assert seccomp.program("riscv64", ()) is None


# -- ids --------------------------------------------------------------------------------------------------------

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100::/home/bob:/bin/sh\n#odd:x:1:1::/:\nshort:x:1\n1234:x:7:7::/seven:\n"
GROUP = b"root:x:0:\nusers:x:100:bob\nvideo:x:44:root,bob\nbad:x:abc:bob\n"


def read(name: str) -> list[bytes]:
    return {"etc/passwd": PASSWD, "etc/group": GROUP}[name].split(b"\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Identity(0, 0, (0, 44), "/root")),
        ("root", Identity(0, 0, (0, 44), "/root")),
        ("bob", Identity(1000, 100, (100, 44), "/home/bob")),
        ("1000", Identity(1000, 100, (100, 44), "/home/bob")),
        ("bob:video", Identity(1000, 44, (44,), "/home/bob")),
        ("bob:7", Identity(1000, 7, (7,), "/home/bob")),
        ("99", Identity(99, 0, (0,), "/")),
        ("99:98", Identity(99, 98, (98,), "/")),
        ("1234", Identity(7, 7, (7,), "/seven")),
        ("2147483647", Identity(2147483647, 0, (0,), "/")),
        (":video", Identity(0, 44, (44,), "/root")),
    ],
)
def test_user_lookup(text: str, expected: Identity) -> None:
    assert user.resolve(text, (), read) == expected


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "2147483648",
        "0x0",
        "١٢",
        "short",
        "odd",
        "a b",
        "+1",
        "1:-1",
        "1:4294967296",
        "bob:nope",
        "9" * 5000,
    ],
)
def test_ids_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserNotFound):
        user.resolve(text, (), read)


def test_extra_groups() -> None:
    assert user.resolve("99:98", ("video", "5"), read).groups == (98, 44, 5)
    with pytest.raises(UserNotFound, match="group nope"):
        user.resolve("root", ("nope",), read)


def test_files_may_be_missing_for_numbers(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert user.lookup(fd, "5:6") == Identity(5, 6, (6,), "/")
        with pytest.raises(UserNotFound, match="unable to find user bob: no matching entries in passwd file"):
            user.lookup(fd, "bob")
    finally:
        os.close(fd)


def test_id_maps_invert() -> None:
    made = idmap.with_ranges(1000, ((100_000, 65_536), (300_000, 10)))
    for inside in (0, 1, 65_536, 65_537, 65_546):
        outside = made.to_outside(inside)
        assert outside is not None
        assert made.to_inside(outside) == inside
    assert made.to_outside(65_547) is None
    assert made.text().splitlines()[0] == "0 1000 1"
    assert made.arguments()[:3] == ["0", "1000", "1"]


def test_id_maps_refuse_overlaps() -> None:
    with pytest.raises(ValueError, match="overlap"):
        idmap.IdMap((idmap.IdRange(0, 5, 10), idmap.IdRange(5, 50, 10)))
    with pytest.raises(ValueError, match="overlap"):
        idmap.IdMap((idmap.IdRange(0, 5, 10), idmap.IdRange(20, 9, 10)))
    with pytest.raises(ValueError, match="last id"):
        idmap.IdRange(0, 4294967290, 10)
    assert idmap.with_ranges(100_005, ((100_000, 10),)).ranges == (idmap.IdRange(0, 100_005, 1),)


def test_subordinate_ids(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("bob:100000:65536\n1000:300000:5\nalice:1:1\nbad:x:y\nbob:-1:5\n")
    assert idmap.subordinate(file, 1000, "bob") == ((100_000, 65_536), (300_000, 5))
    assert idmap.subordinate(tmp_path / "none", 1000, "bob") == ()


# -- capabilities, groups, devices --------------------------------------------------------------------------------


def test_capability_names() -> None:
    assert capabilities.normalise("cap_net_admin") == "NET_ADMIN"
    assert capabilities.mask(capabilities.DEFAULT) == 0xA80425FB
    assert capabilities.names_of(0b101) == ("CHOWN", "DAC_READ_SEARCH")
    with pytest.raises(ValueError, match="unknown capability"):
        capabilities.normalise("ROOT")


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ("", "pybuild/c1"),
        ("/ci/job", "ci/job/pybuild/c1"),
        ("system.slice:docker:", "system.slice/docker-c1.scope"),
        ("a.slice:", "a.slice/c1.scope"),
    ],
)
def test_group_paths(parent: str, expected: str) -> None:
    assert hierarchies.group_path("c1", parent) == expected


def test_hierarchies_are_found(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(
        "1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "2 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "3 1 0:3 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n"
        f"4 1 0:4 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
    )
    (tmp_path / "cgroup.controllers").write_text("pids io\n")
    found = hierarchies.probe(str(file))
    assert found.unified == str(tmp_path)
    assert found.v1["cpuacct"] == found.v1["cpu"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert found.controllers == {"pids", "io"}
    assert not found.pure_v2


def test_limits_become_settings() -> None:
    limits = Limits(memory_bytes=100, memory_swap_bytes=150, cpu_quota_us=5000, cpu_shares=1024, pids=-1)
    values = dict(plan.container_plan(spec(limits=limits)).limits)
    assert limits_module.settings(values, v1=True) == (
        ("memory", "memory.limit_in_bytes", "100"),
        ("memory", "memory.memsw.limit_in_bytes", "150"),
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_quota_us", "5000"),
        ("pids", "pids.max", "max"),
    )
    rows = {file: value for _, file, value in limits_module.settings(values, v1=False)}
    assert rows["v2.memory.swap.max"] == "50"
    assert rows["v2.cpu.max"] == "5000 100000"


def run_device_program(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    registers = {1: 0, 0: 0}
    words = (access << 16 | kind, major, minor)
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    at = 0
    while True:
        op, regs, offset, value = code[at]
        dst, src = regs & 15, regs >> 4
        at += 1
        if op == 0x61:
            registers[dst] = words[offset // 4]
        elif op == 0xBF:
            registers[dst] = registers[src]
        elif op == 0x54:
            registers[dst] &= value
        elif op == 0x74:
            registers[dst] >>= value
        elif op == 0xB7:
            registers[dst] = value
        elif op == 0x95:
            return registers[0]
        elif (op == 0x55 and registers[dst] != value) or (op == 0x45 and registers[dst] & value):
            at += offset


def test_device_program() -> None:
    program = devicefilter.program((*devicefilter.DEFAULT, ("b", 7, devicefilter.ANY, "rm")))
    char, block, mknod, reading, writing = 2, 1, 1, 2, 4
    assert run_device_program(program, char, reading | writing, 1, 3) == 1
    assert run_device_program(program, char, mknod, 200, 7) == 1
    assert run_device_program(program, block, reading, 8, 0) == 0
    assert run_device_program(program, char, writing, 1, 1) == 0
    assert run_device_program(program, char, writing, 136, 99) == 1
    assert run_device_program(program, block, reading, 7, 3) == 1
    assert run_device_program(program, block, writing, 7, 3) == 0
    assert devicefilter.lines((("c", 136, devicefilter.ANY, "rwm"),)) == ["c 136:* rwm"]


# -- messages ---------------------------------------------------------------------------------------------------


def test_messages_travel_with_descriptors() -> None:
    ours, theirs = messages.pair()
    read_fd, write_fd = os.pipe()
    for size in (10, 300_000):
        messages.send(ours, ("x", b"y" * size, "\udcff"), (read_fd, write_fd))
        received = messages.receive(theirs)
        assert received is not None
        assert received[0] == ("x", b"y" * size, "\udcff")
        assert len(received[1]) == 2
        assert not os.get_inheritable(received[1][0])
        for fd in received[1]:
            os.close(fd)
    os.close(read_fd)
    os.close(write_fd)
    ours.close()
    assert messages.receive(theirs) is None
    with pytest.raises(OSError, match="pipe"):
        messages.send(theirs, ("late",))
    theirs.close()


def test_failures_become_errors() -> None:
    error = messages.error_of(("failed", "setup", "mount", "/x", 13, ""))
    assert isinstance(error, SetupFailed)
    assert (error.call, error.path, error.errno) == ("mount", "/x", 13)
    assert isinstance(messages.error_of(("failed", "not-found", "", "", 0, "no")), CommandNotFound)
    assert isinstance(messages.error_of(("failed", "user", "", "", 0, "no")), UserNotFound)
    assert isinstance(messages.error_of(("failed", "bug", "", "", 0, "trace")), RuntimeError)


def test_call_errors_keep_their_class() -> None:
    error = failed("openat2", "/x", 2)
    assert isinstance(error, FileNotFoundError)
    assert error.__dict__["call"] == "openat2"


def test_environment_has_a_home() -> None:
    identity = Identity(1, 1, (), "/home/x")
    assert init.environment(("A=b=c", "HOME=", "nonsense", "=x"), identity) == {"A": "b=c", "HOME": "/home/x"}
    assert init.environment(("HOME=/h",), identity)["HOME"] == "/h"


def test_launcher_process_imports_little() -> None:
    import subprocess
    import sys

    root = Path(init.__file__).parent.parent
    code = (
        f"import sys; sys.path.append({str(root)!r}); import runtime.launcher_process; "
        "print(*sorted(set(sys.modules) & {'dataclasses', 'typing', 'socket', 'json', 'subprocess', 're', 'enum', "
        "'inspect', 'pathlib', 'builder', 'cli'}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
