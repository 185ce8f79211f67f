"""The door to ctypes: thin typed wrappers of Linux system calls (see ``protocol.Kernel``).

The container's first process runs this code between fork and exec, so nothing here imports more than ctypes,
and every call goes through ``syscall(2)``: the C library may be older than the kernel.
"""

from __future__ import annotations

import ctypes
import os
import struct

from runtime.syscalls import constants as c

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_MACHINE = os.uname().machine
_LAST_UINT = 0xFFFFFFFF
_SIGCHLD = 17

# name: (x86_64, aarch64); calls numbered 424 and later have one number on every machine
_NUMBERS = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "clone": (56, 220),
    "setns": (308, 268),
    "unshare": (272, 97),
    "sethostname": (170, 161),
    "prctl": (157, 167),
    "rt_sigaction": (13, 134),
    "capget": (125, 90),
    "capset": (126, 91),
    "seccomp": (317, 277),
    "setgroups": (116, 159),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "ioctl": (16, 29),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "fstatfs": (138, 44),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "mount_setattr": (442, 442),
}
_COLUMN = 1 if _MACHINE == "aarch64" else 0


def failed(call: str, path: str, errno: int) -> OSError:
    """The error of one system call: the OSError subclass of its number, with the call's name as ``call``."""
    error = OSError(errno, os.strerror(errno), path or None)
    error.__dict__["call"] = call
    return error


def _bytes(text: str) -> ctypes.c_char_p:
    return ctypes.c_char_p(os.fsencode(text))


def _number(value: int) -> ctypes.c_ulong:
    return ctypes.c_ulong(value)


def _call(name: str, path: str, *args: object) -> int:
    if _MACHINE not in {"x86_64", "aarch64"}:
        raise failed(name, path, 38)
    result: int = _syscall(ctypes.c_long(_NUMBERS[name][_COLUMN]), *args)
    if result == -1:
        raise failed(name, path, ctypes.get_errno())
    return result


class LinuxKernel:
    """The running kernel."""

    def mount(self, source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
        """mount(2); ``data`` is limited to one page."""
        _call(
            "mount",
            target,
            _bytes(source),
            _bytes(target),
            _bytes(fstype) if fstype else None,
            _number(flags),
            _bytes(data) if data else None,
        )

    def umount(self, target: str, flags: int = 0) -> None:
        """umount2(2)."""
        _call("umount2", target, _bytes(target), _number(flags))

    def pivot_root(self, new_root: str, put_old: str) -> None:
        """pivot_root(2)."""
        _call("pivot_root", new_root, _bytes(new_root), _bytes(put_old))

    def open_tree(self, dir_fd: int, path: str, flags: int) -> int:
        """open_tree(2)."""
        return _call("open_tree", path, ctypes.c_int(dir_fd), _bytes(path), _number(flags))

    def move_mount(self, from_fd: int, to_fd: int) -> None:
        """Attach the detached mount ``from_fd`` to the file or directory that ``to_fd`` is open on."""
        flags = c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH
        _call(
            "move_mount",
            "",
            ctypes.c_int(from_fd),
            _bytes(""),
            ctypes.c_int(to_fd),
            _bytes(""),
            _number(flags),
        )

    def mount_setattr(self, dir_fd: int, path: str, flags: int, set_attr: int, propagation: int = 0) -> None:
        """mount_setattr(2)."""
        attr = struct.pack("=4Q", set_attr, 0, propagation, 0)  # set, clear, propagation, user namespace
        _call(
            "mount_setattr",
            path,
            ctypes.c_int(dir_fd),
            _bytes(path),
            _number(flags),
            ctypes.c_char_p(attr),
            _number(len(attr)),
        )

    def openat2(self, dir_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
        """openat2(2); close-on-exec is always set."""
        how = struct.pack("=3Q", flags | os.O_CLOEXEC, mode, resolve)
        return _call(
            "openat2",
            path,
            ctypes.c_int(dir_fd),
            _bytes(path),
            ctypes.c_char_p(how),
            _number(len(how)),
        )

    def fs_magic(self, fd: int) -> int:
        """The type of the file system that ``fd`` is on (statfs ``f_type``)."""
        buffer = ctypes.create_string_buffer(256)
        _call("fstatfs", "", ctypes.c_int(fd), buffer)
        return int.from_bytes(buffer.raw[:4], "little")

    def setns(self, fd: int, kinds: int) -> None:
        """setns(2) to the namespace, or with a pidfd the namespaces, behind ``fd``."""
        _call("setns", "", ctypes.c_int(fd), ctypes.c_int(kinds))

    def unshare(self, flags: int) -> None:
        """unshare(2)."""
        _call("unshare", "", _number(flags))

    def sethostname(self, name: str) -> None:
        """sethostname(2)."""
        raw = os.fsencode(name)
        _call("sethostname", name, ctypes.c_char_p(raw), _number(len(raw)))

    def prctl(self, option: int, arg2: int = 0, arg3: int = 0) -> int:
        """prctl(2)."""
        return _call("prctl", "", ctypes.c_int(option), _number(arg2), _number(arg3), _number(0), _number(0))

    def capget(self) -> int:
        """The permitted set of this thread."""
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)()
        _call("capget", "", ctypes.byref(header), ctypes.byref(data))
        return int(data[1]) | int(data[4]) << 32

    def capset(self, effective: int, permitted: int, inheritable: int) -> None:
        """capset(2), version 3: 64-bit sets of the calling thread."""
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        low, high = _LAST_UINT, 32
        data = (ctypes.c_uint32 * 6)(
            effective & low,
            permitted & low,
            inheritable & low,
            effective >> high,
            permitted >> high,
            inheritable >> high,
        )
        _call("capset", "", ctypes.byref(header), ctypes.byref(data))

    def seccomp(self, filter_program: bytes, flags: int) -> int:
        """Load a filter (an array of ``struct sock_filter``) for this process and its descendants.

        With NEW_LISTENER returns the descriptor by which calls are answered.
        """
        instructions = ctypes.create_string_buffer(filter_program, len(filter_program))
        fprog = struct.pack("@HP", len(filter_program) // 8, ctypes.addressof(instructions))
        return _call(
            "seccomp", "", _number(c.SECCOMP_SET_MODE_FILTER), _number(flags), ctypes.c_char_p(fprog)
        )

    def setgroups(self, groups: tuple[int, ...]) -> None:
        """setgroups(2)."""
        array = (ctypes.c_uint32 * max(len(groups), 1))(*groups)
        _call("setgroups", "", _number(len(groups)), ctypes.byref(array))

    def setgid(self, gid: int) -> None:
        """setresgid(2) with one id for all three."""
        _call("setresgid", str(gid), _number(gid), _number(gid), _number(gid))

    def setuid(self, uid: int) -> None:
        """setresuid(2) with one id for all three."""
        _call("setresuid", str(uid), _number(uid), _number(uid), _number(uid))

    def ioctl(self, fd: int, request: int, arg: int = 0) -> int:
        """ioctl(2) with a number as argument."""
        return _call("ioctl", "", ctypes.c_int(fd), _number(request), _number(arg))

    def ioctl_bytes(self, fd: int, request: int, data: bytes) -> bytes:
        """ioctl(2) with a buffer that the kernel reads and may change."""
        buffer = ctypes.create_string_buffer(data, len(data))
        _call("ioctl", "", ctypes.c_int(fd), _number(request), ctypes.byref(buffer))
        return buffer.raw

    def close_range(self, first: int, last: int, flags: int) -> None:
        """close_range(2)."""
        _call("close_range", "", ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(flags))

    def link_up(self, name: str) -> None:
        """Bring a network interface of this network namespace up."""
        import _socket  # the C half of socket: importing the rest costs more than the call

        sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
        try:
            request = name.encode().ljust(16, b"\0")
            reply = self.ioctl_bytes(sock.fileno(), c.SIOCGIFFLAGS, request + bytes(24))
            flags = int.from_bytes(reply[16:18], "little") | c.IFF_UP
            self.ioctl_bytes(sock.fileno(), c.SIOCSIFFLAGS, request + flags.to_bytes(2, "little") + bytes(22))
        finally:
            sock.close()


KERNEL = LinuxKernel()


def pidfd_open(pid: int) -> int:
    """A descriptor of the process ``pid`` (close-on-exec is always set)."""
    return _call("pidfd_open", str(pid), ctypes.c_int(pid), ctypes.c_uint(0))


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send a signal to the process that ``pidfd`` names; one that has ended is not an error."""
    try:
        _call("pidfd_send_signal", "", ctypes.c_int(pidfd), ctypes.c_int(signal), None, ctypes.c_uint(0))
    except ProcessLookupError:
        pass


def reset_signals(numbers: tuple[int, ...]) -> None:
    """Default action for signals, those included that the C library keeps for itself."""
    action = bytes(32)
    for number in numbers:
        _call("rt_sigaction", str(number), _number(number), ctypes.c_char_p(action), None, _number(8))


def new_session_keyring() -> None:
    """Leave the session keyring of the user who started us, where there are keyrings."""
    try:
        _call("keyctl", "", _number(1), None)  # KEYCTL_JOIN_SESSION_KEYRING, anonymous
    except OSError:
        pass


def bpf(command: int, attr: bytes) -> int:
    """bpf(2)."""
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return _call("bpf", "", ctypes.c_int(command), ctypes.byref(buffer), ctypes.c_uint(len(attr)))


def address_of(data: bytes) -> tuple[int, object]:
    """The address of a copy of ``data`` and the object that keeps it alive."""
    buffer = ctypes.create_string_buffer(data, len(data))
    return ctypes.addressof(buffer), buffer


def clone_process(flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """fork() with namespace flags, and into a version 2 cgroup: (pid, pidfd); pid is 0 in the child.

    Only for a process with one thread. The interpreter's own fork hooks run as they do for ``os.fork``. A
    kernel or an outer seccomp filter without clone3 is served by clone, which cannot start in a cgroup
    (``cgroup_fd`` < 0 then, or OSError).
    """
    flags |= c.CLONE_PIDFD
    pidfd = ctypes.c_int(-1)
    fields = [flags | c.CLONE_CLEAR_SIGHAND | (c.CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0)]
    signal = 0 if flags & c.CLONE_PARENT else _SIGCHLD  # a sibling has the same one as its maker
    fields += [ctypes.addressof(pidfd), 0, 0, signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0)]
    args = struct.pack("=11Q", *fields)
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = _raw_clone("clone3", ctypes.c_char_p(args), _number(len(args)))
    if pid == -1 and ctypes.get_errno() in {1, 38} and cgroup_fd < 0:
        pid = _raw_clone("clone", _number(flags | signal), None, ctypes.byref(pidfd), None, None)
    errno = ctypes.get_errno()
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0, -1
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise failed("clone3", "", errno)
    return pid, pidfd.value


_held = ctypes.PyDLL(None, use_errno=True).syscall  # keeps the interpreter lock across the call
_held.restype = ctypes.c_long


def _raw_clone(name: str, *args: object) -> int:
    result: int = _held(ctypes.c_long(_NUMBERS[name][_COLUMN]), *args)
    return result
