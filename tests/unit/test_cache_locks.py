"""Named locks, the gate, staging entries, and removing trees."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from builder.cache.locks import Gate, NamedLock
from builder.cache.removal import discard_path, remove_tree
from builder.cache.staging import Staging
from builder.errors import StoreBusy, StoreError


def test_a_lock_excludes_and_leaves_nothing(tmp_path: Path) -> None:
    waits: list[str] = []
    with NamedLock(str(tmp_path), "name"):
        assert len(os.listdir(tmp_path)) == 1
        with pytest.raises(StoreBusy):
            NamedLock(str(tmp_path), "name", timeout_s=0.05, on_wait=lambda: waits.append("x")).__enter__()
        with NamedLock(str(tmp_path), "other"):
            pass
    assert waits == ["x"]
    assert os.listdir(tmp_path) == []


def test_a_waiter_may_give_up(tmp_path: Path) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    with NamedLock(str(tmp_path), "name"), pytest.raises(KeyboardInterrupt):
        NamedLock(str(tmp_path), "name", check=check).__enter__()


def test_threads_take_turns(tmp_path: Path) -> None:
    inside = 0
    most = 0
    count = 0

    def work() -> None:
        nonlocal inside, most, count
        for _ in range(30):
            with NamedLock(str(tmp_path), "name"):
                inside += 1
                most = max(most, inside)
                count += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, count) == (1, 180)
    assert os.listdir(tmp_path) == []


def test_shared_holders_stand_together(tmp_path: Path) -> None:
    first = NamedLock(str(tmp_path), "name", shared=True)
    second = NamedLock(str(tmp_path), "name", shared=True)
    alone = NamedLock(str(tmp_path), "name")
    assert first.try_acquire()
    assert second.try_acquire()
    assert not alone.try_acquire()
    first.release()
    assert not alone.try_acquire()
    second.release()
    assert alone.try_acquire()
    alone.release()
    assert os.listdir(tmp_path) == []


def test_a_lock_dies_with_its_owner(tmp_path: Path) -> None:
    code = (
        "import sys,time\nfrom builder.cache.locks import NamedLock\n"
        "NamedLock(sys.argv[1], 'name').__enter__()\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    assert not NamedLock(str(tmp_path), "name").try_acquire()
    child.kill()
    child.wait()
    child.stdout.close()
    with NamedLock(str(tmp_path), "name", timeout_s=1):
        pass


def test_names_never_become_paths(tmp_path: Path) -> None:
    for name in ("../../x", "a/b", "\0", "x" * 5000, "\udcff"):
        with NamedLock(str(tmp_path), name):
            (entry,) = os.listdir(tmp_path)
            assert entry.startswith("lock-")


def test_the_gate_lets_many_pass_or_one_remove(tmp_path: Path) -> None:
    gate = Gate(str(tmp_path), wait_s=0.1)
    with gate.passing(), gate.passing(), pytest.raises(StoreBusy), gate.removing():
        pass
    with gate.removing(), pytest.raises(StoreBusy), gate.passing():
        pass


def test_who_wants_to_remove_is_not_kept_out(tmp_path: Path) -> None:
    gate = Gate(str(tmp_path))
    stop = threading.Event()

    def pass_on() -> None:
        while not stop.is_set():
            with gate.passing():
                time.sleep(0.002)

    threads = [threading.Thread(target=pass_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    with gate.removing():
        waited = time.monotonic() - started
    stop.set()
    for thread in threads:
        thread.join()
    assert waited < 5


def test_staging_is_private_and_temporary(tmp_path: Path) -> None:
    with Staging(str(tmp_path), "../un pack") as directory:
        assert directory.parent == tmp_path
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (directory / "sub").mkdir()
        (directory / "sub/file").write_text("x")
    assert os.listdir(tmp_path) == []


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(700):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    remove_tree(str(top))
    assert not top.exists()


def test_links_are_removed_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(outside)
    remove_tree(str(top))
    (tmp_path / "direct").symlink_to(outside)
    remove_tree(str(tmp_path / "direct"))
    assert (outside / "canary").read_text() == "alive"


def test_nothing_there_is_fine(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "none"))
    discard_path(str(tmp_path / "none"), str(tmp_path))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="bind mounts need root")
def test_a_forgotten_mount_is_not_deleted_through(tmp_path: Path) -> None:
    host = tmp_path / "host data"
    host.mkdir()
    (host / "canary").write_text("alive")
    inner = tmp_path / "top/inner dir"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(host), str(inner)], check=True)
    try:
        with pytest.raises(StoreError) as caught:
            remove_tree(str(tmp_path / "top"))
        assert caught.value.code == "store-mounted"
        assert (host / "canary").exists()
    finally:
        subprocess.run(["umount", str(inner)], check=True)
    remove_tree(str(tmp_path / "top"))
    assert not (tmp_path / "top").exists()


def test_unreadable_directories_go_without_root() -> None:
    with tempfile.TemporaryDirectory() as base:  # pytest's own directory is closed to other users
        os.chmod(base, 0o755)
        top = Path(base) / "top"
        (top / "a/b").mkdir(parents=True)
        (top / "a/b/f").write_text("x")
        for path in (Path(base), top, top / "a", top / "a/b", top / "a/b/f"):
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
        (top / "a/b").chmod(0)
        (top / "a").chmod(0o500)
        code = (
            "import os,sys\n"
            "from builder.cache.removal import remove_tree\n"
            "os.geteuid() or (os.setgid(65534), os.setuid(65534))\n"
            "remove_tree(sys.argv[1])"
        )
        subprocess.run([sys.executable, "-c", code, str(top)], check=True)
        assert not top.exists()
