"""A container's first process between its birth and the command: standard library and raw system calls only.

It carries out a plan (see ``plan.py``) operation by operation, becomes the user, gives up what a container
must not have, and executes the command. Whatever fails is reported over the report socket as call, path and
errno.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal: no enum module behind it
import os
import resource
import select

from runtime import capabilities, devices, messages, mounts, openfiles, paths, rootfs, seccomp, user
from runtime.errors import UserNotFound
from runtime.setup import Setup
from runtime.syscalls import constants as c
from runtime.syscalls.linux import KERNEL, failed, new_session_keyring, reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, NoReturn

    from runtime.syscalls.protocol import Kernel

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RESTORED_SIGNALS = (13, 25, 32, 33)
"""SIGPIPE, SIGXFSZ: the interpreter ignores them; two more: posix_spawn does. exec would pass that on."""


class CannotExecute(Exception):
    """The command is missing (``not-found``) or cannot be executed (``not-executable``)."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def join(setup: Setup, kind: int, path: str) -> None:
    """Join an existing namespace by path, or by the descriptor that came with the request when there is
    none."""
    if not path:
        setup.kernel.setns(setup.netns_fd, kind)
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setup.kernel.setns(fd, kind)
    finally:
        os.close(fd)


def join_all(setup: Setup) -> None:
    """Join every namespace of the process that ``join_fd`` names, and find its root."""
    kinds = c.CLONE_NEWCGROUP | c.CLONE_NEWUTS | c.CLONE_NEWIPC | c.CLONE_NEWNET | c.CLONE_NEWNS
    if setup.userns:
        kinds &= ~_shared_kinds(setup.join_fd)  # the host's cannot be joined, not even by those who are there
    setup.kernel.setns(setup.join_fd, kinds)
    setup.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _shared_kinds(pidfd: int) -> int:
    """The namespaces that a process and this one have in common."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        pid = next(int(line.split()[1]) for line in file if line.startswith(b"Pid:"))
    kinds = {"uts": c.CLONE_NEWUTS, "ipc": c.CLONE_NEWIPC, "net": c.CLONE_NEWNET}
    return sum(
        flag
        for name, flag in kinds.items()
        if os.path.samestat(os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}"))
    )


def hostname(setup: Setup, name: str) -> None:
    """Set the host name of the container."""
    setup.kernel.sethostname(name)


def loopback(setup: Setup) -> None:
    """Bring ``lo`` up."""
    setup.kernel.link_up("lo")


def oom_score(setup: Setup, value: int) -> None:
    """Set oom_score_adj, if this process may."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # /proc is the host's here, but make sure: a write meant for procfs must never reach a file of an
        # image.
        if setup.kernel.fs_magic(fd) == c.PROC_MAGIC:
            os.write(fd, str(value).encode())
    except OSError:
        pass
    finally:
        os.close(fd)


def directory(setup: Setup, path: str, create: bool) -> None:
    """Change to the working directory, made 0755 and owned by the user when missing (EXE-12)."""
    assert setup.identity is not None
    made: list[paths.Stub] = []
    if create:
        fd = paths.ensure(setup.root_fd, path, True, made)
    else:
        fd = paths.open_in_root(setup.root_fd, path, os.O_PATH)
    for stub in made:
        if setup.identity.uid or setup.identity.gid:
            os.chown(
                stub.name,
                setup.identity.uid,
                setup.identity.gid,
                dir_fd=stub.parent_fd,
                follow_symlinks=False,
            )
        os.close(stub.parent_fd)
    try:
        os.fchdir(fd)
    except OSError as error:
        raise failed("chdir", path, error.errno or 0) from error
    finally:
        os.close(fd)
    if not os.getcwd().startswith("/"):  # "(unreachable)": outside the root
        raise failed("chdir", path, 1)


def limits(setup: Setup, rows: tuple[tuple[int, int, int], ...]) -> None:
    """Set resource limits: (resource, soft, hard)."""
    del setup
    for number, soft, hard in rows:
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as error:
            names = (name for name in dir(resource) if name.startswith("RLIMIT_"))
            name = next((name for name in names if getattr(resource, name) == number), str(number))
            shown = f"{name.removeprefix('RLIMIT_').lower()}={soft}:{hard}"
            raise failed(
                f"ulimit {shown}",
                "",
                getattr(error, "errno", None) or (1 if "not allowed" in str(error) else 22),
            ) from error


def confine(setup: Setup, keep: int, no_new_privileges: bool) -> None:
    """Give up privileges: bounding set, seccomp, ids, capabilities; in this order, each needs what the next
    drops."""
    assert setup.identity is not None
    kernel = setup.kernel
    keep &= kernel.capget()
    capabilities.limit_bounding(kernel, keep)
    if no_new_privileges:
        kernel.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    if setup.filter_program is not None:
        listener = seccomp.load(kernel, setup.filter_program, listen=setup.listens)
        setup.listener_fd = listener if setup.listens else -1
    _become(setup)
    if setup.powerless:
        kernel.prctl(c.PR_SET_SECUREBITS, c.SECBIT_NOROOT | c.SECBIT_NOROOT_LOCKED)  # or exec gives all back
    if setup.identity.uid == 0 and not setup.powerless:
        capabilities.apply(kernel, keep, keep)
    else:
        capabilities.apply(kernel, 0, 0)


def _become(setup: Setup) -> None:
    identity = setup.identity
    assert identity is not None
    try:
        setup.kernel.setgroups(identity.groups)
    except OSError as error:
        # A namespace with one mapped id may not call setgroups; nor can it name any other group.
        if not setup.userns or error.errno not in {1, 22}:
            raise
    setup.kernel.setgid(identity.gid)
    setup.kernel.setuid(identity.uid)


def _hint(setup: Setup, call: str, errno: int) -> str:
    if setup.userns and errno == 22 and call.startswith("setres"):
        return (
            "this id is not mapped into the user namespace; /etc/subuid and /etc/subgid grant ranges of ids"
        )
    return ""


OPERATIONS: dict[str, Callable[..., None]] = {
    "propagation": rootfs.propagation,
    "join": join,
    "join_all": join_all,
    "hostname": hostname,
    "loopback": loopback,
    "oom_score": oom_score,
    "overlay_root": rootfs.overlay_root,
    "dir_root": rootfs.dir_root,
    "staging": mounts.staging,
    "proc": rootfs.proc,
    "dev": devices.dev,
    "devpts": devices.devpts,
    "shm": devices.shm,
    "mqueue": devices.mqueue,
    "sysfs": rootfs.sysfs,
    "cgroup_fs": rootfs.cgroup_fs,
    "console": devices.console,
    "bind": mounts.bind,
    "overlay": mounts.overlay,
    "tmpfs": mounts.tmpfs,
    "file": mounts.file,
    "mask": rootfs.mask,
    "readonly_paths": rootfs.readonly_paths,
    "who": user.who,
    "readonly_root": rootfs.readonly_root,
    "pivot": rootfs.pivot,
    "directory": directory,
    "limits": limits,
    "exec_terminal": devices.exec_terminal,
    "terminal": devices.terminal,
    "confine": confine,
}


def carry_out(setup: Setup, operations: tuple[tuple[Any, ...], ...]) -> None:
    """Do the operations of a plan in order; OSError and UserNotFound of the first that fails."""
    for name, *arguments in operations:
        OPERATIONS[name](setup, *arguments)


def main(
    setup: Setup,
    report: _socket.socket,
    operations: tuple[tuple[Any, ...], ...],
    args: tuple[str, ...],
    env: tuple[str, ...],
    stdio: tuple[int, int, int],
    *,
    pdeathsig: bool,
) -> NoReturn:
    """Run in the new process: set up, report, execute. Never returns."""
    try:
        setup.kernel.prctl(c.PR_SET_DUMPABLE, 0)  # nothing inside may trace it until it is confined
        _restore_process(stdio)
        carry_out(setup, operations)
        _report_setup(setup, report)
        _close_others(setup.kernel)
        if pdeathsig:
            _die_with_parent(setup.kernel, report)
        execute(args, environment(env, setup.identity))
    except CannotExecute as error:
        message: messages.Message = ("failed", error.kind, "", "", 0, str(error))
    except UserNotFound as error:
        message = ("failed", "user", "", "", 0, str(error))
    except OSError as error:
        call = getattr(error, "call", "") or name_of_last(error)
        errno = error.errno or 5
        message = ("failed", "setup", call, str(error.filename or ""), errno, _hint(setup, call, errno))
    except BaseException as error:  # noqa: BLE001 - a bug must reach the parent, not the container's output
        message = ("failed", "bug", "", "", 0, _trace(error))
    try:
        _report_setup(setup, report)  # mount points that it has made are removed by whoever reaps it
        messages.send(report, message)
    finally:
        os._exit(125)


def _trace(error: BaseException) -> str:
    """A traceback in short; the traceback module cannot be imported from inside a container's root."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"  {code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])


def name_of_last(error: BaseException) -> str:
    """The operation in which an error without a call name was raised."""
    trace = error.__traceback__
    name = "set-up"
    while trace is not None:
        name = trace.tb_frame.f_code.co_name
        trace = trace.tb_next
    return name


def _restore_process(stdio: tuple[int, int, int]) -> None:
    """Make the process look like a fresh one: descriptors 0 to 2, signals, umask."""
    reset_signals(_RESTORED_SIGNALS)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    # The sources may themselves be 0 to 2, so they are moved out of the way first.
    moved = [os.dup(fd) if fd < 3 else fd for fd in stdio]
    for number, fd in enumerate(moved):
        os.dup2(fd, number)
    os.umask(0o022)
    new_session_keyring()
    if soft := openfiles.told():
        openfiles.restore(soft)


def _report_setup(setup: Setup, report: _socket.socket) -> None:
    stubs, setup.stubs = setup.stubs, []
    for start in range(0, len(stubs), 200):
        part = stubs[start : start + 200]
        messages.send(
            report, ("stubs", tuple(stub.wire() for stub in part)), tuple(stub.parent_fd for stub in part)
        )
    if setup.warning:
        messages.send(report, ("warning", setup.warning))
    if setup.listener_fd >= 0:
        messages.send(report, ("listener",), (setup.listener_fd,))
    if setup.terminal_fd >= 0:
        messages.send(report, ("terminal",), (setup.terminal_fd,))
        setup.terminal_fd = -1


def _close_others(kernel: Kernel) -> None:
    """Everything but 0 to 2 goes at exec, the report socket with it."""
    try:
        kernel.close_range(3, 0xFFFFFFFF, c.CLOSE_RANGE_CLOEXEC)
    except OSError:
        for fd in range(3, min(65536, os.sysconf("SC_OPEN_MAX"))):
            try:
                os.set_inheritable(fd, False)
            except OSError:
                continue


def _die_with_parent(kernel: Kernel, report: _socket.socket) -> None:
    """Be killed when the launcher ends; set after the ids, whose change clears it."""
    kernel.prctl(c.PR_SET_PDEATHSIG, 9)
    poll = select.poll()
    poll.register(report.fileno(), select.POLLHUP)
    if poll.poll(0):  # it ended before the line above
        os._exit(125)


def environment(env: tuple[str, ...], identity: user.Identity | None) -> dict[str, str]:
    """The environment of the command; HOME from the passwd entry unless it is set (EXE-10)."""
    found = {}
    for entry in env:
        name, sign, value = entry.partition("=")
        if sign and name:
            found[name] = value
    if not found.get("HOME"):
        found["HOME"] = identity.home if identity is not None else "/"
    return found


def execute(args: tuple[str, ...], env: dict[str, str]) -> NoReturn:
    """Replace this process by the command; CannotExecute says why not."""
    if not args or not args[0]:
        raise CannotExecute("not-found", "no command specified")
    command = args[0]
    if "/" in command:
        candidates = [command]
    else:
        candidates = [
            os.path.join(place or ".", command) for place in env.get("PATH", DEFAULT_PATH).split(":")
        ]
    refused: OSError | None = None
    for path in candidates:
        try:
            os.execve(path, args, env)  # noqa: S606 - this is what a container runtime does
        except (FileNotFoundError, NotADirectoryError) as error:
            if refused is None and os.path.lexists(path) and os.path.isfile(path):
                refused = error
        except OSError as error:
            refused = error
    _explain(command, refused)


def _explain(command: str, refused: OSError | None) -> NoReturn:
    if refused is None:
        if "/" in command:
            raise CannotExecute("not-found", f'exec: "{command}": no such file or directory')
        raise CannotExecute("not-found", f'exec: "{command}": executable file not found in $PATH')
    if isinstance(refused, FileNotFoundError):
        text = f'exec: "{command}": its interpreter or dynamic loader does not exist in the container'
        raise CannotExecute("not-found", text)
    reason = os.strerror(refused.errno or 0).lower()
    raise CannotExecute("not-executable", f'exec: "{command}": {reason}')


def new_setup() -> Setup:
    """A set-up on the running kernel."""
    return Setup(KERNEL)
