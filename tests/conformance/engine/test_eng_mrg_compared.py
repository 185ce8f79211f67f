"""Comparing merges makes no tree of either, and finds what comparing their trees finds (MRG-02, MRG-03)."""

from __future__ import annotations

import io
import os
import random
import resource
import tarfile
from pathlib import Path

import pytest

from builder.build.layers import Layer
from builder.cache.fsck import check
from builder.llb.ops import MkDir, MkFile, Rm
from tests.support.handmade import Bench
from tests.support.randomtrees import mutate
from tests.support.rows import row

pytestmark = [pytest.mark.root, pytest.mark.linux]


def trees(bench: Bench) -> set[str]:
    return set(os.listdir(bench.store.root / "snapshots"))


def text(path: str, data: str) -> MkFile:
    return MkFile(path=path, data=data.encode(), timestamp_ns=10**18)


def names(bench: Bench, layer: Layer) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(bench.tar(layer))) as tar:
        return tar.getnames()


@row("MRG-02", "MRG-03")
@pytest.mark.parametrize("seed", range(3))
def test_what_is_found_is_the_same_without_trees(bench: Bench, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    directory = tmp_path / "tree"
    directory.mkdir()
    states = []
    for _ in range(4):
        mutate(os.fsencode(directory), dice, 40)
        states.append(bench.put(directory))
    one, two, three, four = states
    left = bench.merge(one, bench.diff(two, three), two)
    right = bench.merge(two, four, bench.diff(one, two), bench.diff(left, three))
    for lower, upper in ((left, right), (right, left), (left, four), (four, right)):
        found = bench.diff(lower, upper)
        bench.solve(found)
    before = trees(bench)
    packed = {}
    for lower, upper in ((left, right), (right, left), (left, four), (four, right)):
        (packed[lower, upper],) = [layer.diff_id for layer in bench.layers(bench.diff(lower, upper))]
    assert trees(bench) == before, "neither side was made"
    for side in (left, right):
        bench.look(side)
    assert trees(bench) > before
    bench.store.db.run("DELETE FROM snapshot_layers")
    for (lower, upper), wanted in packed.items():
        assert [layer.diff_id for layer in bench.layers(bench.diff(lower, upper))] == [wanted]
    assert check(bench.store.root, fast=True) == ()


@row("MRG-03")
def test_layers_replace_and_hide_what_is_below(bench: Bench) -> None:
    """A directory for a file, a file for a directory, one that went and came again, a deeper one kept."""
    deep = (MkDir(path="/d/e", mode=0o755, make_parents=True, timestamp_ns=10**18), text("/d/e/f", "f"))
    base = bench.file(None, *deep, text("/x", "x"), text("/k", "k"))
    gone = bench.file(base, Rm(path="/d"), Rm(path="/x"), MkDir(path="/x", mode=0o700, timestamp_ns=10**18))
    anew = bench.file(
        gone, MkDir(path="/d", mode=0o711, timestamp_ns=10**18), text("/d/g", "g"), text("/x/y", "y")
    )
    whole = bench.merge(base, bench.diff(base, gone), bench.diff(gone, anew))
    other = bench.merge(whole, bench.diff(None, bench.file(None, text("/x", "a file again"))))
    changed = bench.diff(bench.merge(base, bench.file(None, text("/z", "z"))), whole)
    bench.solve(other), bench.solve(changed)
    before = trees(bench)
    (layer,) = bench.layers(changed)
    assert names(bench, layer) == ["d", "d/.wh.e", "d/g", "x", "x/y", ".wh.z"]
    (layer,) = bench.layers(bench.diff(whole, other))
    assert names(bench, layer) == ["x"]
    assert trees(bench) == before


@row("MRG-03")
def test_many_layers_need_few_descriptors(bench: Bench) -> None:
    parts = [bench.file(None, *(MkFile(path=f"/{n}", data=b"same", timestamp_ns=10**18) for n in range(3)))]
    parts += [bench.file(None, MkDir(path=f"/d{n}", mode=0o755), text(f"/d{n}/f", "f")) for n in range(60)]
    one, two = bench.merge(*parts), bench.merge(*reversed(parts))
    found = bench.diff(one, bench.merge(two, bench.file(None, text("/more", "m"))))
    bench.solve(found)
    before = trees(bench)
    used = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, used[1]))
    try:
        (layer,) = bench.layers(found)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, used)
    assert names(bench, layer) == ["more"]
    assert trees(bench) == before
