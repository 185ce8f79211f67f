"""Merges, diffs and bases stay lazy until somebody mounts them (MRG-03, MRG-04, SLV-09)."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from builder.cache import faults
from builder.cache.fsck import check
from builder.cache.names import from_base36
from builder.cache.store import Store
from builder.exporter.types import OutputSpec
from builder.llb.definition import Vertex
from builder.llb.ops import MkDir, MkFile, Rm
from tests.support.buildlab import Lab
from tests.support.handmade import Bench
from tests.support.images import read_oci
from tests.support.rows import row

pytestmark = pytest.mark.root

STEPS = ("lazy.made", "lazy.noted", "lazy.placed", "lazy.committed")


def text(path: str, data: str) -> MkFile:
    return MkFile(path=path, data=data.encode(), timestamp_ns=10**18)


def merged(bench: Bench) -> tuple[Vertex, Vertex, Vertex]:
    """A merge of two files with a diff that deletes, and the two."""
    directory = MkDir(path="/d", mode=0o755, timestamp_ns=10**18)
    one, two = bench.file(None, directory, text("/d/a", "a")), bench.file(None, directory, text("/d/b", "b"))
    without = bench.file(one, Rm(path="/d/a"), text("/c", "c"))
    return bench.merge(one, two, bench.diff(one, without), bench.diff(two, without)), one, two


def lazy(store: Store) -> list[str]:
    return [info.id for info in store.snapshots.list() if info.driver == "lazy"]


def trees(store: Store) -> set[str]:
    return set(os.listdir(store.root / "snapshots"))


@row("MRG-03", "MRG-04")
def test_only_mounting_makes_a_tree(bench: Bench) -> None:
    whole, one, two = merged(bench)
    snapshot = bench.solve(whole)
    assert snapshot is not None
    before = trees(bench.store)
    unmade = lazy(bench.store)
    assert len(unmade) == 5, "three layers on the first, and both diffs"
    again = bench.merge(two, whole, bench.diff(one, whole))
    assert bench.solve(bench.diff(whole, again))
    assert bench.layers(again), "exported"
    assert trees(bench.store) == before, "neither merging, nor comparing, nor exporting made a tree"
    assert set(unmade) <= set(lazy(bench.store))
    assert check(bench.store.root) == ()
    assert sorted(bench.look(snapshot)) == ["c", "d"], "mounted"
    assert (
        set(bench.store.snapshots.chain(snapshot))
        & {info for info in bench.store.snapshots.list() if info.driver == "lazy"}
        == set()
    )
    with bench.view(two) as before_it, bench.view(bench.merge(whole, two)) as other:
        first, second = before_it.lstat("d/b"), other.lstat("d/b")
        assert first is not None and second is not None
        assert first.st_ino == second.st_ino, "a hard link"
    assert check(bench.store.root) == ()


@row("MRG-03")
def test_layers_are_the_same_before_and_after_the_tree_is_made(bench: Bench) -> None:
    whole, _, _ = merged(bench)
    snapshot = bench.solve(whole)
    before = [layer.diff_id for layer in bench.layers(snapshot)]
    bench.look(snapshot)
    bench.store.db.run("DELETE FROM snapshot_layers")
    bench.store.db.run("DELETE FROM docs")
    assert [layer.diff_id for layer in bench.layers(snapshot)] == before


@row("MRG-03", "SLV-09")
def test_it_is_still_lazy_for_the_next_process_and_its_inputs_are_kept(tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        bench = Bench(store)
        whole, _, _ = merged(bench)
        snapshot = bench.solve(whole)
    with Store.open(tmp_path / "root") as store:
        bench = Bench(store)
        again, _, _ = merged(bench)
        assert bench.solve(again) == snapshot
        assert snapshot in lazy(store)
        assert bench.watcher.ran() == []
        with store.hold() as hold:
            assert snapshot is not None
            hold.snapshot(snapshot)
            store.prune(all=True)
            assert check(store.root) == ()
            assert snapshot in lazy(store)
            assert sorted(bench.look(snapshot)) == ["c", "d"], "all that it is made of was still there"
        store.prune(all=True)
        assert store.snapshots.list() == ()
        assert check(store.root) == ()


@row("MRG-03")
def test_what_a_lazy_one_is_made_of_goes_after_it(tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        bench = Bench(store)
        snapshot = bench.solve(merged(bench)[0])
        assert snapshot is not None
        gone: list[str] = []
        needs = {item.id: item.parents for item in store.usage() if item.kind == "snapshot"}
        store.prune(all=True, on_removed=lambda item: gone.append(item.id))
        assert store.db.all("SELECT * FROM lazy_snapshots") == []
        for name, parents in needs.items():
            assert all(gone.index(parent) > gone.index(name) for parent in parents)
        assert any(len(parents) > 1 for parents in needs.values())


def mount(root: Path, snapshot: str, strike: str, told: multiprocessing.Queue[str] | None) -> None:
    def hook(name: str) -> None:
        if told is not None and name == "lazy.placed":
            told.put("made")
        if name == strike:
            os.kill(os.getpid(), signal.SIGKILL)

    faults.hook = hook
    with Store.open(root) as store:
        store.snapshots.layers(snapshot)


@row("MRG-03")
@pytest.mark.parametrize("strike", STEPS)
def test_killed_while_the_tree_is_made(tmp_path: Path, strike: str) -> None:
    root = tmp_path / "root"
    with Store.open(root) as store:
        bench = Bench(store)
        snapshot = bench.solve(merged(bench)[0])
        assert snapshot is not None
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=mount, args=(root, snapshot, strike, None))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with Store.open(root) as store:
        assert check(root) == (), "what was left is gone"
        assert sorted(Bench(store).look(snapshot)) == ["c", "d"]
        assert check(root) == ()
        assert not store.db.all("SELECT 1 FROM snapshots WHERE kind='active'")


@row("MRG-03")
@pytest.mark.parametrize("strike", STEPS[:2])
def test_no_room_for_the_tree(bench: Bench, strike: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(name: str) -> None:
        if name == strike:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    snapshot = bench.solve(merged(bench)[0])
    assert snapshot is not None
    monkeypatch.setattr(faults, "hook", hook)
    with pytest.raises(OSError, match="No space left"):
        bench.look(snapshot)
    monkeypatch.setattr(faults, "hook", None)
    assert snapshot in lazy(bench.store)
    assert sorted(bench.look(snapshot)) == ["c", "d"]
    assert check(bench.store.root) == ()


@row("MRG-03")
def test_after_a_restart_of_the_machine_it_is_there_or_what_it_is_made_of_is_gone_too(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Store.open(root) as store:
        bench = Bench(store)
        whole, one, _ = merged(bench)
        snapshot, source = bench.solve(whole), bench.solve(one)
        assert snapshot is not None and source is not None
    restart(root)
    with Store.open(root) as store:
        assert snapshot in lazy(store)
        assert check(root) == ()
    restart(root, young=source)
    with Store.open(root) as store:
        assert store.snapshots.get(source) is None
        assert store.snapshots.get(snapshot) is None
        assert check(root) == ()


def restart(root: Path, young: str = "") -> None:
    """As if the machine had been started anew; ``young`` was made just before."""
    with closing(sqlite3.connect(root / "db.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE snapshots SET boot='earlier', committed_mono_ns=0")
        if young:
            db.execute("UPDATE snapshots SET committed_mono_ns=? WHERE id=?", (10**15, from_base36(young)))
        db.execute(
            "INSERT OR REPLACE INTO meta VALUES('boot', 'earlier'), ('seen', ?)", (f"earlier {10**15}",)
        )


@row("MRG-03")
def test_two_processes_make_it_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Store.open(root) as store:
        bench = Bench(store)
        a, b = bench.file(None, text("/a", "a")), bench.file(None, text("/b", "b" * 100_000))
        snapshot = bench.solve(bench.merge(a, b))
        assert snapshot is not None
    fork = multiprocessing.get_context("fork")
    told: multiprocessing.Queue[str] = fork.Queue()
    children = [fork.Process(target=mount, args=(root, snapshot, "", told)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert told.get(timeout=5) == "made"
    assert told.empty(), "once"
    assert check(root) == ()


@row("MRG-03")
def test_fsck_sees_a_merge_that_cannot_be_made(tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        bench = Bench(store)
        snapshot = bench.solve(merged(bench)[0])
        assert snapshot is not None
        store.db.run("UPDATE lazy_snapshots SET source=9999 WHERE snapshot=?", (from_base36(snapshot),))
    assert {item.code for item in check(tmp_path / "root")} == {"snapshot-lazy"}


LINKED = "FROM busybox\nCOPY --link f /f\n"


@row("MRG-04", "SLV-09")
def test_a_linked_copy_is_exported_without_the_tree_of_its_base(own: Lab, tmp_path: Path) -> None:
    dest = tmp_path / "out.tar"
    outputs = (OutputSpec.parse("type=image,name=linked:1"), OutputSpec.parse(f"type=oci,dest={dest}"))
    context = own.context({"f": "linked"})
    own.build(context, LINKED, outputs=outputs)
    base, over = [info for info in own.store.snapshots.list() if info.driver == "lazy"]
    assert base.chain_id is not None and over.parent == base.id
    assert len(trees(own.store)) == 1, "the file that was copied, and nothing else"
    image = own.store.images.resolve("busybox:latest")
    assert image is not None
    assert len(read_oci(dest).layers) == 2
    # the same again for a tree, and for a step on top: they mount it
    tree = tmp_path / "tree"
    own.build(context, LINKED, outputs=(OutputSpec.parse(f"type=local,dest={tree}"),))
    assert (tree / "f").read_text() == "linked" and (tree / "bin/busybox").exists()
    assert lazy(own.store) == []
    made = own.quick(LINKED + "RUN cat /f > /g\n", {"f": "other"})
    assert made.read("g") == "other"
    assert check(own.store.root) == ()
