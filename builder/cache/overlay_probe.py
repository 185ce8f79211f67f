"""A program (run with ``python -I -S``): mounts an overlay below the directory named on its command line
and uses it.

Prints ``trusted`` or ``user`` (only with ``userxattr``) and exits 0, or exits 1. It works in a mount
namespace of its own, so nothing is left when it ends. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_REC_PRIVATE = 0x4000 | 0x40000


def main(directory: str) -> int:
    """Try the plain form, then ``userxattr``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not _own_namespace(libc):
        return 1
    for answer, extra in (("trusted", ""), ("user", ",userxattr")):
        if _works(libc, f"{directory}/{answer}", extra):
            sys.stdout.write(answer + "\n")
            return 0
    return 1


def _own_namespace(libc: ctypes.CDLL) -> bool:
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNS) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
            return False
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    return bool(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None) == 0)


def _works(libc: ctypes.CDLL, base: str, extra: str) -> bool:
    """Whether a deleted file becomes a whiteout and a replaced directory becomes opaque."""
    lower, upper, work, merged = (f"{base}/{name}" for name in ("l", "u", "w", "m"))
    for path in (lower, upper, work, merged, f"{lower}/d", f"{lower}/d/inner"):
        os.makedirs(path)
    _write(f"{lower}/f", "x")
    options = f"lowerdir={lower},upperdir={upper},workdir={work},metacopy=off,index=off"
    data = os.fsencode(options + (extra or ",redirect_dir=off"))  # with userxattr this is so by itself
    if libc.mount(b"overlay", os.fsencode(merged), b"overlay", ctypes.c_ulong(0), data) != 0:
        return False
    try:
        os.unlink(f"{merged}/f")
        os.rmdir(f"{merged}/d/inner")
        os.rmdir(f"{merged}/d")
        os.mkdir(f"{merged}/d")
        white = os.lstat(f"{upper}/f")
        opaque = os.getxattr(f"{upper}/d", "user.overlay.opaque" if extra else "trusted.overlay.opaque")
        return stat.S_ISCHR(white.st_mode) and white.st_rdev == 0 and opaque == b"y"
    except OSError:
        return False
    finally:
        libc.umount2(os.fsencode(merged), 2)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


if __name__ == "__main__":
    try:
        status = main(sys.argv[1])
    except OSError:
        status = 1
    raise SystemExit(status)
