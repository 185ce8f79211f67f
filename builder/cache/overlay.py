"""Snapshots as overlay layers: a new one is an empty directory that a mount will put on top of its parent's.

Mounts are made by whoever runs something in the tree, with ``redirect_dir=off,metacopy=off,index=off`` so
that every layer can be read by itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from builder.cache.problems import translated
from builder.cache.treepaths import copy_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.cache.db import Database
    from builder.cache.types import Driver

UNSUPPORTED = "no"


class OverlaySnapshotter:
    """See ``protocols.Snapshotter``."""

    driver: Driver = "overlay"

    def __init__(self, *, userxattr: bool = False) -> None:
        self.userxattr = userxattr

    def make(self, directory: str, layers: Sequence[str], *, stacked: bool) -> None:
        """``fs`` takes the changes; the root of the merged tree has the owner, mode and times of ``fs``."""
        with translated("make a snapshot"):
            os.mkdir(directory, 0o700)
            os.mkdir(f"{directory}/fs", 0o755)
            os.chmod(f"{directory}/fs", 0o755)  # noqa: S103 (the root of a tree, whatever the umask)
            if stacked:
                os.mkdir(f"{directory}/work", 0o700)
            if layers:
                _copy_root(layers[0], f"{directory}/fs")

    def settle(self, directory: str) -> None:
        """The work directory goes: the kernel leaves an empty one without any permission in it."""
        work = f"{directory}/work"
        try:
            os.rmdir(work)
        except FileNotFoundError:
            pass
        except OSError:
            from builder.cache.removal import remove_tree

            remove_tree(work)


def probe(db: Database, tmp: str, boot: str) -> str:
    """How overlay can be used here: ``trusted``, ``user`` (with ``userxattr``) or ``no``.

    Found out by really mounting one, in a process of its own; remembered per boot, user and id map.
    """
    key = f"overlay:{os.geteuid()}:{_id_map()}"
    row = db.one("SELECT value FROM meta WHERE key=?", (key,))
    if row is not None:
        known_boot, _, known = str(row[0]).partition(" ")
        if known_boot == boot:
            return known
    found = _try(tmp)
    db.run("INSERT OR REPLACE INTO meta(key, value) VALUES(?,?)", (key, f"{boot} {found}"))
    return found


def _id_map() -> str:
    """An ordinary user has a new user namespace in every call; the same ids make it as good as the last."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return ",".join(" ".join(line.split()) for line in file)
    except OSError:
        return ""


def _try(tmp: str) -> str:
    import subprocess
    import sys

    from builder.cache import overlay_probe
    from builder.cache.staging import Staging

    with Staging(tmp, "probe") as directory:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(overlay_probe.__file__), str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return UNSUPPORTED
    answer = done.stdout.decode("ascii", "replace").strip()
    return answer if done.returncode == 0 and answer in ("trusted", "user") else UNSUPPORTED


def _copy_root(source: str, target: str) -> None:
    """The root directory of a snapshot starts with its parent's metadata."""
    status = os.stat(source)
    own = os.stat(target)
    if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
        os.chown(target, status.st_uid, status.st_gid)
    if status.st_mode != own.st_mode:
        os.chmod(target, status.st_mode & 0o7777)
    copy_xattrs(source, target)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
