"""Containers, volumes, cache mounts, build history, events."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.containerstore import ContainerRow
from builder.cache.store import Store
from builder.errors import InvalidValue, StoreError
from runtime.errors import NoSuchContainer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


def container(number: int, snapshot: str | None = None) -> ContainerRow:
    return ContainerRow(f"{number:064x}", f"name{number}", "sha256:i", snapshot, number, {"n": number})


def test_containers_are_found_by_id_name_and_prefix(store: Store) -> None:
    row = ContainerRow("abc123", "web", "sha256:i", None, 1, {"k": [1]})
    store.containers.create(row)
    store.containers.create(ContainerRow("abd456", "db", "sha256:i", None, 2, {}))
    for ref in ("abc123", "web", "/web", "abc"):
        assert store.containers.get(ref) == row
    assert store.containers.get("nope") is None
    assert store.containers.get("") is None
    assert store.containers.get("a%") is None
    with pytest.raises(InvalidValue):
        store.containers.get("ab")
    assert [item.name for item in store.containers.list()] == ["db", "web"]


def test_container_names_are_unique(store: Store) -> None:
    store.containers.create(container(1))
    with pytest.raises(StoreError) as caught:
        store.containers.create(ContainerRow("other", "name1", "", None, 1, {}))
    assert caught.value.code == "name-in-use"
    store.containers.create(container(2))
    with pytest.raises(StoreError):
        store.containers.rename(container(2).id, "name1")
    store.containers.rename(container(2).id, "fresh")
    assert store.containers.get("fresh") is not None
    with pytest.raises(NoSuchContainer):
        store.containers.rename("nope", "x")


def test_container_data_can_change(store: Store) -> None:
    store.containers.create(container(1))
    store.containers.update(container(1).id, {"state": "running"})
    found = store.containers.get("name1")
    assert found is not None
    assert found.data == {"state": "running"}
    with pytest.raises(NoSuchContainer):
        store.containers.update("nope", {})


def test_a_containers_tree_outlives_the_process_and_goes_with_it(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        active = store.snapshots.prepare(None)
        store.containers.create(container(1, active.id))
        (active.upper / "data").write_text("x")
    with Store.open(tmp_path) as store:
        assert (store.snapshots.reopen(active.id).upper / "data").read_text() == "x"
        store.prune(all=True)
        assert active.upper.exists()
        assert store.containers.remove(container(1).id)
        assert not store.containers.remove(container(1).id)
        assert not active.upper.exists()


def test_volumes(store: Store) -> None:
    volume = store.volumes.create("data", data={"labels": {"a": "b"}})
    assert volume.path == store.root / "volumes/data/_data"
    assert volume.path.is_dir()
    (volume.path / "x").write_text("x")
    assert store.volumes.create("data") == volume
    anonymous = store.volumes.create()
    assert anonymous.anonymous
    assert len(anonymous.name) == 64
    assert {item.name for item in store.volumes.list()} == {"data", anonymous.name}
    assert store.volumes.remove("data")
    assert not store.volumes.remove("data")
    assert not volume.path.exists()
    assert os.listdir(store.volumes.create("data").path) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 300, "a\nb"])
def test_volume_names_never_leave_their_place(store: Store, name: str) -> None:
    with pytest.raises(InvalidValue):
        store.volumes.create(name)
    assert store.volumes.get(name) is None
    assert not store.volumes.remove(name)


def test_a_cache_mount_keeps_its_content(store: Store) -> None:
    with store.cache_mounts.acquire("../../etc", "shared") as path:
        (path / "f").write_text("x")
        assert path.parent == store.root / "cachemounts"
    with store.cache_mounts.acquire("../../etc", "locked") as again:
        assert (again / "f").read_text() == "x"
    (mount,) = store.cache_mounts.list()
    assert (mount.id, mount.instance, mount.sharing, mount.uses) == ("../../etc", 0, "shared", 4)


def test_sharing_modes(store: Store) -> None:
    mounts = store.cache_mounts
    with mounts.acquire("id", "shared") as first, mounts.acquire("id", "shared") as second:
        assert first == second
        with mounts.acquire("id", "private") as third:
            assert third != first
            with mounts.acquire("id", "private") as fourth:
                assert fourth not in (first, third)
    with mounts.acquire("id", "private") as again:
        assert again == first
    with pytest.raises(StoreError):
        mounts.acquire("id", "public")  # type: ignore[arg-type]


def test_a_look_at_a_cache_mount_makes_no_other_instance(store: Store) -> None:
    mounts = store.cache_mounts
    with mounts.acquire("id", "private") as first:
        pass
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            mounts.in_use(first.name)

    looking = [threading.Thread(target=look) for _ in range(3)]
    for thread in looking:
        thread.start()
    try:
        for _ in range(60):
            with mounts.acquire("id", "private") as path:
                assert path == first
    finally:
        over.set()
        for thread in looking:
            thread.join()


def test_locked_waits_for_its_turn(store: Store) -> None:
    waited = threading.Event()
    order: list[str] = []

    def second() -> None:
        with store.cache_mounts.acquire("id", "locked", on_wait=waited.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with store.cache_mounts.acquire("id", "locked"):
        thread.start()
        assert waited.wait(5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert len(store.cache_mounts.list()) == 1


def test_a_new_cache_mount_is_filled_before_it_is_seen(store: Store) -> None:
    def fill(path: Path) -> None:
        (path / "seed").write_text("x")

    def fail(path: Path) -> None:
        raise ValueError

    with pytest.raises(ValueError), store.cache_mounts.acquire("bad", "shared", fill=fail):
        pass
    assert store.cache_mounts.list() == ()
    for _ in range(2):
        with store.cache_mounts.acquire("id", "shared", fill=fill) as path:
            assert (path / "seed").exists()


def test_cache_mounts_have_a_size_and_can_be_deleted(store: Store) -> None:
    with store.cache_mounts.acquire("id", "shared") as path:
        (path / "f").write_bytes(b"x" * 100_000)
        (mount,) = store.cache_mounts.list()
        assert store.cache_mounts.in_use(mount.directory)
        assert not store.cache_mounts.delete(mount.directory)
    assert store.cache_mounts.size(mount.directory) >= 100_000
    before = os.stat(store.root / "tmp").st_mtime_ns
    assert not store.cache_mounts.in_use(mount.directory)
    assert os.stat(store.root / "tmp").st_mtime_ns == before, "a read-only disk can be looked at"
    assert store.cache_mounts.delete(mount.directory)
    assert not path.exists()
    assert store.cache_mounts.list() == ()


def test_build_history(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.builds.add("b1", {"name": "first"})
        store.builds.finish("b1", "completed", {"name": "first", "steps": 3})
        store.builds.add("b2", {})
        assert [(row.id, row.status) for row in store.builds.list()] == [
            ("b2", "running"),
            ("b1", "completed"),
        ]
        found = store.builds.get("b1")
        assert found is not None
        assert found.data["steps"] == 3
        assert found.completed_ns is not None
        assert store.builds.get("zz") is None
        with pytest.raises(StoreError):
            store.builds.get("b")
        assert not store.builds.remove("b2")
        assert store.builds.pin("b1")
        assert store.builds.remove("b1")
    with Store.open(tmp_path) as store:
        (row,) = store.builds.list()
        assert (row.status, row.data["code"]) == ("error", "build-killed")


def test_old_builds_go_when_there_are_many(store: Store) -> None:
    for number in range(60):
        store.builds.add(f"b{number:02}", {})
        store.builds.finish(f"b{number:02}", "completed")
    assert len(store.builds.list()) == 60
    store.db.run("UPDATE builds SET created_ns=created_ns - ?", (72 * 3600 * 10**9,))
    store.builds.pin("b00")
    store.builds.add("new", {})
    store.builds.finish("new", "error")
    rows = store.builds.list()
    assert len(rows) == 51
    assert "b00" in {row.id for row in rows}


def test_events(store: Store) -> None:
    store.events.add("image", "tag", "app:1", {"id": "sha256:x"})
    time.sleep(0.001)
    middle = time.time_ns()
    store.events.add("container", "start", "c1")
    assert [(e.kind, e.action, e.id) for e in store.events.list()] == [
        ("image", "tag", "app:1"),
        ("container", "start", "c1"),
    ]
    assert [event.id for event in store.events.list(since_ns=middle)] == ["c1"]
    assert [event.id for event in store.events.list(until_ns=middle)] == ["app:1"]
    assert store.events.list()[0].attrs == {"id": "sha256:x"}


def test_events_can_be_followed(store: Store) -> None:
    store.events.add("image", "old", "x")
    stop = threading.Event()
    seen: list[str] = []

    def follow() -> None:
        for event in store.events.follow(stop=stop):
            seen.append(event.action)
            stop.set()

    thread = threading.Thread(target=follow)
    thread.start()
    time.sleep(0.05)
    store.events.add("image", "new", "x")
    thread.join(5)
    assert seen == ["new"]
    assert [event.action for event in store.events.follow(0, until_ns=time.time_ns())] == ["old", "new"]
