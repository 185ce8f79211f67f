"""Running without root: the program again, as root of a user namespace.

With ranges in ``/etc/subuid`` and ``/etc/subgid`` and the helpers newuidmap and newgidmap the namespace has
tens of thousands of ids; otherwise one, the caller's own, which is root inside.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from runtime import idmap
from runtime.errors import NotPermitted

MARKER = "_PYBUILD_USERNS"
"""Set in the environment of the program inside: ``range`` or ``single``."""

_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x00020000
_FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")
_ALL_IDS = 4_294_967_295
_HINT = (
    "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns) or run as root"
)


def needed() -> bool:
    """Whether containers need a user namespace first."""
    return os.geteuid() != 0 and MARKER not in os.environ


def rung() -> str:
    """What this process's ids are: ``root`` of the machine, or a user namespace's ``range`` or ``single``."""
    sizes = [sum(r.size for r in idmap.current(kind=kind).ranges) for kind in ("uid", "gid")]
    if min(sizes) == 1:
        return "single"
    return "range" if min(sizes) < _ALL_IDS else "root"


def why_single(uid: int) -> tuple[str, str]:
    """Why a user gets only one id, and the command that would change that."""
    name = _login(uid)
    for file, helper in (("subuid", "newuidmap"), ("subgid", "newgidmap")):
        if not idmap.subordinate(Path("/etc") / file, uid, name):
            row = f"{name}:{_free(Path('/etc') / file)}:65536"
            return f"/etc/{file} grants {name} no range", f"echo {row} | sudo tee -a /etc/{file}"
        if not any(os.access(os.path.join(place, helper), os.X_OK) for place in os.get_exec_path() if place):
            return f"{helper} is not installed", "sudo apt install uidmap"
    return "newuidmap refused the ranges of /etc/subuid and /etc/subgid", "give each user ranges of their own"


def _free(path: Path) -> int:
    """Where a new range can begin."""
    import re

    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found = [re.fullmatch(r"[^:]+:(\d+):(\d+)", line.strip()) for line in lines]
    taken = [int(match[1]) + int(match[2]) for match in found if match]
    return max([100_000, *taken])


def namespace_of(root: Path) -> int | None:
    """The user namespace of a container that runs in the state directory ``root``, as a descriptor.

    What a container is made of can only be reached from its own user namespace.
    """
    try:
        names = os.listdir(root / "containers")
    except OSError:
        return None
    if not names:
        return None
    from runtime import state
    from runtime.errors import ContainerError

    for name in names:
        try:
            monitor = state.read(root / "containers" / name).monitor
            if not monitor.alive():
                continue
            fd = os.open(f"/proc/{monitor.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ContainerError):
            continue
        if monitor.alive() and not os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/user")):
            return fd
        os.close(fd)
    return None


def reexec(argv: list[str], env: dict[str, str] | None = None, *, join: int | None = None) -> int:
    """Run ``argv`` as root of a new user and mount namespace and return its exit status (128 + signal when
    killed). With ``join``, a descriptor that it takes over, the user namespace is that one.

    The caller has to be single-threaded. It stays as the parent: it writes the maps, passes signals on and
    waits; a terminal's own signals reach both. Raises NotPermitted where user namespaces are not allowed.
    """
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    mapped_r, mapped_w = os.pipe2(os.O_CLOEXEC)
    watched = {getattr(signal, name) for name in (*_FORWARDED, "SIGCHLD")}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    pid = os.fork()
    if pid == 0:
        os.close(ready_r)
        os.close(mapped_w)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _inside(argv, dict(os.environ if env is None else env), ready_w, mapped_r, join)
    os.close(ready_w)
    os.close(mapped_r)
    if join is not None:
        os.close(join)
    try:
        return _supervise(pid, ready_r, mapped_w, watched, mapped=join is not None)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _supervise(pid: int, ready_r: int, mapped_w: int, watched: set[signal.Signals], *, mapped: bool) -> int:
    """The parent's side: maps, then waiting."""
    answer = os.read(ready_r, 16)
    os.close(ready_r)
    if answer != b"ok":
        os.close(mapped_w)
        os.waitpid(pid, 0)
        number = int(answer or b"1")
        raise NotPermitted(
            "cannot create a user namespace", context=(f"unshare: {os.strerror(number)}",), hint=_HINT
        )
    try:
        kind = _kind(pid) if mapped else write_maps(pid)
    except OSError as error:
        os.close(mapped_w)
        os.waitpid(pid, 0)
        context = (f"{error.filename or 'uid_map'}: {error.strerror}",)
        raise NotPermitted("cannot map ids into a user namespace", context=context, hint=_HINT) from error
    os.write(mapped_w, kind.encode())
    os.close(mapped_w)
    return _wait(pid, watched)


def _kind(pid: int) -> str:
    """Which maps a process has."""
    return "single" if sum(r.size for r in idmap.current(str(pid)).ranges) == 1 else "range"


def _inside(argv: list[str], env: dict[str, str], ready: int, mapped: int, join: int | None) -> None:
    """The child: make the namespace, wait for the maps, execute. Never returns."""
    from runtime.syscalls.linux import KERNEL

    try:
        if join is None:
            KERNEL.unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
        else:
            KERNEL.setns(join, _CLONE_NEWUSER)
            KERNEL.unshare(_CLONE_NEWNS)
    except OSError as error:
        os.write(ready, str(error.errno).encode())
        os._exit(125)
    os.write(ready, b"ok")
    kind = os.read(mapped, 16).decode()
    if not kind:
        os._exit(125)
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        if kind == "range":
            os.setgroups([])
        KERNEL.prctl(1, signal.SIGTERM)  # end with the parent, which is all that a supervisor sees
        os.execvpe(argv[0], argv, {**env, MARKER: kind})  # noqa: S606 - our own command line again
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


def write_maps(pid: int) -> str:
    """Map ids for the process ``pid``, which has just made a user namespace: ``range`` or ``single``."""
    uids, gids = granted()
    ranged = bool(uids and gids) and _helper("newuidmap", pid, idmap.with_ranges(os.geteuid(), uids))
    if ranged and _helper("newgidmap", pid, idmap.with_ranges(os.getegid(), gids)):
        return "range"
    if not ranged:
        _write(pid, "uid_map", idmap.single(os.geteuid()).text())
    _write(pid, "setgroups", "deny")
    _write(pid, "gid_map", idmap.single(os.getegid()).text())
    return "single"


def _write(pid: int, name: str, text: str) -> None:
    Path(f"/proc/{pid}/{name}").write_text(text, encoding="ascii")


def _helper(name: str, pid: int, id_map: idmap.IdMap) -> bool:
    """Let a set-uid helper write a map; False when it is missing or refuses."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in range(3)]
    command = [name, str(pid), *id_map.arguments()]
    try:
        helper = os.posix_spawnp(name, command, os.environ, file_actions=actions)
    except OSError:
        return False
    finally:
        os.close(null)
    _, status = os.waitpid(helper, 0)
    return status == 0


def granted() -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """The ranges of this user: (of user ids, of group ids)."""
    uid = os.geteuid()
    name = _login(uid)
    return (
        idmap.subordinate(Path("/etc/subuid"), uid, name),
        idmap.subordinate(Path("/etc/subgid"), uid, name),
    )


def _login(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _wait(pid: int, watched: set[signal.Signals]) -> int:
    """Pass signals on until the child ends. ``watched`` are blocked, SIGCHLD among them."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        info = signal.sigwaitinfo(watched)
        # What the kernel sends (si_code > 0: the keys of a terminal) went to the child as well.
        if info.si_signo != signal.SIGCHLD and info.si_code <= 0:
            os.kill(pid, info.si_signo)
