"""Random directories made with plain system calls, and what is in a directory as a value; none of our own code."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = [
    b"a", b"b", b"c", b"ab", b"a-b", "ü".encode(), b"\xff\xfe", b" ", b"n\nl", b".wh", b"wh.a", b".whx", b"a.wh.b",
    b".hidden", b"x" * 100, b"y" * 155, b"z" * 255, b"PaxHeaders.0", b"A",
]  # fmt: skip
MODES = [0o644, 0o755, 0o600, 0o4755, 0o2711, 0o6755, 0o1777, 0o000]
OWNERS = [(0, 0), (1, 2), (1000, 100), (3_000_000, 4_000_000)]
TIMES = [0, 1, 1_600_000_000, -5, 1 << 33]
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def mutate(root: bytes, dice: random.Random, steps: int) -> None:
    """Change what is below ``root`` at random."""
    for _ in range(steps):
        paths = sorted(_walk(root))
        dirs = [root, *(p for p in paths if stat.S_ISDIR(os.lstat(p).st_mode))]
        dirs = [p for p in dirs if len(p) < len(root) + 900]
        path = os.path.join(dice.choice(dirs), dice.choice(NAMES))
        kind = dice.choice(("file", "file", "sparse", "dir", "dir", "link", "hard", "hard", "node", "meta", "meta", "gone", "anew", "write"))  # fmt: skip
        chosen = dice.choice(paths) if paths else None
        if kind in ("meta", "gone", "anew", "write"):
            if chosen is not None:
                _change(chosen, kind, dice)
        elif kind == "hard":
            files = [p for p in paths if not stat.S_ISDIR(os.lstat(p).st_mode)]
            if files and not os.path.lexists(path):
                os.link(dice.choice(files), path, follow_symlinks=False)
        elif not (kind == "dir" and os.path.isdir(path) and not os.path.islink(path)):
            _remove(path)
            _make(path, kind, dice)


def _make(path: bytes, kind: str, dice: random.Random) -> None:
    if kind == "dir":
        os.mkdir(path)
    elif kind == "link":
        os.symlink(dice.choice([b"a", b"/a/b", b"..", b"t" * 300, b"\xff", b"nowhere"]), path)
    elif kind == "node":
        made, device = dice.choice(((stat.S_IFIFO, 0), (stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(7, 300))))  # fmt: skip
        os.mknod(path, made | 0o600, device)
    else:
        with open(path, "wb") as file:
            if kind == "sparse":
                file.seek(dice.choice([4096, 70_000, 1_200_000]))
            file.write(dice.randbytes(dice.choice([0, 1, 511, 512, 513, 5000])))
            file.truncate(file.tell() + dice.choice([0, 9000]))
    _meta(path, dice)


def _meta(path: bytes, dice: random.Random) -> None:
    st = os.lstat(path)
    os.chown(path, *dice.choice(OWNERS), follow_symlinks=False)
    if not stat.S_ISLNK(st.st_mode):
        os.chmod(path, dice.choice(MODES))
    if (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode)) and dice.random() < 0.3:
        for name in os.listxattr(path):
            os.removexattr(path, name) if name.startswith("user.") else None
        os.setxattr(path, dice.choice(["user.k", "user.other"]), dice.randbytes(dice.choice([0, 3, 90])))
    if stat.S_ISREG(st.st_mode) and dice.random() < 0.1:
        os.setxattr(path, "security.capability", CAPABILITY)
    if not stat.S_ISDIR(st.st_mode):
        when = dice.choice(TIMES)
        os.utime(path, (when, when), follow_symlinks=False)


def _change(path: bytes, kind: str, dice: random.Random) -> None:
    mode = os.lstat(path).st_mode
    if kind == "gone":
        _remove(path)
    elif kind == "meta":
        _meta(path, dice)
    elif kind == "anew":  # something else, or an opaque directory, under the same name
        _remove(path)
        _make(path, dice.choice(["dir", "dir", "file", "link"]), dice)
        if stat.S_ISDIR(os.lstat(path).st_mode):
            _make(os.path.join(path, dice.choice(NAMES)), "file", dice)
    elif stat.S_ISREG(mode):
        with open(path, "ab") as file:
            file.write(b"more")


def _remove(path: bytes) -> None:
    if not os.path.lexists(path):
        return
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _walk(root: bytes) -> Iterator[bytes]:
    for base, dirs, names in os.walk(root):
        for name in (*dirs, *names):
            yield os.path.join(base, name)


def facts(root: Path) -> dict[bytes, Any]:
    """Everything that a layer carries, by path; directories' times are not of it."""
    top = os.fsencode(root)
    found: dict[bytes, list[Any]] = {}
    inodes: dict[int, list[bytes]] = {}
    for path in sorted(_walk(top)):
        st = os.lstat(path)
        name, mode = path[len(top) + 1 :], st.st_mode
        what: Any = st.st_rdev
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                what = (st.st_size, hashlib.file_digest(file, "sha256").hexdigest())
        elif stat.S_ISLNK(mode):
            what = os.readlink(path)
        elif stat.S_ISDIR(mode):
            what = ""
        if not stat.S_ISDIR(mode):
            inodes.setdefault(st.st_ino, []).append(name)
        names = (n for n in os.listxattr(path, follow_symlinks=False) if n.startswith(("user.", "security.capability")))  # fmt: skip
        xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in sorted(names) if not n.startswith("user.overlay")}  # fmt: skip
        when = None if stat.S_ISDIR(mode) else st.st_mtime_ns // 10**9
        found[name] = [oct(mode), st.st_uid, st.st_gid, when, what, xattrs]
    for group in inodes.values():
        for name in group:
            if stat.S_ISREG(int(found[name][0], 8)):
                found[name].append(group)
    return dict(found)


@contextmanager
def overlay(base: Path, lower: Path) -> Iterator[tuple[Path, Path]]:
    """A mounted overlay over ``lower``: (merged, upper)."""
    upper, work, merged = base / "upper", base / "work", base / "merged"
    for path in (upper, work, merged):
        path.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off,index=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    try:
        yield merged, upper
    finally:
        subprocess.run(["umount", str(merged)], check=True)


def copied(source: Path, target: Path) -> Path:
    """A copy with everything."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target
