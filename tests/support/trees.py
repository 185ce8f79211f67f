"""Random trees, and what a tree looks like as a value."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path
from typing import Any

from builder.cache.differ import kept_xattrs
from builder.cache.tree import SourceTree, View, join
from builder.cache.treewriter import Writer

NAMES = ["a", "b", "c", "a-b", "ab", "ü", "x" * 120, "\udcff", " ", ".hidden", "A", "wh", "PaxHeaders.0"]


def snapshot(tree: SourceTree, *, dir_times: bool = False) -> dict[str, Any]:
    """Everything a layer keeps of a tree, names of one inode grouped."""
    found: dict[str, Any] = {}
    inodes: dict[tuple[int, int], str] = {}
    for path, st in tree.walk():
        mode = st.st_mode
        facts: list[Any] = [oct(mode), st.st_uid, st.st_gid]
        if not stat.S_ISDIR(mode) or dir_times:
            facts.append(st.st_mtime_ns // 10**9)
        if stat.S_ISREG(mode):
            facts.append(tree.read(path, 1 << 24))
            if st.st_nlink > 1:
                facts.append(inodes.setdefault((st.st_dev, st.st_ino), path))
        elif stat.S_ISLNK(mode):
            facts.append(tree.readlink(path))
        elif not stat.S_ISDIR(mode):
            facts.append(st.st_rdev)
        facts.append(tuple(sorted(kept_xattrs(tree.xattrs(path)).items())))
        found[path] = facts
    # a file whose other names are gone is like any other
    groups: dict[str, int] = {}
    for facts in found.values():
        if len(facts) == 7:
            groups[facts[5]] = groups.get(facts[5], 0) + 1
    for facts in found.values():
        if len(facts) == 7 and groups[facts[5]] == 1:
            del facts[5]
    return found


def mutate(writer: Writer, random_: random.Random, steps: int) -> None:
    """Change a tree at random, through every method of a writer."""
    for _ in range(steps):
        paths = [("", None), *writer.walk()]
        dirs = [path for path, st in paths if st is None or stat.S_ISDIR(st.st_mode)]
        files = [path for path, st in paths if st is not None and stat.S_ISREG(st.st_mode)]
        path = join(random_.choice(dirs), random_.choice(NAMES))
        kind = random_.randrange(12)
        mode = random_.choice([0o644, 0o755, 0o600, 0o4755, 0o2711, 0o1777, 0o000])
        uid, gid = random_.choice([(0, 0), (1, 2), (1000, 100), (3_000_000, 4_000_000)])
        mtime = random_.choice([0, 1, 1_700_000_000, -5, 1 << 34]) * 10**9
        xattrs = {"user.k": b"v" * random_.randrange(3)} if random_.random() < 0.2 else {}
        existing = writer.lstat(path)
        if existing is not None and stat.S_ISDIR(existing.st_mode) and kind > 2:
            writer.remove(path)
        if kind <= 2:
            writer.mkdir(
                path, mode, uid, gid, mtime_ns=mtime
            )  # a layer cannot take a directory's attributes away
        elif kind <= 5:
            data = random_.randbytes(random_.choice([0, 1, 511, 512, 513, 5000]))
            writer.write_file(path, data, mode, uid, gid, mtime_ns=mtime, xattrs=xattrs)
        elif kind == 6:
            target = random_.choice(["a", "/a/b", "..", "y" * 200, "ü", "nowhere"])
            writer.symlink(path, target, uid, gid, mtime_ns=mtime)
        elif kind == 7:
            fifo = random_.random() < 0.5
            writer.mknod(
                path,
                (stat.S_IFIFO if fifo else stat.S_IFCHR) | mode,
                0 if fifo else os.makedev(1, 3),
                uid,
                gid,
                mtime_ns=mtime,
            )
        elif kind == 8 and files:
            existing_file = random_.choice(files)
            if writer.lstat(existing_file) is not None:
                writer.link(path, existing_file)
        elif kind == 9 and len(paths) > 1:
            writer.remove(random_.choice(paths[1:])[0])
        elif kind == 10 and len(paths) > 1:
            chosen = random_.choice(paths[1:])[0]
            if writer.lstat(chosen) is not None:
                writer.set_meta(chosen, mode=mode, uid=uid, mtime_ns=mtime)


def make_stack(base: Path, random_: random.Random, layers: int, steps: int) -> list[Path]:
    """Layers in overlay's form, topmost first, each a random change of what is below."""
    stack: list[Path] = []
    for number in range(layers):
        upper = base / f"layer{number}"
        upper.mkdir()
        with Writer(upper, stack) as writer:
            mutate(writer, random_, steps)
        stack.insert(0, upper)
    return stack


__all__ = ["View", "make_stack", "mutate", "snapshot"]
