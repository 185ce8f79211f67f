"""A kernel that does nothing and writes down what it was asked for; for tests of order and arguments."""

from __future__ import annotations

from typing import Any


class RecordingKernel:
    """Satisfies ``protocol.Kernel``; ``calls`` holds (name, arguments...) in order.

    ``fail`` maps a call name to the errno that it fails with.
    """

    def __init__(self, fail: dict[str, int] | None = None, *, permitted: int = (1 << 41) - 1) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fail = fail or {}
        self.permitted = permitted

    def names(self) -> list[str]:
        """The names of the calls, in order."""
        return [call[0] for call in self.calls]

    def _note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if name in self.fail:
            from runtime.syscalls.linux import failed

            raise failed(name, "", self.fail[name])

    def mount(self, source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
        self._note("mount", source, target, fstype, flags, data)

    def umount(self, target: str, flags: int = 0) -> None:
        self._note("umount", target, flags)

    def pivot_root(self, new_root: str, put_old: str) -> None:
        self._note("pivot_root", new_root, put_old)

    def open_tree(self, dir_fd: int, path: str, flags: int) -> int:
        self._note("open_tree", dir_fd, path, flags)
        return -1

    def move_mount(self, from_fd: int, to_fd: int) -> None:
        self._note("move_mount", from_fd, to_fd)

    def mount_setattr(self, dir_fd: int, path: str, flags: int, set_attr: int, propagation: int = 0) -> None:
        self._note("mount_setattr", dir_fd, path, flags, set_attr, propagation)

    def openat2(self, dir_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
        self._note("openat2", dir_fd, path, flags, mode, resolve)
        return -1

    def fs_magic(self, fd: int) -> int:
        self._note("fs_magic", fd)
        return 0

    def setns(self, fd: int, kinds: int) -> None:
        self._note("setns", fd, kinds)

    def unshare(self, flags: int) -> None:
        self._note("unshare", flags)

    def sethostname(self, name: str) -> None:
        self._note("sethostname", name)

    def prctl(self, option: int, arg2: int = 0, arg3: int = 0) -> int:
        self._note("prctl", option, arg2, arg3)
        return 0

    def capget(self) -> int:
        self._note("capget")
        return self.permitted

    def capset(self, effective: int, permitted: int, inheritable: int) -> None:
        self._note("capset", effective, permitted, inheritable)

    def seccomp(self, filter_program: bytes, flags: int) -> int:
        self._note("seccomp", filter_program, flags)
        return 0

    def setgroups(self, groups: tuple[int, ...]) -> None:
        self._note("setgroups", groups)

    def setgid(self, gid: int) -> None:
        self._note("setgid", gid)

    def setuid(self, uid: int) -> None:
        self._note("setuid", uid)

    def ioctl(self, fd: int, request: int, arg: int = 0) -> int:
        self._note("ioctl", fd, request, arg)
        return 0

    def ioctl_bytes(self, fd: int, request: int, data: bytes) -> bytes:
        self._note("ioctl_bytes", fd, request, data)
        return data

    def close_range(self, first: int, last: int, flags: int) -> None:
        self._note("close_range", first, last, flags)

    def link_up(self, name: str) -> None:
        self._note("link_up", name)
