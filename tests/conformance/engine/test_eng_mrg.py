"""Merge and diff (MRG-01…05), on both kinds of snapshots; what layers say is checked against what a pull unpacks."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from builder.cache.tree import View
from builder.llb.definition import Vertex
from builder.llb.ops import Copy, MkDir, MkFile, Rm, Symlink
from tests.support.handmade import Bench, described
from tests.support.rows import row

pytestmark = pytest.mark.root


def text(path: str, data: str, **more: int) -> MkFile:
    return MkFile(path=path, data=data.encode(), timestamp_ns=10**18, **more)


def directory(path: str, mode: int = 0o755) -> MkDir:
    return MkDir(path=path, mode=mode, timestamp_ns=10**18)


@row("MRG-01")
def test_later_wins_and_directories_join_with_the_later_metadata(bench: Bench) -> None:
    one = bench.file(None, directory("/d", 0o700), text("/d/a", "1"), text("/same", "1"), directory("/was-dir"),
                     text("/was-dir/x", "x"), text("/was-file", "f"))  # fmt: skip
    two = bench.file(None, directory("/d", 0o711), text("/d/b", "2"), text("/same", "2"), text("/was-dir", "now"),
                     directory("/was-file"))  # fmt: skip
    found = bench.look(bench.merge(one, two))
    assert sorted(found) == ["d", "d/a", "d/b", "same", "was-dir", "was-file"]
    assert found["d"][0] == oct(stat.S_IFDIR | 0o711)
    assert stat.S_ISREG(int(found["was-dir"][0], 8)), "the later type replaces the whole subtree"
    assert stat.S_ISDIR(int(found["was-file"][0], 8))
    assert bench.read(bench.merge(one, two), "same") == "2"
    assert bench.read(bench.merge(two, one), "same") == "1"


@row("MRG-01")
def test_what_a_later_input_deleted_is_deleted_in_earlier_ones(bench: Bench) -> None:
    base = bench.file(None, directory("/d"), text("/d/x", "x"), text("/d/y", "y"))
    without = bench.file(base, Rm(path="/d/x"))
    other = bench.file(None, directory("/d"), text("/d/x", "mine"), text("/d/z", "z"))
    assert sorted(bench.look(bench.merge(other, without))) == ["d", "d/y", "d/z"]
    assert sorted(bench.look(bench.merge(other, bench.diff(base, without)))) == ["d", "d/z"]
    assert "d/x" in bench.look(bench.merge(without, other)), "not in later ones"


@row("MRG-01")
def test_a_directory_made_anew_hides_only_what_its_layer_deleted(bench: Bench) -> None:
    """An image has no opaque directories, so neither has a merge."""
    base = bench.file(None, directory("/d"), text("/d/old", "o"))
    anew = bench.file(base, Rm(path="/d"), directory("/d"), text("/d/new", "n"))
    other = bench.file(None, directory("/d"), text("/d/old", "o2"), text("/d/other", "o3"))
    assert sorted(bench.look(bench.merge(other, bench.diff(base, anew)))) == ["d", "d/new", "d/other"]


@row("MRG-01")
def test_grouping_empty_inputs_and_one_input_make_no_difference(bench: Bench) -> None:
    a, b, c = (bench.file(None, text(f"/{n}", n), text("/all", n)) for n in "abc")
    nothing = bench.diff(a, a)
    ways = [
        bench.merge(a, b, c),
        bench.merge(bench.merge(a, b), c),
        bench.merge(a, bench.merge(b, c)),
        bench.merge(nothing, a, bench.merge(b, nothing, c), nothing),
    ]
    layers = [[layer.diff_id for layer in bench.layers(way)] for way in ways]
    assert layers[0] == layers[1] == layers[2] == layers[3]
    assert len(layers[0]) == 3
    assert bench.solve(bench.merge(nothing, a)) == bench.solve(a)
    assert bench.solve(bench.merge(nothing, nothing)) is None


@row("MRG-02", "MRG-04")
def test_a_diff_with_an_ancestor_is_the_layers_between(bench: Bench) -> None:
    base = bench.file(None, text("/a", "a"), text("/gone", "g"))
    one = bench.file(base, text("/b", "b"), Rm(path="/gone"))
    two = bench.file(one, text("/b", "b2"), text("/c", "c"))
    diff = bench.diff(base, two)
    assert sorted(bench.look(diff)) == ["b", "c"]
    assert [layer.diff_id for layer in bench.layers(diff)] == [layer.diff_id for layer in bench.layers(two)][
        1:
    ]
    blobs = bench.store.db.all("SELECT COUNT(*) FROM blobs")
    bench.layers(bench.merge(base, diff))
    assert bench.store.db.all("SELECT COUNT(*) FROM blobs") == blobs, "no layer is packed again"


@row("MRG-02")
def test_scratch_on_either_side(bench: Bench) -> None:
    full = bench.file(None, directory("/d"), text("/d/a", "a"))
    assert bench.solve(bench.diff(None, full)) == bench.solve(full)
    nothing = bench.diff(full, full)
    assert bench.solve(nothing) is None
    cleared = bench.merge(full, bench.diff(full, nothing))
    assert bench.look(cleared) == {}


@row("MRG-02")
def test_a_diff_of_unrelated_trees_is_one_layer_of_what_differs(bench: Bench, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for root in (old, new):
        (root / "d").mkdir(parents=True)
        for name in ("same", "content", "mode", "owner", "time", "attribute", "d/inside"):
            (root / name).write_text("x")
            os.utime(root / name, (1000, 1000))
        os.utime(root / "d", (1000 if root is old else 2000,) * 2)
    (old / "gone").mkdir()
    (old / "gone/x").write_text("x")
    (new / "content").write_text("y")
    os.utime(new / "content", (1000, 1000))
    (new / "mode").chmod(0o600)
    os.chown(new / "owner", 7, 8)
    os.utime(new / "time", (2000, 2000))
    os.setxattr(new / "attribute", "user.k", b"v")
    (new / "added").write_text("x")
    lower, upper = bench.put(old), bench.put(new)
    diff = bench.diff(lower, upper)
    assert sorted(bench.look(diff)) == ["added", "attribute", "content", "mode", "owner", "time"]
    (layer,) = bench.layers(diff)
    with tarfile.open(fileobj=io.BytesIO(bench.tar(layer))) as tar:
        assert ".wh.gone" in tar.getnames()
    assert bench.look(bench.merge(lower, diff)) == bench.look(upper)


@row("MRG-03")
def test_nothing_is_copied_and_nothing_is_made_that_is_not_asked_for(bench: Bench) -> None:
    one, two = bench.file(None, text("/a", "a" * 100_000)), bench.file(None, text("/b", "b" * 100_000))
    merged, diff = bench.merge(one, two), bench.diff(one, bench.merge(one, two))
    with bench.view(two) as before, bench.view(merged) as after, bench.view(diff) as between:
        first, second, third = before.lstat("b"), after.lstat("b"), between.lstat("b")
        assert first is not None and second is not None and third is not None
        assert first.st_ino == second.st_ino == third.st_ino
    assert bench.solve(bench.merge(merged, bench.file(None, text("/c", "c"))))
    assert bench.watcher.ran().count("MergeOp") == 1, "the inner merge is the one that was made before"


@row("MRG-04")
def test_layers_of_a_merge_are_the_layers_of_its_inputs(bench: Bench) -> None:
    """Even where the tree below has the very same file, or lacks what a layer deletes."""
    base = bench.file(None, directory("/d"), text("/d/x", "x"), text("/d/y", "y"))
    step = bench.file(base, Rm(path="/d/y"), directory("/e"))
    same = bench.file(None, directory("/d"), text("/d/x", "x"), directory("/e"))
    for inputs in ((step, same), (same, step), (same, bench.diff(base, step), step)):
        wanted = [layer.diff_id for item in inputs for layer in bench.layers(item)]
        merged = bench.solve(bench.merge(*inputs))
        assert [layer.diff_id for layer in bench.layers(merged)] == wanted
        # a state directory that has lost the blobs packs the same bytes again
        bench.store.db.run("DELETE FROM snapshot_layers")
        bench.store.db.run("DELETE FROM docs")
        assert [layer.diff_id for layer in bench.layers(merged)] == wanted


@row("MRG-05")
def test_a_deletion_keeps_its_directory(bench: Bench, tmp_path: Path) -> None:
    base = bench.file(None, directory("/dir", 0o750), text("/dir/x", "x"))
    diff = bench.diff(base, bench.file(base, Rm(path="/dir/x")))
    found = bench.look(diff)
    assert list(found) == ["dir"]
    assert found["dir"][0] == oct(stat.S_IFDIR | 0o750)
    other = bench.file(None, text("/other", "o"))
    assert sorted(bench.look(bench.merge(other, diff))) == ["dir", "other"]
    (layer,) = bench.layers(diff)
    with tarfile.open(fileobj=io.BytesIO(bench.tar(layer))) as tar:
        assert tar.getnames() == ["dir", "dir/.wh.x"]


@row("MRG-05")
def test_opaque_directories_become_explicit_deletions_and_owner_comes_before_capabilities(
    bench: Bench, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "ping").write_text("x")
    os.chown(tree / "ping", 5, 6)
    os.chmod(tree / "ping", 0o4755)
    capability = b"\1\0\0\2" + bytes(16)
    os.setxattr(tree / "ping", "security.capability", capability)
    base = bench.file(None, directory("/d"), text("/d/a", "a"), text("/d/b", "b"))
    anew = bench.file(base, Rm(path="/d"), directory("/d"), text("/d/c", "c"))
    merged = bench.merge(base, bench.diff(base, anew), bench.diff(base, bench.merge(base, bench.put(tree))))
    layers = bench.layers(merged)
    with tarfile.open(fileobj=io.BytesIO(bench.tar(layers[1]))) as tar:
        assert [name for name in tar.getnames() if ".wh." in name] == ["d/.wh.a", "d/.wh.b"]
    with bench.view(merged) as view:
        st = view.lstat("ping")
        assert st is not None and (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (5, 6, 0o4755)
        assert view.xattrs("ping")["security.capability"] == capability


def scramble(rng: random.Random, root: Path) -> None:
    """A few random changes to a tree: every type of file, replacement by another type, deletions, links."""
    for _ in range(rng.randint(3, 9)):
        names = [Path(d) / n for d, dirs, files in os.walk(root) for n in (*dirs, *files)]
        folders = [root, *(p for p in names if p.is_dir() and not p.is_symlink())]
        target = rng.choice(folders) / rng.choice("abcde")
        if target.is_symlink() or target.exists():
            if target.is_dir() and not target.is_symlink() and rng.random() < 0.5:
                os.chown(target, rng.randint(0, 3), 0)
                continue
            shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()
            if rng.random() < 0.4:
                continue
        kind = rng.choice(["dir", "dir", "file", "file", "link", "fifo", "device", "hard", "empty"])
        files = [p for p in names if p.is_file() and not p.is_symlink() and p.exists()]
        if kind == "dir":
            target.mkdir(mode=rng.choice([0o755, 0o700]))
        elif kind == "link":
            target.symlink_to(rng.choice(["a", "../b", "/nowhere"]))
        elif kind == "fifo":
            os.mkfifo(target)
        elif kind == "device":
            os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, rng.randint(3, 5)))
        elif kind == "hard" and files:
            os.link(rng.choice(files), target)
        else:
            target.write_text("" if kind == "empty" else rng.choice("xyz"))
            os.utime(target, (rng.randint(1, 3),) * 2)


@row("MRG-01", "MRG-02")
@pytest.mark.parametrize("seed", range(12))
def test_a_diff_on_its_lower_tree_gives_the_upper_one_here_and_for_whoever_pulls_it(
    bench: Bench, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    sides: list[Vertex] = []
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        scramble(rng, root)
        scramble(rng, root)
        sides.append(bench.put(root))
    one, two = sides
    diff = bench.diff(one, two)
    wanted = bench.look(two)
    whole = bench.merge(one, diff)
    assert bench.look(whole) == wanted
    pulled = bench.apply([*bench.layers(one), *bench.layers(diff)], tmp_path / "pulled")
    with View((pulled,)) as view:
        assert described(view) == wanted
    # on another tree, what is mounted is what the layers unpack to
    third = tmp_path / "third"
    third.mkdir()
    scramble(rng, third)
    merged = bench.merge(
        bench.put(third), diff, bench.file(None, directory("/z"), Symlink(old_path="x", new_path="/z/l"))
    )
    again = bench.apply(bench.layers(merged), tmp_path / "again")
    with View((again,)) as view:
        assert described(view, times=False) == strip(bench, merged)


def strip(bench: Bench, vertex: Vertex) -> dict[str, tuple[object, ...]]:
    with bench.view(vertex) as view:
        return described(view, times=False)


@row("MRG-02")
def test_a_diff_is_a_source_like_any_other(bench: Bench) -> None:
    base = bench.file(None, text("/a", "a"))
    other = bench.file(None, text("/a", "b"), directory("/d"))
    copied = bench.file(
        None, directory("/to"), (Copy(src="/", dest="/to", dir_contents=True), bench.diff(base, other))
    )
    assert sorted(bench.look(copied)) == ["to", "to/a", "to/d"]
