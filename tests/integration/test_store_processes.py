"""Several processes at one state directory, and processes that are killed between any two durable steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.cache import faults
from builder.cache.containerstore import ContainerRow
from builder.cache.store import Store
from builder.cache.types import CacheRecord
from builder.oci.descriptor import OCI_LAYER, Descriptor
from builder.oci.digest import ChainId, DiffId, Digest
from tests.support.cacheimages import make_image


def work(root: Path) -> None:
    """A bit of everything that changes a state directory."""
    with Store.open(root, snapshotter="native") as store, store.hold():
        layer = store.blobs.put(b"layer" * 100)
        with store.blobs.writer() as out:
            out.write(b"written")
            out.commit()
        active = store.snapshots.prepare(None)
        (active.upper / "f").write_text("x")
        base = store.snapshots.commit(active, chain_id=ChainId(Digest.of(b"chain")))
        step = store.snapshots.prepare(base.id)
        top = store.snapshots.commit(step)
        descriptor = Descriptor(media_type=OCI_LAYER, digest=layer, size=500)
        store.snapshots.set_layer(top.id, compression="gzip", diff_id=DiffId(layer), descriptor=descriptor)
        store.records.save(CacheRecord("key", "op", (top.id, base.id)))
        image = make_image(store.blobs, b"image layer")
        store.images.tag("app", image.descriptor)
        dropped = store.snapshots.prepare(base.id)
        store.snapshots.discard(dropped)
        store.volumes.create("vol")
        store.volumes.remove("vol")
        rootfs = store.snapshots.prepare(top.id)
        if store.containers.get("c") is None:
            made_id = f"id{time.monotonic_ns()}"
            with store.containers.placing(made_id):
                store.containers.create(ContainerRow(made_id, "c", "", rootfs.id, 1, {}))
        with store.cache_mounts.acquire("apt", "locked") as mount:
            (mount / "f").write_text("x")
    with Store.open(root, snapshotter="native") as store:
        container = store.containers.get("c")
        if container is not None:
            store.containers.remove(container.id)
        store.prune()
        for made in store.images.list():
            store.images.remove(made.id)
        store.blobs.delete(Digest.of(b"written"))
        store.prune(all=True)


def check(root: Path) -> None:
    """What must hold after any crash, once somebody opened the directory."""
    with Store.open(root, snapshotter="native") as store:
        rows = dict(store.blobs.iter())
        for digest, size in rows.items():
            data = store.blobs.path(digest).read_bytes()
            assert len(data) == size
            assert Digest.of(data) == digest
        assert set(os.listdir(root / "content/blobs/sha256")) == {digest.hex for digest in rows}
        assert set(os.listdir(root / "snapshots")) == {info.id for info in store.snapshots.list()}
        for info in store.snapshots.list():
            assert info.kind == "committed" or store.db.one("SELECT 1 FROM containers"), info
            assert (root / "snapshots" / info.id / "fs").is_dir()
            if info.parent is not None:
                assert store.snapshots.get(info.parent) is not None
        record = store.records.lookup("key")
        if record is not None:
            assert all(store.snapshots.get(item) for item in record.outputs if item)
        named = [item for image in store.images.list() for item in image.names]
        index = json.loads((root / "content/index.json").read_text())["manifests"]
        names = [item.get("annotations", {}).get("org.opencontainers.image.ref.name") for item in index]
        assert [name for name in names if name] == named
        mounts = {mount.directory for mount in store.cache_mounts.list()}
        assert set(os.listdir(root / "cachemounts")) == mounts
        assert set(os.listdir(root / "volumes")) >= {volume.name for volume in store.volumes.list()}
        assert store.db.all("SELECT * FROM trash") == []
        assert os.listdir(root / "tmp") == []


def in_child(action: Callable[[], None]) -> int:
    """Run it in a forked process; the exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 (a forked child must not return into the test run)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(root: Path, step: int) -> int:
    """Do the work in a process that kills itself at the given point."""
    passed = 0

    def hook(_: str) -> None:
        nonlocal passed
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def action() -> None:
        faults.hook = hook
        work(root)

    return in_child(action)


def points(root: Path) -> list[str]:
    """The names of all points that the work passes."""
    seen: list[str] = []
    faults.hook = seen.append
    try:
        work(root)
    finally:
        faults.hook = None
    return seen


def test_a_kill_at_any_point_leaves_only_what_the_next_opening_removes(tmp_path: Path) -> None:
    names = points(tmp_path / "whole")
    check(tmp_path / "whole")
    expected = {
        "create.database", "blob.flushed", "blob.verified", "blob.linked", "blob.directory-flushed", "blob.named",
        "snapshot.claimed", "snapshot.made", "snapshot.settled", "snapshot.committed", "snapshot.unlinked",
        "image.tagged", "image.index-written", "volume.unlinked", "gc.marked", "gc.unlinked", "gc.renamed",
        "trash.renamed", "trash.forgotten",
    }  # fmt: skip
    assert expected <= set(names)
    for step in range(len(names)):
        root = tmp_path / f"step{step}"
        assert killed_at(root, step) == -signal.SIGKILL, names[step]
        check(root)
        work(root)
        check(root)
        with Store.open(root) as store:
            assert store.snapshots.list() == (), names[step]
            assert list(store.blobs.iter()) == [], names[step]
            assert store.db.all("SELECT * FROM records") == []


def test_a_kill_while_sweeping_is_harmless(tmp_path: Path) -> None:
    for step in range(12):
        root = tmp_path / f"r{step}"
        work(root)
        for name in ("stage-a", "blob-b", "own-c", "hold-d"):
            (root / "tmp" / name).write_text("x")
        (root / "tmp/pub-sha256-nonsense").write_text("")
        passed = 0

        def hook(_: str, step: int = step) -> None:
            nonlocal passed
            if passed == step:
                os.kill(os.getpid(), signal.SIGKILL)
            passed += 1

        def action(root: Path = root, hook: Callable[[str], None] = hook) -> None:
            faults.hook = hook
            Store.open(root).close()

        in_child(action)
        check(root)


def test_many_processes_open_a_new_directory_at_once(tmp_path: Path) -> None:
    children = [
        _spawn("import sys;Store.open(Path(sys.argv[1])).close()", tmp_path / "root") for _ in range(8)
    ]
    assert _statuses(children) == [0] * 8
    check(tmp_path / "root")


HAMMER = """
import os, sys, time
store = Store.open(Path(sys.argv[1]), snapshotter="native")
me = os.getpid()
end = time.monotonic() + float(sys.argv[2])
round = 0
while time.monotonic() < end:
    round += 1
    with store.hold() as hold:
        active = store.snapshots.prepare(None)
        info = store.snapshots.commit(active, chain_id=ChainId(Digest.of(str(round % 5).encode())))
        assert store.snapshots.get(info.id) is not None
        store.records.save(CacheRecord(f"k{round % 7}", "op", (info.id,)))
        record = store.records.lookup(f"k{(round + 3) % 7}")
        if record is not None and hold.snapshot(record.outputs[0]):
            assert os.path.isdir(store.snapshots.layers(record.outputs[0])[0])
        digest = store.blobs.put(str(round % 11).encode())
        assert store.blobs.read(digest, 10) == str(round % 11).encode()
        store.put_doc("k", str(round % 3), b"x")
        store.events.add("test", "round", str(me))
    if round % 9 == me % 9:
        store.prune(all=True)
store.close()
print(round)
"""


def _spawn(code: str, *args: object) -> subprocess.Popen[bytes]:
    head = (
        "from pathlib import Path\nfrom builder.cache.store import Store\n"
        "from builder.cache.types import CacheRecord\nfrom builder.oci.digest import ChainId, Digest\n"
    )
    return subprocess.Popen([sys.executable, "-c", head + code, *map(str, args)], stdout=subprocess.PIPE)


def _statuses(children: list[subprocess.Popen[bytes]]) -> list[int]:
    for child in children:
        child.communicate(timeout=60)
    return [child.returncode for child in children]


def _hammer(root: Path, processes: int, seconds: float) -> None:
    children = [_spawn(HAMMER, root, seconds) for _ in range(processes)]
    outputs = [child.communicate(timeout=seconds + 90)[0] for child in children]
    assert [child.returncode for child in children] == [0] * processes
    assert sum(int(output) for output in outputs) >= processes
    check(root)
    with Store.open(root) as store:
        store.prune(all=True)
        assert store.snapshots.list() == ()
        assert list(store.blobs.iter()) == []


def test_processes_that_build_and_prune_do_not_disturb_each_other(tmp_path: Path) -> None:
    _hammer(tmp_path / "root", 6, 1.5)


@pytest.mark.soak
def test_thirty_two_processes_never_see_a_busy_store(tmp_path: Path) -> None:
    _hammer(tmp_path / "root", 32, 20)


def test_processes_killed_at_random_leave_a_sound_store(tmp_path: Path) -> None:
    root = tmp_path / "root"
    Store.open(root).close()
    for number in range(4):
        children = [_spawn(HAMMER, root, 30) for _ in range(2)]
        time.sleep(0.35 + 0.07 * number)
        for child in children:
            child.kill()
            child.communicate()
        check(root)


def test_a_cache_mount_is_locked_between_processes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    code = (
        "import sys\nstore = Store.open(Path(sys.argv[1]))\n"
        "for _ in range(20):\n"
        "    with store.cache_mounts.acquire('id', 'locked') as path:\n"
        "        file = path / 'count'\n"
        "        count = int(file.read_text()) if file.exists() else 0\n"
        "        file.write_text(str(count + 1))\n"
        "store.close()\n"
    )
    children = [_spawn(code, root) for _ in range(4)]
    assert _statuses(children) == [0] * 4
    with Store.open(root) as store, store.cache_mounts.acquire("id", "locked") as path:
        assert (path / "count").read_text() == "80"


def test_equal_work_is_done_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    code = (
        "import sys, time\nstore = Store.open(Path(sys.argv[1]), snapshotter='native')\n"
        "with store.lock('key'):\n"
        "    if store.records.lookup('key') is None:\n"
        "        info = store.snapshots.commit(store.snapshots.prepare(None))\n"
        "        time.sleep(0.1)\n"
        "        store.records.save(CacheRecord('key', 'op', (info.id,)))\n"
        "        print('made')\n"
        "store.close()\n"
    )
    children = [_spawn(code, root) for _ in range(4)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert b"".join(outputs) == b"made\n"
    with Store.open(root) as store:
        assert len(store.snapshots.list()) == 1
