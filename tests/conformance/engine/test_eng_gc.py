"""Disk usage, prune and garbage collection (rows GC-01 … GC-08)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build.space import tidy
from builder.cache.gc import choose, collect
from builder.cache.limits import GB, Policy, SpaceLimits, default_policies, keep_target
from builder.cache.store import Store
from builder.cache.types import CacheRecord
from builder.cache.usage import Kept, UsageRow
from tests.support.buildlab import Lab
from tests.support.cli import Runner
from tests.support.rows import row

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="builds here run as root"),
]
HOUR, DAY = 3600 * 10**9, 86400 * 10**9
TEXT = """\
FROM busybox
RUN --mount=type=cache,id=gc,target=/c echo a > /c/f
RUN dd if=/dev/zero of=/big bs=1000 count=500
COPY f /f
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def cli(own: Lab) -> Runner:
    return Runner(own.store.root)


def snapshot(store: Store, parent: str | None = None, *, size: int = 8192, kind: str = "regular") -> str:
    active = store.snapshots.prepare(parent, record_type=kind)
    (active.upper / "data").write_bytes(os.urandom(size))
    return store.snapshots.commit(active).id


def ids(store: Store) -> set[str]:
    return {info.id for info in store.snapshots.list()}


@row("GC-01")
def test_du_has_the_columns_marks_and_sums(own: Lab, cli: Runner) -> None:
    own.build(own.context({"f": "x"}), TEXT)
    lines = cli.run("du").out.splitlines()
    assert lines[0].split() == ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED"]
    body, foot = lines[1:-4], dict(line.split() for line in lines[-4:])
    assert list(foot) == ["Shared:", "Private:", "Reclaimable:", "Total:"]
    usage = {item.id: item for item in own.store.usage()}
    assert len(body) == len(usage)
    for line in body:
        name, reclaimable, size = line.split()[:3]
        found = usage[name.rstrip("*")]
        assert name.endswith("*") == found.mutable
        assert size.endswith("*") == found.shared
        assert reclaimable == str(found.reclaimable).lower() == "true"
    assert {item.shared for item in usage.values()} == {True, False}, (
        "the base image's tree is the image's too"
    )
    assert {item.mutable for item in usage.values()} == {True, False}, "a cache mount can change"


@row("GC-01")
def test_du_says_private_only_beside_shared(own: Lab, cli: Runner) -> None:
    own.store.snapshots.commit(own.store.snapshots.prepare(None))
    assert [line.split()[0] for line in cli.run("du").out.splitlines()[-2:]] == ["Reclaimable:", "Total:"]
    assert "Shared" not in cli.run("du").out


@row("GC-01")
def test_verbose_du_prints_blocks(own: Lab, cli: Runner) -> None:
    own.build(own.context({"f": "x"}), TEXT)
    blocks = cli.run("du", "--verbose").out.split("\n\n")
    block = next(item for item in blocks if "RUN dd" in item)
    keys = [line.partition(":")[0] for line in block.splitlines()]
    assert keys == [
        *("ID", "Parents", "Created at", "Mutable", "Reclaimable", "Shared", "Size", "Description"),
        *("Usage count", "Last used", "Type"),
    ]
    assert "regular" in block.splitlines()[-1]


@row("GC-01")
def test_du_filters_and_formats(own: Lab, cli: Runner) -> None:
    own.build(own.context({"f": "x"}), TEXT)
    mount = cli.run("du", "--filter", "type==exec.cachemount", "--format", "{{.ID}} {{.Type}}").out.split()
    assert mount[0].endswith("*")
    assert mount[1:] == ["exec.cachemount"]
    rows = [json.loads(line) for line in cli.run("du", "--format", "json").out.splitlines()]
    assert len(rows) == len(own.store.usage())
    assert {"ID", "Size", "Reclaimable", "Shared", "Mutable", "UsageCount", "Parents"} <= set(rows[0])


@row("GC-02")
def test_prune_leaves_shared_and_internal_records_unless_all(own: Lab, cli: Runner) -> None:
    own.build(own.context({"f": "x"}), TEXT)
    own.store.snapshots.commit(own.store.snapshots.prepare(None, record_type="internal"))
    own.store.snapshots.commit(own.store.snapshots.prepare(None, record_type="frontend"))
    out = cli.run("builder", "prune", "--force").out.splitlines()
    assert out[0].split() == ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED"]
    assert out[-1].startswith("Total:\t")
    left = own.store.usage()
    assert {item.record_type for item in left if not item.shared} == {"internal", "frontend"}
    assert any(item.shared for item in left)
    assert len(out) == 2 + 4  # a mount, two RUNs, a COPY
    cli.run("builder", "prune", "--force", "--all")
    assert own.store.usage() == ()
    assert own.store.images.resolve("busybox") is not None


@row("GC-02")
@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--keep-duration", "1h"], 3),
        (["--keep-storage", "1"], 2),
        (["--keep-storage-min", "100"], 3),
        (["--keep-storage", "0.0001g", "--keep-storage-min", "1"], 2),
        (["--free-storage", "1"], 3),
        (["--filter", "description~=first"], 2),
        (["--filter", "description~=first,mutable"], 3),
        ([], 0),
    ],
)
def test_prune_keeps_what_flags_say(tmp_path: Path, words: list[str], left: int) -> None:
    with Store.open(tmp_path / "root") as store:
        for name in ("first", "second", "third"):
            active = store.snapshots.prepare(None, description=name)
            (active.upper / "f").write_bytes(os.urandom(400_000))
            store.snapshots.commit(active)
    command = Runner(tmp_path / "root")
    shown = command.run("builder", "prune", "--force", *words).out
    with Store.open(tmp_path / "root") as store:
        assert len(store.snapshots.list()) == left
    assert shown.splitlines()[-1].startswith("Total:")
    assert len(shown.splitlines()) == (1 if left == 3 else 2 + 3 - left)


@row("GC-03")
def test_filters_by_every_field(store: Store) -> None:
    base = snapshot(store, kind="source.local")
    top = store.snapshots.commit(store.snapshots.prepare(base), description="the top").id
    with store.cache_mounts.acquire("m", "shared"):
        pass
    mount = store.cache_mounts.list()[0].directory

    def found(*filters: str) -> set[str]:
        from builder.cache.filters import parse_filters

        matches = parse_filters(filters)
        return {item.id for item in store.usage() if matches(item)}

    every = {base, top, mount}
    assert found(f"id=={base}") == {base}
    assert found(f"parent=={base}") == found(f"parents=={base}") == found("parents") == {top}
    assert found("description==the top") == found("description~=^the") == {top}
    assert found("type==source.local") == {base}
    assert found("type!=source.local") == {top, mount}
    assert found("mutable") == {mount}
    assert found("immutable") == {base, top}
    assert found("private") == every
    assert found("shared") == set()
    assert found("inuse") == set()
    assert found("private,immutable,type==regular") == {top}, "a comma is AND"
    assert found("mutable", f"id=={top}") == {mount, top}, "several filters are OR"
    with store.hold() as hold:
        hold.snapshot(top)
        assert found("inuse") == {base, top}


@row("GC-04")
@pytest.mark.parametrize(
    ("policy", "total", "free", "keep"),
    [
        (Policy(), 100, 5, 0),
        (Policy(max_used=50), 100, 5, 50),
        (Policy(max_used=200, min_free=30), 100, 10, 80),
        (Policy(max_used=50, min_free=30), 100, 10, 50),
        (Policy(max_used=200, min_free=90, reserved=60), 100, 10, 60),
        (Policy(min_free=30), 100, 30, 1 << 62),
    ],
)
def test_how_much_is_kept(policy: Policy, total: int, free: int, keep: int) -> None:
    assert keep_target(policy, total, free) == keep


@row("GC-04")
def test_no_more_is_removed_than_has_to_be(store: Store) -> None:
    made = [snapshot(store, size=100_000) for _ in range(5)]
    sizes = {item.id: item.size for item in store.usage()}
    report = store.prune(keep_bytes=sum(sizes.values()) - sizes[made[0]] - 1)
    assert [item.id for item in report.rows] == made[:2]


@row("GC-05")
def test_the_default_policies_in_order() -> None:
    passing, unused, any_of_it, internal = default_policies(1000 * GB)
    assert passing.filters == ("type==source.local", "type==exec.cachemount", "type==source.git.checkout")
    assert (passing.keep_duration_s, passing.max_used) == (48 * 3600, 512_000_000)
    assert unused.keep_duration_s == 60 * 86400
    assert not any_of_it.everything
    assert internal.everything
    for policy in (unused, any_of_it, internal):
        assert (policy.max_used, policy.reserved, policy.min_free) == (100 * GB, 10 * GB, 200 * GB)
    assert default_policies(50 * GB)[2].max_used == 40 * GB
    assert default_policies(50 * GB)[2].reserved == 5 * GB


@row("GC-05")
def test_contexts_mounts_and_checkouts_go_by_age(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.cache.limits._PASSING_BYTES", 1000)
    old, new = snapshot(store, kind="source.local"), snapshot(store, kind="source.git.checkout")
    plain = snapshot(store)
    with store.cache_mounts.acquire("old", "shared"):
        pass
    then = time.time_ns() - 49 * HOUR
    store.db.run("UPDATE snapshots SET last_used_ns=? WHERE id IN (1, 3)", (then,))
    store.db.run("UPDATE cache_mounts SET last_used_ns=?", (then,))
    mirror = store.root / "git" / ("a" * 64)
    mirror.mkdir(parents=True)
    (mirror / "HEAD").write_text("x" * 2000)
    os.utime(mirror, ns=(then, then))
    report = collect(store)
    assert {item.kind for item in report.rows} == {"snapshot", "cachemount", "mirror"}
    assert ids(store) == {new, plain}
    assert old not in ids(store)
    assert not mirror.exists()


@row("GC-05")
def test_what_nobody_used_for_long_goes_first_then_any_then_internal(store: Store) -> None:
    internal = snapshot(store, size=100_000, kind="internal")
    ancient, recent = snapshot(store, size=100_000), snapshot(store, size=100_000)
    store.db.run("UPDATE snapshots SET last_used_ns=last_used_ns-?, uses=50 WHERE id=2", (61 * DAY,))
    one = store.usage()[0].size
    removed = collect(store, default_policies(1000 * GB, SpaceLimits(max_used=2 * one))).rows
    assert [item.id for item in removed] == [ancient]
    removed = collect(store, default_policies(1000 * GB, SpaceLimits(max_used=one))).rows
    assert [item.id for item in removed] == [recent]
    removed = collect(store, default_policies(1000 * GB, SpaceLimits(max_used=1))).rows
    assert [item.id for item in removed] == [internal]


@row("GC-05")
def test_it_runs_after_builds_and_not_more_than_once_a_minute(
    own: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.cache.limits._PASSING_BYTES", 1)

    def left_behind() -> str:
        found = snapshot(own.store, kind="source.local")
        then = (time.time_ns() - 49 * HOUR, int(found, 36))
        own.store.db.run("UPDATE snapshots SET last_used_ns=? WHERE id=?", then)
        return found

    first = left_behind()
    own.build(own.context(), "FROM busybox\nRUN true\n")
    assert first not in ids(own.store)
    second = left_behind()
    own.build(own.context(), "FROM busybox\nRUN true 2\n")
    assert second in ids(own.store)
    own.store.db.run("UPDATE meta SET value=value-61000000000 WHERE key='gc'")
    own.build(own.context(), "FROM busybox\nRUN true 3\n")
    assert second not in ids(own.store)


@row("GC-06")
def test_records_in_use_stay_and_their_keys_go_with_the_last_result(store: Store) -> None:
    one, two = snapshot(store), snapshot(store)
    store.records.save(CacheRecord("both", "op", (one, two)))
    store.records.save(CacheRecord("other", "op", (one,)))
    with store.hold() as hold:
        hold.snapshot(one)
        store.prune(all=True)
        assert ids(store) == {one}
        assert store.records.lookup("other") is not None
        assert store.records.lookup("both") is None, "half a result is none"
    store.prune(all=True)
    assert ids(store) == set()
    for table in ("records", "record_parts", "record_outputs"):
        assert store.db.all(f"SELECT * FROM {table}") == []


@row("GC-06")
def test_a_build_under_way_keeps_its_results(own: Lab) -> None:
    import threading

    context = own.context({"Dockerfile": "FROM busybox\nRUN echo one > /one\nRUN sleep 1 && cat /one\n"})
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(own.build(context)))
    thread.start()
    while thread.is_alive():
        tidy(own.store, SpaceLimits(max_used=1))
        own.store.prune(all=True)
    thread.join()
    assert result, "the build failed"


def _kept(*rows: tuple[str, int, int]) -> Kept:
    made = [
        UsageRow(name, "snapshot", (), 1, used, uses, 10, False, False, False, "", "regular")
        for name, used, uses in rows
    ]
    return Kept(rows=made, snapshot_of={item.id: number for number, item in enumerate(made)})


def _order(kept: Kept) -> list[str]:
    return [item.id for item in choose(kept, Policy(max_used=1), lambda _: True, 0, time.time_ns())]


@row("GC-07")
def test_the_score_is_rank_of_age_plus_rank_of_uses() -> None:
    # rank by last use: never 0, a 1/3, b 2/3, c 1; rank by uses: never 0, c 1/3, a 2/3, b 1
    kept = _kept(("c", 300, 1), ("b", 200, 9), ("a", 100, 5), ("never", 0, 0))
    assert _order(kept) == ["never", "a", "c", "b"]
    assert _order(_kept(("old", 100, 3), ("new", 200, 3))) == ["old", "new"]
    assert _order(_kept(("often", 100, 9), ("seldom", 100, 1))) == ["seldom", "often"]


@row("GC-07")
def test_prune_without_limits_works_in_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.cache.gc.BATCH", 3)
    parent = None
    for _ in range(8):
        parent = snapshot(store, parent, size=1)
    turns = []
    monkeypatch.setattr("builder.cache.gc.remove_gone", lambda gone: turns.append(len(gone)))
    assert len(store.prune(all=True).rows) == 8
    assert turns == [3, 3, 2]
    assert ids(store) == set()


@row("GC-08")
def test_sizes_are_bytes_1024_based_units_or_percent_in_whole_gigabytes(own: Lab) -> None:
    from cli.settings import Settings
    from cli.space import space_bytes

    settings = Settings({"PYBUILD_ROOT": str(own.store.root)})
    status = os.statvfs(own.store.root)
    disk = status.f_blocks * status.f_frsize
    assert space_bytes("12345", "x", settings) == 12345
    assert space_bytes("10GB", "x", settings) == 10 << 30
    assert space_bytes("512m", "x", settings) == 512 << 20
    ten = space_bytes("10%", "x", settings)
    assert ten % GB == 0
    assert 0 <= ten - disk * 10 / 100 < GB


@row("GC-08")
@pytest.mark.parametrize(("text", "left"), [("1h", 1), ("3600", 1), ("1h30m", 2), ("90m", 2), ("30s", 0)])
def test_durations_are_go_syntax_or_seconds(tmp_path: Path, text: str, left: int) -> None:
    with Store.open(tmp_path / "root") as store:
        for age_s in (1800, 4500):
            number = int(snapshot(store), 36)
            used = time.time_ns() - age_s * 10**9
            store.db.run("UPDATE snapshots SET last_used_ns=? WHERE id=?", (used, number))
    Runner(tmp_path / "root").run("builder", "prune", "--force", "--keep-duration", text)
    with Store.open(tmp_path / "root") as store:
        assert len(ids(store)) == left
