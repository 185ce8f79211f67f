"""A layer packed straight from its sources is the layer of the tree that would have been written."""

from __future__ import annotations

import io
import os
import random
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from builder.cache.differ import changes, planned_changes, root_change
from builder.cache.layer import pack
from builder.cache.plannedtree import NotPlanned, PlannedTree
from builder.cache.tree import SourceTree, View
from builder.cache.treewriter import Writer
from builder.errors import PybuildError
from builder.llb.ops import Action, ChownOpt, Copy, FileAction, FileOp, MkDir, MkFile, Rm, Symlink, UserOpt
from builder.solver.ops.fileop import run_file_op
from tests.support.randomtrees import mutate

pytestmark = [
    pytest.mark.property,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes owners and devices"),
]
BATCH = 60
PLACES = ["/", "/a", "/a/", "/new/deep/", "/b/c", "/ab", "/a-b/x", "/.hidden/"]


def actions_of(dice: random.Random) -> tuple[Action, ...]:
    def owner() -> ChownOpt | None:
        return dice.choice([None, ChownOpt(user=UserOpt(id=7), group=UserOpt(id=8))])

    def one() -> Action:
        place, stamp = dice.choice(PLACES), dice.choice([-1, -1, 1_500_000_000 * 10**9])
        kind = dice.randrange(8)
        if kind == 0:
            return MkDir(path=place.rstrip("/") + "/made", mode=0o711, make_parents=True, owner=owner(), timestamp_ns=stamp)  # fmt: skip
        if kind == 1:
            return MkFile(path=place.rstrip("/") + "/text", mode=0o640, data=dice.randbytes(dice.choice([0, 600])), owner=owner(), timestamp_ns=stamp)  # fmt: skip
        if kind == 2:
            return Symlink(old_path="../x", new_path=f"/link{dice.randrange(3)}", owner=owner(), timestamp_ns=stamp)  # fmt: skip
        return Copy(
            src=dice.choice(["/", "/", "/*", "/*", "/a", "/a*"]), dest=place, owner=owner(), timestamp_ns=stamp,
            mode=dice.choice([-1, -1, 0o750]), dir_contents=dice.random() < 0.7, create_dest_path=dice.random() < 0.9,
            follow_symlink=True, allow_wildcard=True, allow_empty_wildcard=dice.random() < 0.8,
            always_replace=dice.random() < 0.3, exclude_patterns=dice.choice([(), (), ("**/a",), ("*b*",)]),
        )  # fmt: skip

    return tuple(one() for _ in range(dice.randrange(1, 4)))


def run(actions: tuple[Action, ...], base: View, source: View, sink: Any) -> str:
    """What went wrong, in words."""
    last = len(actions) - 1
    op = FileOp(
        actions=tuple(
            FileAction(
                action=action, input=0 if i == 0 else 1 + i, secondary=1, output=0 if i == last else -1
            )
            for i, action in enumerate(actions)
        )
    )
    try:
        run_file_op(op, (base, source), lambda _: sink)
    except PybuildError as error:
        return error.message
    return ""


def layer(found: Any, tree: SourceTree, base: View) -> list[tuple[Any, ...]]:
    out = io.BytesIO()
    pack([*root_change(base, tree), *found], tree, out.write)
    recent = time.time() - 600
    out.seek(0)
    facts = []
    with tarfile.open(fileobj=out) as tar:
        for entry in tar:
            stamp = "now" if entry.mtime > recent else entry.mtime
            headers = {key: value for key, value in entry.pax_headers.items() if key != "mtime"}
            data = tar.extractfile(entry).read() if entry.isreg() else b""  # type: ignore[union-attr]
            facts.append((entry.name, entry.type, entry.mode, entry.uid, entry.gid, entry.linkname, entry.devmajor, entry.devminor, stamp, headers, data))  # fmt: skip
    return facts


def compared(base_dir: Path, seed: int) -> bool:
    """Whether the planned tree did without a tree on disk; asserts that both layers are one."""
    dice = random.Random(seed)
    for name in ("lower", "upper", "source"):
        (base_dir / name).mkdir(parents=True)
    empty = dice.random() < 0.3
    if not empty:
        mutate(os.fsencode(base_dir / "lower"), dice, dice.randrange(1, 25))
    mutate(os.fsencode(base_dir / "source"), dice, dice.randrange(1, 30))
    lowers = [] if empty else [base_dir / "lower"]
    actions = actions_of(dice)
    with (
        View(lowers) as base,
        View([base_dir / "source"]) as source,
        Writer(base_dir / "upper", lowers) as writer,
    ):
        planned = PlannedTree(base if lowers else None)
        try:
            said = run(actions, base, source, planned)
        except NotPlanned:
            return False
        assert said == run(actions, base, source, writer), (seed, actions)
        if said:
            return True
        wanted = layer(changes(base_dir / "upper", lowers), writer, base)
        assert layer(planned_changes(base, planned), planned, base) == wanted, (seed, actions)
    return True


def test_planned_layers_are_those_of_written_trees(tmp_path: Path) -> None:
    done = sum(compared(tmp_path / str(seed), seed) for seed in range(BATCH))
    assert done > BATCH // 2, "most copies need no tree on disk"


@pytest.mark.soak
def test_thousands_of_planned_layers(tmp_path: Path) -> None:
    for seed in range(BATCH, 3000):
        compared(tmp_path / str(seed), seed)


def test_what_needs_a_tree_on_disk_is_refused(tmp_path: Path) -> None:
    for name in ("lower/d", "source"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lower/d/f").write_text("old")
    (tmp_path / "source/d").write_text("a file where a directory is")
    with View([tmp_path / "lower"]) as base, View([tmp_path / "source"]) as source:
        for action in (
            Rm(path="/d/f"),
            Copy(src="/d", dest="/", dir_contents=True, always_replace=True, create_dest_path=True),
        ):
            with pytest.raises(NotPlanned):
                run((action,), base, source, PlannedTree(base))
