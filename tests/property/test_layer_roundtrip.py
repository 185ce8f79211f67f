"""apply(diff(a, b), a) == b, for random trees with links, attributes, whiteouts and changed file types."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from builder.cache.differ import changes, compare, everything
from builder.cache.extract import apply
from builder.cache.layer import pack
from builder.cache.tree import View
from builder.cache.treewriter import Writer
from tests.support.trees import make_stack, snapshot

pytestmark = [
    pytest.mark.property,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes owners and devices"),
]


def packed(found: object, source: View) -> bytes:
    out = io.BytesIO()
    pack(found, source, out.write)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("seed", range(120))
def test_a_layer_carries_every_change(tmp_path: Path, seed: int) -> None:
    stack = make_stack(tmp_path, random.Random(seed), 3, 12)
    top, lowers = stack[0], stack[1:]
    after = View(stack)
    wanted = snapshot(after)
    tar = packed(changes(top, lowers), after)
    assert tar == packed(changes(top, lowers), after), "the same tree gives the same bytes"

    overlay = tmp_path / "overlay"
    overlay.mkdir()
    apply(io.BytesIO(tar), Writer(overlay, lowers))
    assert snapshot(View([overlay, *lowers])) == wanted, f"overlay form, seed {seed}"

    flat = tmp_path / "flat"
    flat.mkdir()
    lower_tar = packed(everything(View(lowers)), View(lowers))
    apply(io.BytesIO(lower_tar), Writer(flat))
    before = snapshot(View(lowers), dir_times=True)
    assert snapshot(View([flat]), dir_times=True) == before, f"whole tree, seed {seed}"
    apply(io.BytesIO(tar), Writer(flat))
    assert snapshot(View([flat])) == wanted, f"plain directory, seed {seed}"


@pytest.mark.parametrize("seed", range(200, 260))
def test_both_differs_see_the_same_changes(tmp_path: Path, seed: int) -> None:
    stack = make_stack(tmp_path, random.Random(seed), 3, 10)
    old, new = View(stack[1:]), View(stack)
    wanted = snapshot(new)
    assert [(c.kind, c.path) for c in compare(old, old)] == []
    tar = packed(compare(old, new), new)
    copy = tmp_path / "copy"
    copy.mkdir()
    apply(io.BytesIO(tar), Writer(copy, stack[1:]))
    assert snapshot(View([copy, *stack[1:]])) == wanted, f"seed {seed}"
    by_walk = {(c.kind, c.path) for c in compare(old, new)}
    by_upper = {(c.kind, c.path) for c in changes(stack[0], stack[1:])}
    assert by_upper == by_walk, f"seed {seed}"


@pytest.mark.parametrize("seed", range(300, 320))
def test_the_kernel_agrees_about_the_upper_directory(tmp_path: Path, seed: int) -> None:
    stack = make_stack(tmp_path, random.Random(seed), 3, 12)
    merged = tmp_path / "merged"
    merged.mkdir()
    options = "lowerdir=" + ":".join(map(str, stack))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        with View([merged]) as real:
            seen = {path: facts[:6] for path, facts in snapshot(real).items()}
    finally:
        subprocess.run(["umount", merged], check=True)
    expected = {path: facts[:6] for path, facts in snapshot(View(stack)).items()}
    assert set(seen) == set(expected)
    for path, facts in expected.items():
        assert seen[path][:4] == facts[:4], path


@pytest.mark.parametrize("seed", range(400, 410))
def test_gnu_tar_reads_what_we_write(tmp_path: Path, seed: int) -> None:
    stack = make_stack(tmp_path, random.Random(seed), 1, 30)
    tar = packed(everything(View(stack)), View(stack))
    there = tmp_path / "there"
    there.mkdir()
    subprocess.run(
        ["tar", "-xpf", "-", "--xattrs", "--xattrs-include=*", "--delay-directory-restore", "-C", there],
        input=tar,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    wanted, seen = snapshot(View(stack)), snapshot(View([there]))
    for path, facts in wanted.items():
        if stat.S_ISLNK(int(facts[0], 8)):
            continue
        assert seen[path] == facts
    assert set(seen) == set(wanted)


@pytest.mark.parametrize("seed", range(500, 505))
def test_we_read_what_gnu_tar_writes(tmp_path: Path, seed: int) -> None:
    stack = make_stack(tmp_path, random.Random(seed), 1, 30)
    for number, form in enumerate(("gnu", "posix")):
        xattrs = ["--xattrs", "--xattrs-include=*"] if form == "posix" else []
        made = subprocess.run(
            ["tar", "-cf", "-", f"--format={form}", *xattrs, "--numeric-owner", "-C", stack[0], "."],
            check=True,
            capture_output=True,
        )
        there = tmp_path / f"there{number}"
        there.mkdir()
        apply(io.BytesIO(made.stdout), Writer(there), whiteouts=False)
        wanted, seen = snapshot(View(stack)), snapshot(View([there]))
        if form == "gnu":
            wanted, seen = ({p: f[:-1] for p, f in side.items()} for side in (wanted, seen))
        assert seen == wanted
