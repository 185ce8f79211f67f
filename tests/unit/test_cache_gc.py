"""What a prune removes, in which order, and what it never touches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.containerstore import ContainerRow
from builder.cache.gc import collect
from builder.cache.limits import GB as GIB
from builder.cache.limits import Policy, default_policies, keep_target
from builder.cache.store import Store
from builder.cache.types import CacheRecord
from builder.errors import InvalidValue
from builder.oci.descriptor import OCI_LAYER, Descriptor
from builder.oci.digest import ChainId, DiffId, Digest
from tests.support.cacheimages import make_image


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


def snapshot(store: Store, parent: str | None = None, *, size: int = 8192, kind: str = "regular") -> str:
    active = store.snapshots.prepare(parent, record_type=kind)
    (active.upper / "data").write_bytes(os.urandom(size))
    return store.snapshots.commit(active).id


def ids(store: Store) -> set[str]:
    return {info.id for info in store.snapshots.list()}


def test_pruning_everything_leaves_an_empty_store(store: Store) -> None:
    base = snapshot(store)
    top = snapshot(store, base)
    store.records.save(CacheRecord("a", "op", (top,)))
    store.records.save(CacheRecord("b", "op", (None,)))
    store.put_doc("k", "k", b"x")
    made = make_image(store.blobs, b"layer")
    store.images.tag("app", made.descriptor)
    with store.cache_mounts.acquire("id", "shared") as mount:
        (mount / "f").write_text("x")
    store.images.remove(made.config.digest)
    report = store.prune(all=True)
    assert report.size > 0
    assert {row.kind for row in report.rows} == {"snapshot", "blob", "cachemount"}
    assert ids(store) == set()
    assert list(store.blobs.iter()) == []
    for table in (
        "records",
        "record_parts",
        "record_outputs",
        "docs",
        "trash",
        "cache_mounts",
        "snapshot_layers",
    ):
        assert store.db.all(f"SELECT * FROM {table}") == [], table
    for name in ("tmp", "snapshots", "content/blobs/sha256", "cachemounts"):
        left = [item for item in os.listdir(store.root / name) if not item.startswith("own-")]
        assert left == [], name


def test_images_and_their_blobs_stay(store: Store) -> None:
    made = make_image(store.blobs, b"layer")
    store.images.tag("app", made.descriptor)
    loose = store.blobs.put(b"loose")
    chain = ChainId(made.layers[0].digest)
    unpacked = store.snapshots.commit(store.snapshots.prepare(None), chain_id=chain).id
    store.prune()
    assert not store.blobs.has(loose)
    assert ids(store) == {unpacked}
    store.prune(all=True)
    assert ids(store) == set()
    for descriptor in (made.descriptor, made.config, *made.layers):
        assert store.blobs.has(descriptor.digest)
    assert store.images.resolve("app") is not None


def test_containers_keep_what_they_stand_on(store: Store) -> None:
    base, other = snapshot(store), snapshot(store)
    active = store.snapshots.prepare(base)
    store.containers.create(ContainerRow("c", "c", "", active.id, 1, {}))
    store.prune(all=True)
    assert ids(store) == {base, active.id}
    assert other not in ids(store)


def test_what_is_held_stays_until_it_is_released(store: Store) -> None:
    base = snapshot(store)
    top, other = snapshot(store, base), snapshot(store, base)
    made = make_image(store.blobs, b"layer")
    with store.hold() as hold:
        assert hold.snapshot(top)
        assert hold.blob(made.descriptor.digest)
        assert not hold.snapshot("zzzz")
        assert not hold.blob(Digest.of(b"nowhere"))
        fresh = snapshot(store)
        store.prune(all=True)
        assert ids(store) == {base, top, fresh}
        assert store.blobs.has(made.layers[0].digest)
    store.prune(all=True)
    assert ids(store) == set()
    assert other not in ids(store)


def test_a_hold_of_another_process_counts_and_a_dead_one_does_not(store: Store) -> None:
    kept = snapshot(store)
    with Store.open(store.root) as other:
        hold = other.hold()
        assert hold.snapshot(kept)
        store.prune(all=True)
        assert ids(store) == {kept}
    (store.root / "tmp/hold-dead").write_text(f"s {kept}\n")
    store.prune(all=True)
    assert ids(store) == set()


def test_active_snapshots_are_in_use(store: Store) -> None:
    base = snapshot(store)
    active = store.snapshots.prepare(base)
    store.prune(all=True)
    assert ids(store) == {base, active.id}


def test_internal_records_go_only_with_all(store: Store) -> None:
    internal, plain = snapshot(store, kind="internal"), snapshot(store)
    assert plain
    store.prune()
    assert ids(store) == {internal}
    store.prune(all=True)
    assert ids(store) == set()


def test_layer_blobs_go_with_the_last_snapshot_that_has_them(store: Store) -> None:
    first, second = snapshot(store), snapshot(store)
    digest = store.blobs.put(b"layer")
    descriptor = Descriptor(media_type=OCI_LAYER, digest=digest, size=5)
    for item in (first, second):
        store.snapshots.set_layer(item, compression="gzip", diff_id=DiffId(digest), descriptor=descriptor)
    store.prune(filters=[f"id=={first}"])
    assert store.blobs.has(digest)
    store.prune(filters=[f"id=={second}"])
    assert not store.blobs.has(digest)


def test_a_budget_removes_the_least_valuable_leaves_first(store: Store) -> None:
    base = snapshot(store, size=100_000)
    old, new = snapshot(store, base, size=100_000), snapshot(store, base, size=100_000)
    store.db.run("UPDATE snapshots SET uses=1, last_used_ns=1000 * id")
    store.db.run("UPDATE snapshots SET uses=9, last_used_ns=1 WHERE description='x'")
    total = sum(row.size for row in store.usage())
    report = store.prune(keep_bytes=total - 1)
    assert [row.id for row in report.rows] == [old]
    assert ids(store) == {base, new}
    assert store.prune(keep_bytes=total).rows == ()
    removed: list[str] = []
    store.prune(keep_bytes=1, on_removed=lambda row: removed.append(row.id))
    assert removed == [new, base]


def test_what_was_used_lately_is_spared(store: Store) -> None:
    old, new = snapshot(store), snapshot(store)
    store.db.run("UPDATE snapshots SET last_used_ns=1 WHERE id=1")
    store.prune(keep_duration_s=3600)
    assert ids(store) == {new}
    assert old not in ids(store)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type==source.local", {"1"}),
        ("type=source.local", {"1"}),
        ("type!=source.local", {"2", "3"}),
        ("type~=^source", {"1"}),
        ("parent==2", {"3"}),
        ("parents", {"3"}),
        ("id==1,type==regular", set()),
        ("immutable", {"1", "2", "3"}),
        ("inuse", set()),
        ("inuse==false,private", {"1", "2", "3"}),
        ("shared", set()),
        ("description~=two", {"2"}),
    ],
)
def test_filters(store: Store, text: str, expected: set[str]) -> None:
    snapshot(store, kind="source.local")
    second = store.snapshots.commit(store.snapshots.prepare(None), description="number two").id
    snapshot(store, second)
    from builder.cache.filters import parse_filters

    matches = parse_filters([text])
    assert {row.id for row in store.usage() if matches(row)} == expected


@pytest.mark.parametrize("text", ["color==red", "==", "id~=[", "type=="[:-2] + "<x"])
def test_bad_filters_are_refused_and_remove_nothing(store: Store, text: str) -> None:
    snapshot(store)
    with pytest.raises(InvalidValue):
        store.prune(filters=[text])
    assert len(ids(store)) == 1


def test_several_filters_are_alternatives(store: Store) -> None:
    first, second, third = snapshot(store), snapshot(store), snapshot(store)
    store.prune(filters=[f"id=={first}", f"id=={second}"])
    assert ids(store) == {third}


def test_usage_counts_layers_and_copies(store: Store) -> None:
    one = snapshot(store, size=50_000)
    digest = store.blobs.put(b"x" * 30_000)
    descriptor = Descriptor(media_type=OCI_LAYER, digest=digest, size=30_000)
    store.snapshots.set_layer(one, compression="gzip", diff_id=DiffId(digest), descriptor=descriptor)
    (row,) = store.usage()
    assert row.size >= 80_000
    assert (row.id, row.reclaimable, row.shared, row.mutable) == (one, True, False, False)
    info = store.snapshots.get(one)
    assert info is not None
    assert info.size >= 50_000


def test_a_cache_mount_in_use_stays(store: Store) -> None:
    with store.cache_mounts.acquire("id", "shared") as path:
        store.prune(all=True)
        assert path.exists()
    store.prune(all=True)
    assert not path.exists()


@pytest.mark.parametrize(
    ("policy", "total", "free", "expected"),
    [
        (Policy(), 100, 0, 0),
        (Policy(max_used=50), 100, 0, 50),
        (Policy(max_used=50, reserved=70), 100, 0, 70),
        (Policy(min_free=30), 100, 10, 80),
        (Policy(min_free=300), 100, 10, 0),
        (Policy(min_free=300, reserved=20), 100, 10, 20),
        (Policy(max_used=50, min_free=30), 100, 40, 50),
    ],
)
def test_how_much_may_stay(policy: Policy, total: int, free: int, expected: int) -> None:
    assert keep_target(policy, total, free) == expected


def test_the_default_policies_follow_the_disk(store: Store) -> None:
    small = default_policies(50 * GIB)
    assert [policy.max_used for policy in small] == [512_000_000, 40 * GIB, 40 * GIB, 40 * GIB]
    assert small[1].reserved == 5 * GIB
    large = default_policies(4000 * GIB)
    assert (large[2].max_used, large[2].reserved, large[2].min_free) == (100 * GIB, 10 * GIB, 800 * GIB)
    kept = snapshot(store)
    assert collect(store, [Policy(max_used=GIB)]).rows == ()
    assert ids(store) == {kept}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts need root")
def test_a_tall_stack_is_flattened_and_goes_with_its_snapshot(store: Store) -> None:
    store.snapshots._max_layers = 8
    parent: str | None = None
    for number in range(20):
        active = store.snapshots.prepare(parent)
        (active.upper / f"f{number}").write_text(str(number))
        if number == 3:
            os.mknod(active.upper / "f1", 0o600 | 0o020000, 0)
        parent = store.snapshots.commit(active).id
    assert parent is not None
    layers = store.snapshots.layers(parent)
    assert len(layers) <= 8
    names: set[str] = set()
    for layer in layers:
        names |= {path.name for path in layer.iterdir()}
    assert names == {f"f{number}" for number in range(20)} - {"f1"}
    assert len(store.snapshots.chain(parent)) == 20
    assert len([row for row in store.usage() if row.kind == "snapshot"]) == 20
    with store.hold() as hold:
        hold.snapshot(parent)
        store.prune(all=True)
        assert all(layer.exists() for layer in store.snapshots.layers(parent))
    store.prune(all=True)
    assert ids(store) == set()
    assert os.listdir(store.root / "snapshots") == []
