"""What a directory takes on disk."""

from __future__ import annotations

import os


def disk_usage(path: str, *, linked: bool = True) -> int:
    """Bytes of all blocks below ``path``; every inode once, hard-linked files only when ``linked``.

    What disappears meanwhile does not count.
    """
    total = 0
    seen: set[int] = set()
    pending = [path]
    while pending:
        directory = pending.pop()
        try:
            total += os.lstat(directory).st_blocks * 512
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink > 1:
                        if not linked or status.st_ino in seen:
                            continue
                        seen.add(status.st_ino)
                    total += status.st_blocks * 512
        except OSError:
            continue
    return total
