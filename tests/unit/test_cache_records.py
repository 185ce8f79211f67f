"""Cache records: the table and the dictionary, and what they promise about snapshots."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.memory import MemoryRecordStore
from builder.cache.protocols import Records
from builder.cache.store import Store
from builder.cache.types import CacheRecord
from builder.errors import StoreError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture(params=["disk", "memory"])
def records(request: pytest.FixtureRequest, store: Store) -> Records:
    return store.records if request.param == "disk" else MemoryRecordStore()


def test_a_record_is_found_by_its_key(records: Records) -> None:
    record = CacheRecord("key", "op", (None, None), "RUN x", 5, {"files": {"a": 1}})
    records.save(record)
    found = records.lookup("key", parts=True)
    assert found == record
    assert found is not None
    assert found.parts == {"files": {"a": 1}}
    plain = records.lookup("key")
    assert plain is not None
    assert plain.parts == {}
    assert records.lookup("other") is None


def test_a_second_save_replaces(records: Records) -> None:
    records.save(CacheRecord("key", "op", (None,)))
    records.save(CacheRecord("key", "op2", ()))
    found = records.lookup("key")
    assert found is not None
    assert (found.op, found.outputs) == ("op2", ())


def test_near_gives_the_same_operation_first_and_the_newest(records: Records) -> None:
    for index in range(30):
        records.save(CacheRecord(f"same{index}", "op", (), "n", created_ns=index + 1))
    records.save(CacheRecord("named", "other", (), "alone", created_ns=99))
    assert [record.key for record in records.near("op", "alone")] == [f"same{i}" for i in range(29, 9, -1)]
    assert [record.key for record in records.near("none", "alone")] == ["named"]
    assert records.near("none", "") == ()


def test_large_parts_survive(records: Records) -> None:
    parts = {"files": {f"some/long/path/{i}": "x" * 64 for i in range(500)}}
    records.save(CacheRecord("key", "op", (), parts=parts))
    assert records.near("op", "")[0].parts == parts


def test_a_forgotten_record_is_gone(records: Records) -> None:
    records.save(CacheRecord("key", "op", ()))
    records.forget("key")
    records.forget("key")
    assert records.lookup("key") is None


def test_a_record_cannot_name_what_is_not_there(store: Store) -> None:
    active = store.snapshots.prepare(None)
    for output in ("zz", "not an id", active.id):
        with pytest.raises(StoreError):
            store.records.save(CacheRecord("key", "op", (output,)))
    assert store.records.lookup("key") is None


def test_a_record_goes_with_its_snapshot(store: Store) -> None:
    first = store.snapshots.commit(store.snapshots.prepare(None)).id
    second = store.snapshots.commit(store.snapshots.prepare(None)).id
    store.records.save(CacheRecord("both", "op", (first, None, second)))
    store.records.save(CacheRecord("one", "op", (first,)))
    store.prune(filters=[f"id=={second}"])
    assert store.records.lookup("both") is None
    assert store.records.lookup("one") is not None


def test_a_lookup_is_quick(store: Store) -> None:
    snapshot = store.snapshots.commit(store.snapshots.prepare(None)).id
    with store.batch():
        for index in range(1000):
            store.records.save(CacheRecord(f"{index:064x}", "op", (snapshot,), parts={"x": "y" * 2000}))
    store.records.lookup("warm")
    best = 1.0
    for _ in range(5):
        started = time.perf_counter()
        for index in range(200):
            store.records.lookup(f"{index * 5:064x}")
        best = min(best, (time.perf_counter() - started) / 200)
    assert best < 60e-6
