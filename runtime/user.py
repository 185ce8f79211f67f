"""Who a container's process runs as: ``name|uid[:group|gid]`` looked up in the files of its root (EXE-10,
EXE-11).

The files belong to the image and are read with suspicion: beneath the root, regular files only, at most a few
megabytes, never from procfs and the like, and no part of the C library's name service takes part.
"""

from __future__ import annotations

import os
import stat

from runtime import paths
from runtime.errors import UserNotFound
from runtime.syscalls import constants as c
from runtime.syscalls.linux import KERNEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.setup import Setup

_LIMIT_BYTES = 4 << 20
_HIGHEST = (1 << 31) - 1
_MANY_GROUPS = 65_536


class Identity:
    """The ids of a process and its home directory."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Identity(uid={self.uid}, gid={self.gid}, groups={self.groups}, home={self.home!r})"

    def _key(self) -> tuple[int, int, tuple[int, ...], str]:
        return self.uid, self.gid, self.groups, self.home


def lookup(root_fd: int, user: str, extra_groups: tuple[str, ...] = ()) -> Identity:
    """Resolve ``user`` in the root; UserNotFound for unknown names and for numbers that are no ids."""
    return resolve(user, extra_groups, lambda name: read_database(root_fd, name))


def resolve(user: str, extra_groups: tuple[str, ...], read: Reader) -> Identity:
    """The same on any source of the two files; ``read`` gets ``etc/passwd`` or ``etc/group`` and returns its
    lines.

    Numbers need no entry; without one the group is 0 and the home ``/``. Supplementary groups come from the
    group file, for an entry of the passwd file and when no group was asked for.
    """
    name, _, group = user.partition(":")
    name = name or "0"
    entry = _passwd_entry(name, read)
    if entry is None:
        uid, gid, home, login = _number(name, "user"), 0, "/", ""
    else:
        login, uid, gid, home = entry
    groups: list[int] = []
    rows: list[list[str]] | None = None
    if group:
        rows = _rows(read, "etc/group", 3)
        gid = _group_id(group, rows)
    elif login:
        rows = _rows(read, "etc/group", 4)
        groups = _memberships(login, rows)
    if extra_groups:
        rows = _rows(read, "etc/group", 3) if rows is None else rows
        groups += [_group_id(extra, rows) for extra in extra_groups]
    return Identity(uid, gid, tuple(dict.fromkeys([gid, *groups])), home or "/")


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[str], list[bytes]]


def _passwd_entry(name: str, read: Reader) -> tuple[str, int, int, str] | None:
    """(login, uid, gid, home) of a name or number; None when a number has no entry."""
    number = name if _is_number(name) else None
    for row in _rows(read, "etc/passwd", 6):
        if row[0] == name or (number is not None and row[2] == number):
            try:
                return row[0], _number(row[2], "user"), _number(row[3], "group"), row[5]
            except UserNotFound:
                continue  # a damaged line is no entry
    if number is None:
        raise UserNotFound(f"unable to find user {name}: no matching entries in passwd file")
    _number(name, "user")
    return None


def _group_id(group: str, rows: list[list[str]]) -> int:
    numeric = _is_number(group)
    for row in rows:
        if row[0] == group and _is_number(row[2]):
            return _number(row[2], "group")
    if numeric:
        return _number(group, "group")
    raise UserNotFound(f"unable to find group {group}: no matching entries in group file")


def _memberships(login: str, rows: list[list[str]]) -> list[int]:
    found = []
    for row in rows:
        if len(row) > 3 and login in row[3].split(",") and _is_number(row[2]):
            number = int(row[2])
            if number <= _HIGHEST:
                found.append(number)
    return found[:_MANY_GROUPS]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str, what: str) -> int:
    """An id; anything that a kernel would read as another id, or as no id at all, is refused."""
    if _is_number(text) and len(text.lstrip("0")) <= 10 and int(text) <= _HIGHEST:
        return int(text)
    if what == "user":
        raise UserNotFound(
            f"unable to find user {text}: no matching entries in passwd file",
            hint=f"numeric ids go from 0 to {_HIGHEST}",
        )
    raise UserNotFound(
        f"unable to find group {text}: no matching entries in group file",
        hint=f"numeric ids go from 0 to {_HIGHEST}",
    )


def _rows(read: Reader, name: str, fields: int) -> list[list[str]]:
    rows = []
    for line in read(name):
        row = line.decode("utf-8", "surrogateescape").rstrip("\r").split(":")
        if len(row) >= fields and row[0] and row[0][0] not in "#+-":
            rows.append(row)
    return rows


def read_database(root_fd: int, name: str) -> list[bytes]:
    """The lines of a small regular file of the root; nothing when it is missing or is anything else.

    What it is is checked before it is opened for reading, so that no device is ever opened, and again
    afterwards.
    """
    try:
        handle = paths.open_in_root(root_fd, name, os.O_PATH)
    except OSError:
        return []
    plain = _is_plain(handle)
    os.close(handle)
    if not plain:
        return []
    try:
        fd = paths.open_in_root(root_fd, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return []
    if not _is_plain(fd):
        os.close(fd)
        return []
    try:
        chunks = []
        room = _LIMIT_BYTES
        while room > 0 and (chunk := os.read(fd, min(room, 1 << 16))):
            chunks.append(chunk)
            room -= len(chunk)
    finally:
        os.close(fd)
    lines = b"".join(chunks).split(b"\n")
    if room <= 0:
        lines.pop()  # cut short: the last line is not whole
    return lines


def _is_plain(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode) and KERNEL.fs_magic(fd) not in c.KERNEL_FS


def who(setup: Setup, name: str, groups: tuple[str, ...]) -> None:
    """Look the user up in the root (EXE-11)."""
    setup.identity = lookup(setup.root_fd, name, groups)
    if setup.single and (setup.identity.uid or setup.identity.gid):
        found = setup.identity
        setup.identity = Identity(0, 0, (0,), found.home)
        setup.powerless = found.uid != 0
        setup.warning = (
            f"user {found.uid}:{found.gid} has no id in this user namespace and runs as its only one, "
            "without capabilities; /etc/subuid and /etc/subgid grant ranges of ids"
        )
