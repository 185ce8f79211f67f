"""Starting a container, or one more process in it, from a process with a single thread.

The launcher and the monitor of a long-lived container both use this. ``spawn`` and ``enter`` return as soon
as the process exists; what it reports until the command runs is read with ``process.Process.report``, or
waited for with ``started``.
"""

from __future__ import annotations

import os

from runtime import capabilities, cgroups, devicefilter, hierarchies, init, messages, seccomp
from runtime.process import Process
from runtime.syscalls import constants as c
from runtime.syscalls.linux import KERNEL, clone_process, failed, pidfd_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, TypeAlias

    from runtime.limits import Setting
    from runtime.setup import Setup

    Wire: TypeAlias = tuple[Any, ...]
    """``Plan.wire()``: id, flags, operations, args, env, filter_for, netns, pid_path, cgroup_parent, limits,
    rules, accounting, clean_stubs."""

_NOT_INTO_GROUP = frozenset({1, 13, 16, 19, 22, 38, 95})
_INIT_USERNS_INODE = 0xEFFFFFFD
_userns: bool | None = None
_single: bool | None = None


def in_user_namespace() -> bool:
    """Whether this process lives in a user namespace that is not the machine's first."""
    global _userns
    if _userns is None:
        try:
            _userns = os.stat("/proc/self/ns/user").st_ino != _INIT_USERNS_INODE
        except OSError:
            _userns = False
    return _userns


def has_single_id() -> bool:
    """Whether this process's user namespace has only one user or group id."""
    global _single
    if _single is None:
        _single = False
        if in_user_namespace():
            for kind in ("uid", "gid"):
                with open(f"/proc/self/{kind}_map", "rb") as file:
                    _single = _single or sum(int(line.split()[2]) for line in file) == 1
    return _single


def get_ready() -> None:
    """Make what most containers need before the first is asked for; it takes more than a millisecond."""
    hierarchies.layout()
    seccomp.program(os.uname().machine, capabilities.DEFAULT, "record" if has_single_id() else "")
    if not in_user_namespace():
        devicefilter.prepare(devicefilter.DEFAULT)


def spawn(
    plan: Wire,
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    netns_fd: int = -1,
    pdeathsig: bool = True,
    answers: bool = False,
) -> Process:
    """Start the container of a plan (``plan.container_plan(spec).wire()``).

    ``answers``: the caller serves ``Process.listener``.

    The caller keeps its descriptors. ``netns_fd`` is the network namespace to join when the plan names one;
    it is opened here otherwise. OSError when the process cannot be made at all.
    """
    (
        container,
        flags,
        operations,
        args,
        env,
        filter_for,
        netns,
        pid_path,
        parent,
        limit_pairs,
        rules,
        accounting,
        clean_stubs,
    ) = plan
    layout = hierarchies.layout()
    group = cgroups.create(container, parent, _settings(limit_pairs, layout), rules, every=accounting)
    setup = init.new_setup()
    setup.userns = in_user_namespace()
    _prepare_filter(setup, filter_for, answers=answers)
    setup.clean_stubs = clean_stubs
    setup.nodev_root = not group.devices_enforced and not setup.userns
    setup.cgroup_unified = bool(group.unified)
    setup.cgroup_v1 = tuple(group.v1.items())
    setup.cgroup_mixed = bool(layout.v1)
    opened = pid_ns = -1
    try:
        if pid_path:
            pid_ns = os.open(pid_path, os.O_RDONLY | os.O_CLOEXEC)
        if netns and netns_fd < 0:
            opened = netns_fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        setup.netns_fd = netns_fd
        return _start(
            setup,
            group,
            flags,
            (operations, args, env),
            (stdin, stdout, stderr),
            pid_ns=pid_ns,
            pdeathsig=pdeathsig,
            owns_group=True,
        )
    except BaseException:
        group.remove()
        raise
    finally:
        for fd in (opened, pid_ns):
            if fd >= 0:
                os.close(fd)


def _settings(pairs: tuple[tuple[str, Any], ...], layout: hierarchies.Layout) -> tuple[Setting, ...]:
    if not pairs:
        return ()
    from runtime import limits

    return limits.settings(dict(pairs), v1=bool(layout.v1))


def enter(
    target_pid: int,
    plan: Wire,
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    pidfd: int = -1,
    pdeathsig: bool = True,
    answers: bool = False,
) -> Process:
    """Start one more process in the container of ``target_pid`` (``plan.exec_plan(spec, bounding).wire()``).

    It joins all namespaces and groups of that process. Until it is confined it cannot be traced from inside,
    and it holds no descriptor but its three and those it needs itself. ``pidfd`` names the same process, if
    the caller has one. OSError when the process is gone.
    """
    _, _, operations, args, env, filter_for, *_ = plan
    own = -1
    if pidfd < 0:
        own = pidfd = pidfd_open(target_pid)
    group = cgroups.of_process(target_pid)
    setup = init.new_setup()
    setup.userns = in_user_namespace()
    _prepare_filter(setup, filter_for, answers=answers)
    try:
        setup.join_fd = pidfd
        return _start(
            setup,
            group,
            0,
            (operations, args, env),
            (stdin, stdout, stderr),
            pid_ns=pidfd,
            pdeathsig=pdeathsig,
            owns_group=False,
        )
    finally:
        group.close()
        if own >= 0:
            os.close(own)


def _prepare_filter(setup: Setup, filter_for: tuple[str, ...] | None, *, answers: bool) -> None:
    """Made here and not in the child, so that it is made once."""
    setup.single = has_single_id()
    if filter_for is None:
        return
    setup.listens = setup.single and answers
    chowns = "" if not setup.single else "record" if answers else "pretend"
    setup.filter_program = seccomp.program(os.uname().machine, filter_for, chowns)


def _start(
    setup: Setup,
    group: cgroups.Group,
    flags: int,
    command: tuple[Any, ...],
    stdio: tuple[int, int, int],
    *,
    pid_ns: int,
    pdeathsig: bool,
    owns_group: bool,
) -> Process:
    """Make the process; the child goes on in ``init.main`` and does not return."""
    ours, theirs = messages.pair()
    if pid_ns >= 0 and in_user_namespace():
        pid, pidfd, gate = _clone_in(pid_ns, group, flags)
        if pid == 0:
            ours.close()
            _child(setup, theirs, command, stdio, gate, pdeathsig=pdeathsig)
        theirs.close()
        process = Process(pid, pidfd, ours, group, owns_group=owns_group)
        process.owns_pids = bool(flags & c.CLONE_NEWPID)
        return process
    restore = _enter_pid_namespace(pid_ns)
    pid = -1
    try:
        pid, pidfd, gate = _clone(group, flags)
    finally:
        if pid != 0 and restore >= 0:  # the child belongs there
            KERNEL.setns(restore, c.CLONE_NEWPID)
        if restore >= 0:
            os.close(restore)
    if pid == 0:
        ours.close()
        _child(setup, theirs, command, stdio, gate, pdeathsig=pdeathsig)
    theirs.close()
    if gate is not None:
        _open_gate(group, gate, pid)
    process = Process(pid, pidfd, ours, group, owns_group=owns_group)
    process.owns_pids = bool(flags & c.CLONE_NEWPID)
    return process


def _clone(group: cgroups.Group, flags: int) -> tuple[int, int, tuple[int, int] | None]:
    """Make the process in its version 2 group; (pid, pidfd, pipe that it waits on for its other groups)."""
    gate = os.pipe2(os.O_CLOEXEC) if group.v1 else None
    try:
        return *clone_process(flags, group.fd), gate
    except OSError as error:
        if group.fd < 0 or error.errno not in _NOT_INTO_GROUP:
            raise
    # Before 5.7, or behind an outer seccomp filter: moved into the group like into those of version 1.
    group.close()
    group.v1["unified"] = group.unified
    gate = gate or os.pipe2(os.O_CLOEXEC)
    return *clone_process(flags), gate


def _clone_in(pid_ns: int, group: cgroups.Group, flags: int) -> tuple[int, int, tuple[int, int] | None]:
    """``_clone`` in another pid namespace, by way of a helper.

    In a user namespace this process could not come back from there: its own pid namespace is the machine's.
    """
    answer, told = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        status = 0
        try:
            KERNEL.setns(pid_ns, c.CLONE_NEWPID)
            pid, _, gate = _clone(group, flags | c.CLONE_PARENT)
            if pid == 0:
                os.close(answer)
                return 0, -1, gate
            os.write(told, f"{pid}".encode())
            if gate is not None:
                _open_gate(group, gate, pid)
        except OSError as error:
            os.write(told, f" {error.errno or 5}".encode())
            status = 1
        os._exit(status)
    os.close(told)
    text = b""
    while more := os.read(answer, 64):
        text += more
    os.close(answer)
    os.waitpid(helper, 0)
    started, _, errno = text.decode().partition(" ")
    if errno:
        raise failed("clone3 in a pid namespace", "", int(errno))
    return int(started), pidfd_open(int(started)), None


def _open_gate(group: cgroups.Group, gate: tuple[int, int], pid: int) -> None:
    """Put the process into its version 1 groups, then let it go on."""
    try:
        group.join(pid)
    except OSError as error:
        group.warnings.append(f"cannot join its control groups: {error.strerror}")
        if group.devices_enforced and group.v1:  # it must not run without its device rules
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise
    finally:
        os.close(gate[0])
        os.close(gate[1])


def _child(
    setup: Setup,
    report: _socket.socket,
    command: tuple[Any, ...],
    stdio: tuple[int, int, int],
    gate: tuple[int, int] | None,
    *,
    pdeathsig: bool,
) -> None:
    if gate is not None:
        os.close(gate[1])
        os.read(gate[0], 1)
    operations, args, env = command
    init.main(setup, report, operations, args, env, stdio, pdeathsig=pdeathsig)


def _enter_pid_namespace(fd: int) -> int:
    """Make children of this process be born in another pid namespace; returns what undoes it, or -1."""
    if fd < 0:
        return -1
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        KERNEL.setns(fd, c.CLONE_NEWPID)
    except OSError:
        os.close(own)
        raise
    return own
