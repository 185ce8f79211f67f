"""One suite for both snapshotters. Overlay trees are looked at and changed through a real mount."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.cache.snapshots import SnapshotStore
from builder.cache.store import Store
from builder.cache.types import Active
from builder.errors import BlobMissing, StoreError
from builder.oci.descriptor import OCI_LAYER, Descriptor
from builder.oci.digest import ChainId, DiffId, Digest

Mounted = Callable[[Active], Iterator[Path]]


@pytest.fixture(params=["overlay", "native"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "overlay" and os.geteuid() != 0:
        pytest.skip("mounting overlays needs root")
    with Store.open(tmp_path / "root", snapshotter=request.param) as opened:
        try:
            assert opened.snapshots.driver == request.param
        except StoreError as error:
            pytest.skip(str(error))
        yield opened


@pytest.fixture
def snapshots(store: Store) -> SnapshotStore:
    return store.snapshots


@contextmanager
def tree(active: Active, tmp_path: Path) -> Iterator[Path]:
    """The tree of an active snapshot, mounted if it has to be."""
    if active.work is None:
        yield active.upper
        return
    target = tmp_path / f"mnt-{active.id}"
    target.mkdir()
    lower = ":".join(str(path) for path in active.lowers)
    options = f"lowerdir={lower},upperdir={active.upper},workdir={active.work},index=off,metacopy=off,redirect_dir=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_changes_stack_up_and_parents_stay(snapshots: SnapshotStore, tmp_path: Path) -> None:
    base = snapshots.prepare(None, description="base")
    with tree(base, tmp_path) as root:
        (root / "kept").write_text("1")
        (root / "gone").write_text("2")
        (root / "dir").mkdir()
        (root / "dir/deep").write_text("3")
    first = snapshots.commit(base)
    assert (first.kind, first.description, first.parent) == ("committed", "base", None)

    step = snapshots.prepare(first.id)
    with tree(step, tmp_path) as root:
        assert (root / "gone").read_text() == "2"
        (root / "gone").unlink()
        (root / "dir/deep").unlink()
        (root / "dir").rmdir()
        (root / "dir").mkdir()
        (root / "new").write_text("4")
    second = snapshots.commit(step)

    again = snapshots.prepare(second.id)
    with tree(again, tmp_path) as root:
        assert sorted(os.listdir(root)) == ["dir", "kept", "new"]
        assert os.listdir(root / "dir") == []
    snapshots.discard(again)

    other = snapshots.prepare(first.id)
    with tree(other, tmp_path) as root:
        assert (root / "dir/deep").read_text() == "3"
    snapshots.discard(other)
    assert [info.id for info in snapshots.chain(second.id)] == [second.id, first.id]


def test_the_root_keeps_mode_owner_and_attributes(snapshots: SnapshotStore, tmp_path: Path) -> None:
    base = snapshots.prepare(None)
    base.upper.chmod(0o1777)
    os.utime(base.upper, ns=(1_000_000_007, 1_000_000_009))
    first = snapshots.commit(base)
    step = snapshots.prepare(first.id)
    with tree(step, tmp_path) as root:
        status = root.stat()
    assert stat.S_IMODE(status.st_mode) == 0o1777
    assert status.st_mtime_ns == 1_000_000_009


def test_metadata_survives_to_the_next_snapshot(snapshots: SnapshotStore, tmp_path: Path) -> None:
    base = snapshots.prepare(None)
    with tree(base, tmp_path) as root:
        file = root / "a"
        file.write_text("data")
        os.link(file, root / "b")
        os.symlink("nowhere", root / "link")
        os.mkfifo(root / "fifo")
        os.setxattr(file, "user.note", b"hello")
        if os.geteuid() == 0:
            os.chown(file, 12, 34)
            os.lchown(root / "link", 56, 78)
            os.mknod(root / "dev", 0o640 | stat.S_IFCHR, os.makedev(1, 3))
        file.chmod(0o4755)
        with open(root / "holes", "wb") as sparse:
            sparse.truncate(8 << 20)
            sparse.seek(4 << 20)
            sparse.write(b"x")
        for name in ("a", "link", "fifo"):
            os.utime(root / name, ns=(5, 7_000_000_123), follow_symlinks=False)
    first = snapshots.commit(base)
    step = snapshots.prepare(first.id)
    with tree(step, tmp_path) as root:
        status = (root / "a").lstat()
        assert stat.S_IMODE(status.st_mode) == 0o4755
        assert status.st_mtime_ns == 7_000_000_123
        assert status.st_nlink == 2
        assert status.st_ino == (root / "b").lstat().st_ino
        assert os.getxattr(root / "a", "user.note") == b"hello"
        assert os.readlink(root / "link") == "nowhere"
        assert (root / "link").lstat().st_mtime_ns == 7_000_000_123
        assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)
        sparse_status = (root / "holes").lstat()
        assert sparse_status.st_size == 8 << 20
        assert sparse_status.st_blocks * 512 < 1 << 20
        assert (root / "holes").read_bytes()[4 << 20] == ord("x")
        if os.geteuid() == 0:
            assert (status.st_uid, status.st_gid) == (12, 34)
            assert (root / "link").lstat().st_uid == 56
            assert (root / "dev").lstat().st_rdev == os.makedev(1, 3)
            assert stat.S_IMODE((root / "dev").lstat().st_mode) == 0o640


def test_a_known_chain_id_gives_the_snapshot_that_has_it(snapshots: SnapshotStore) -> None:
    chain = ChainId(Digest.of(b"chain"))
    first = snapshots.commit(snapshots.prepare(None), chain_id=chain)
    second = snapshots.prepare(None)
    directory = second.upper.parent
    assert snapshots.commit(second, chain_id=chain).id == first.id
    assert not directory.exists()
    found = snapshots.by_chain(chain)
    assert found is not None
    assert found.id == first.id


def test_discarding_leaves_nothing(snapshots: SnapshotStore, store: Store) -> None:
    active = snapshots.prepare(None)
    (active.upper / "x").write_text("x")
    snapshots.discard(active)
    snapshots.discard(active)
    assert snapshots.get(active.id) is None
    assert list((store.root / "snapshots").iterdir()) == []
    with pytest.raises(StoreError):
        snapshots.commit(active)


def test_only_committed_snapshots_are_parents(snapshots: SnapshotStore) -> None:
    active = snapshots.prepare(None)
    for parent in (active.id, "zzzz", "", "../x"):
        with pytest.raises(StoreError):
            snapshots.prepare(parent)


def test_a_committed_snapshot_cannot_be_committed_or_discarded(snapshots: SnapshotStore) -> None:
    active = snapshots.prepare(None)
    info = snapshots.commit(active)
    with pytest.raises(StoreError):
        snapshots.commit(active)
    snapshots.discard(active)
    assert snapshots.get(info.id) is not None


def test_layers_are_topmost_first(snapshots: SnapshotStore) -> None:
    first = snapshots.commit(snapshots.prepare(None))
    second = snapshots.commit(snapshots.prepare(first.id))
    own, below = snapshots.diff_dir(second.id)
    assert snapshots.layers(None) == ()
    assert snapshots.layers(first.id) == (own.parent.parent / first.id / "fs",)
    assert below == snapshots.layers(first.id)
    expected = (own, *below) if snapshots.driver == "overlay" else (own,)
    assert snapshots.layers(second.id) == expected


def test_layer_blobs_and_content_digests_are_remembered(store: Store, snapshots: SnapshotStore) -> None:
    info = snapshots.commit(snapshots.prepare(None))
    digest = Digest.of(b"layer")
    descriptor = Descriptor(media_type=OCI_LAYER, digest=digest, size=5)
    diff_id = DiffId(digest)
    with pytest.raises(BlobMissing):
        snapshots.set_layer(info.id, compression="gzip", diff_id=diff_id, descriptor=descriptor)
    store.blobs.put(b"layer")
    snapshots.set_layer(info.id, compression="gzip", diff_id=diff_id, descriptor=descriptor)
    assert snapshots.layer(info.id, "gzip") == (diff_id, descriptor)
    assert snapshots.layer(info.id, "zstd") is None
    store.blobs.delete(digest)
    assert snapshots.layer(info.id, "gzip") is None
    assert snapshots.content_digest(info.id) is None
    snapshots.set_content_digest(info.id, digest)
    assert snapshots.content_digest(info.id) == digest


def test_an_active_snapshot_can_be_reopened(snapshots: SnapshotStore) -> None:
    base = snapshots.commit(snapshots.prepare(None))
    active = snapshots.prepare(base.id)
    assert snapshots.reopen(active.id) == active
    with pytest.raises(StoreError):
        snapshots.reopen(base.id)
