"""Opening a state directory, remembered documents, holds, touches, sweeping, a new boot."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from builder.cache.store import Store
from builder.cache.types import CacheRecord
from builder.errors import StoreError
from builder.oci.digest import ChainId, Digest


def committed(store: Store, parent: str | None = None, *, content: str = "x") -> str:
    active = store.snapshots.prepare(parent)
    (active.upper / "file").write_text(content)
    return store.snapshots.commit(active).id


def test_a_new_directory_is_a_valid_oci_layout(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a/b"):
        pass
    content = tmp_path / "a/b/content"
    assert json.loads((content / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((content / "index.json").read_text())["manifests"] == []
    assert (tmp_path / "a/b/VERSION").read_text() == "1\n"
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700


def test_opening_again_finds_what_was_stored(tmp_path: Path) -> None:
    with Store.open(tmp_path / "root") as store:
        digest = store.blobs.put(b"x")
        store.put_doc("kind", "key", b"doc")
    with Store.open(tmp_path / "root") as store:
        assert store.blobs.has(digest)
        assert store.doc("kind", "key") == b"doc"
        assert store.doc("kind", "other") is None


def test_a_newer_layout_is_refused_with_a_hint(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    (tmp_path / "VERSION").write_text("99\n")
    with pytest.raises(StoreError) as caught:
        Store.open(tmp_path)
    assert caught.value.code == "store-too-new"
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "abc", "1.5"])
def test_a_nonsense_version_is_refused(tmp_path: Path, text: str) -> None:
    Store.open(tmp_path).close()
    (tmp_path / "VERSION").write_text(text)
    with pytest.raises(StoreError):
        Store.open(tmp_path)


def test_a_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError) as caught:
        Store.open(tmp_path)
    assert caught.value.code == "store-foreign"
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_file_instead_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("x")
    with pytest.raises(StoreError):
        Store.open(tmp_path / "root")


def test_a_lost_database_is_an_error_and_not_a_new_one(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    for name in ("db.sqlite", "db.sqlite-wal", "db.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(StoreError):
        Store.open(tmp_path)


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.close()
    store.close()


def test_opening_is_quick(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for index in range(200):
            store.put_doc("k", str(index), b"x" * 100)
    best = 1.0
    for _ in range(10):
        started = time.perf_counter()
        store = Store.open(tmp_path)
        best = min(best, time.perf_counter() - started)
        store.close()
    assert best < 0.004


def test_uses_are_written_at_the_end(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        snapshot = committed(store)
        store.records.save(CacheRecord("key", "op", (snapshot,)))
        before = store.snapshots.get(snapshot)
        store.records.lookup("key")
        store.records.lookup("key")
        store.snapshots.touch(snapshot)
        assert store.snapshots.get(snapshot) == before
    with Store.open(tmp_path) as store:
        after = store.snapshots.get(snapshot)
        assert before is not None
        assert after is not None
        assert after.uses == 3
        assert after.last_used_ns > before.last_used_ns


def test_what_nobody_committed_goes_at_the_end(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        active = store.snapshots.prepare(None)
    assert not active.upper.exists()
    assert os.listdir(tmp_path / "tmp") == []


def test_a_batch_is_one_transaction(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        with pytest.raises(ValueError), store.batch():
            store.put_doc("k", "1", b"x")
            raise ValueError
        assert store.doc("k", "1") is None
        with store.batch():
            store.put_doc("k", "1", b"x")
            store.events.add("image", "tag", "x")
        assert store.doc("k", "1") == b"x"


def test_rubbish_in_tmp_is_swept_and_live_entries_stay(tmp_path: Path) -> None:
    with Store.open(tmp_path) as live:
        tmp = tmp_path / "tmp"
        (tmp / "stage-dead").mkdir()
        (tmp / "stage-dead/x").write_text("x")
        (tmp / "blob-dead").write_text("x")
        (tmp / "lock-dead").write_text("")
        (tmp / "hold-dead").write_text("s 1\n")
        (tmp / "own-dead").write_text("")
        (tmp / "gone-dead").mkdir()
        (tmp / "unknown").write_text("")
        (tmp / "pub-sha256-nonsense-1").write_text("")
        (tmp / "link").symlink_to("/etc/passwd")
        os.mkfifo(tmp / "fifo")
        with live.staging("mine") as mine, live.blobs.writer() as writer, live.lock("l"), live.hold() as hold:
            snapshot = committed(live)
            assert hold.snapshot(snapshot)
            writer.write(b"part")
            Store.open(tmp_path).close()
            kinds = sorted(name.split("-")[0] for name in os.listdir(tmp))
            assert kinds == ["blob", "hold", "lock", "own", "stage"]
            assert mine.exists()
            writer.commit()
            assert live.snapshots.get(snapshot) is not None


def test_the_active_snapshots_of_a_dead_process_go(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        active = store.snapshots.prepare(None)
        store.db.run("UPDATE snapshots SET owner='own-dead'")
        (tmp_path / "tmp/own-dead").write_text("")
        store.sweep()
        assert store.snapshots.get(active.id) is None
        assert not active.upper.parent.exists()


def _restart(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if the machine had been started anew: the store reads the kernel's boot id in one place."""
    monkeypatch.setattr("builder.cache.store.boot_id", lambda: name)


def test_after_a_restart_only_settled_snapshots_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path) as store:
        old = committed(store)
        store.db.run("UPDATE snapshots SET committed_mono_ns=committed_mono_ns - ?", (3600 * 10**9,))
        young = committed(store, old)
        child = committed(store, young)
        store.records.save(CacheRecord("old", "op", (old,)))
        store.records.save(CacheRecord("young", "op", (young,)))
        assert child
    _restart(monkeypatch, "another boot")
    with Store.open(tmp_path) as store:
        assert [info.id for info in store.snapshots.list()] == [old]
        assert store.records.lookup("old") is not None
        assert store.records.lookup("young") is None
        assert os.listdir(tmp_path / "snapshots") == [old]
    _restart(monkeypatch, "a third boot")
    with Store.open(tmp_path) as store:
        assert [info.id for info in store.snapshots.list()] == [old]


def test_after_a_restart_containers_keep_their_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from builder.cache.containerstore import ContainerRow

    with Store.open(tmp_path) as store:
        chain = ChainId(Digest.of(b"chain"))
        base = store.snapshots.commit(store.snapshots.prepare(None), chain_id=chain).id
        active = store.snapshots.prepare(base)
        store.containers.create(ContainerRow("c1", "name", "sha256:x", active.id, 1, {}))
    _restart(monkeypatch, "another boot")
    with Store.open(tmp_path) as store:
        assert store.snapshots.reopen(active.id).lowers == active.lowers
        assert store.snapshots.by_chain(chain) is None


def test_after_a_restart_rows_and_files_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path) as store:
        lost, kept, nameless = store.blobs.put_many([b"lost", b"kept", b"nameless"])
        store.blobs.path(lost).unlink()
        store.db.run("DELETE FROM blobs WHERE digest=?", (str(nameless),))
        (tmp_path / "content/blobs/sha256/readme").write_text("foreign")
        (tmp_path / "snapshots/zz").mkdir()
        vanished = committed(store)
        store.db.run("UPDATE snapshots SET committed_mono_ns=0")
        store.snapshots.layers(vanished)[0].parent.rename(tmp_path / "elsewhere")
    _restart(monkeypatch, "another boot")
    with Store.open(tmp_path) as store:
        assert {digest for digest, _ in store.blobs.iter()} == {kept, nameless}
        assert store.snapshots.list() == ()
        assert os.listdir(tmp_path / "snapshots") == []
