"""What the solver runs, what it takes from the cache, and what it does at the same time (SLV-01…19)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.cache.store import Store
from builder.cache.tree import View
from builder.errors import Cancelled, SolveError, StepFailed
from builder.llb.definition import LinuxResources, Vertex, VertexMeta
from builder.llb.ops import Mount
from builder.oci.digest import Digest
from builder.solver.progress import StatusEvent, VertexEvent
from builder.solver.solver import solve, solve_all
from builder.solver.types import Cancel
from runtime.launcher import Launcher
from tests.support.buildlab import Built, Lab
from tests.support.rows import row
from tests.support.solving import BASE, Base, Watcher, definition, env_for, run

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher.start() as launcher:
        yield launcher


def solved(store: Store, launcher: Launcher, head: Vertex, *before: Vertex, **options):
    """Solve; what ran, what was cached, and the snapshot."""
    watcher = options.pop("watcher", None) or Watcher()
    with env_for(store, launcher, watcher, **options) as env:
        result = solve(definition(head, *before), env)
    return watcher, result


def read(store: Store, snapshot: str | None, path: str) -> str:
    with View(store.snapshots.layers(snapshot)) as view:
        return view.read(path, 1 << 20).decode()


def key_of(store: Store, name: str) -> str:
    found = store.db.one("SELECT key FROM records WHERE name=? ORDER BY created_ns DESC", (name,))
    assert found is not None, name
    return str(found[0])


def meta(vertex: Vertex, **changes) -> Vertex:
    return Vertex(
        op=vertex.op,
        inputs=vertex.inputs,
        platform=vertex.platform,
        meta=VertexMeta(name=vertex.name, **changes),
    )


def from_other(script: str, *inputs: Vertex, name: str = "") -> Vertex:
    """A RUN on BASE that sees further inputs at /in1, /in2, …"""
    mounts = tuple(Mount(dest=f"/in{n}", input=n, readonly=True) for n in range(1, len(inputs) + 1))
    return run(script, BASE, *inputs, mounts=mounts, name=name)


@row("SLV-01", "SLV-09")
def test_a_cached_step_needs_neither_its_parents_nor_their_base(store: Store, launcher: Launcher) -> None:
    parent = run("echo p > /p", BASE, name="parent")
    head = run("cat /p > /h", parent, name="head")
    solved(store, launcher, head, BASE, parent)
    store.records.forget(key_of(store, "parent"))
    sources = Base(store)
    watcher = Watcher()
    with env_for(store, launcher, watcher) as env:
        object.__setattr__(env, "sources", sources)
        solve(definition(head, BASE, parent), env)
    assert watcher.ran() == []
    assert sources.fetched == 0


@row("SLV-02", "SLV-16")
def test_equal_content_is_a_hit_and_its_definition_is_known_from_then_on(
    store: Store, launcher: Launcher
) -> None:
    one, two = run("echo x > /f", BASE, name="one"), run("echo  x > /f", BASE, name="two")
    solved(store, launcher, from_other("cat /in1/f", one, name="user"), BASE, one)
    watcher, _ = solved(store, launcher, from_other("cat /in1/f", two, name="user"), BASE, two)
    assert watcher.ran() == ["base", "two"]
    assert "user" in watcher.cached()
    # The definition leads to the result now: not even "two" is needed for it.
    store.records.forget(key_of(store, "two"))
    watcher, _ = solved(store, launcher, from_other("cat /in1/f", two, name="user"), BASE, two)
    assert watcher.ran() == []


@row("SLV-02", "SLV-14", "SLV-15")
def test_nothing_is_hashed_where_definitions_decide(lab: Lab) -> None:
    text = "FROM busybox\nCOPY f /f\nRUN cat /f > /slv14\n"
    context = lab.context({"f": "1"})
    before = len(lab.store.db.all("SELECT 1 FROM docs WHERE kind='content'"))
    lab.build(context, text)
    lab.build(context, text + "LABEL a=1\n")
    (context / "f").write_text("2")
    lab.build(context, text)
    assert lab.steps_run() == ["[2/3] COPY f /f", "[3/3] RUN cat /f > /slv14"]
    assert len(lab.store.db.all("SELECT 1 FROM docs WHERE kind='content'")) == before
    for info in lab.store.snapshots.list():
        digest = lab.store.snapshots.content_digest(info.id)
        if info.chain_id is not None and digest is not None:  # named by its layers, not by its files
            assert digest == Digest.of(f"chain {info.chain_id}".encode())


@row("SLV-03")
def test_places_are_bounded_and_waiting_takes_none(store: Store, launcher: Launcher) -> None:
    steps = [run(f"date +%s%N > /t; sleep 0.3; date +%s%N > /e; echo {n}", BASE) for n in range(3)]
    head = from_other("cat /in*/t /in*/e", *steps)
    for limit, most in ((1, 1), (3, 3)):
        watcher = Watcher()
        with env_for(store, launcher, watcher, max_parallelism=limit) as env:
            solve(definition(meta(head, ignore_cache=True), BASE, *(meta(s, ignore_cache=True) for s in steps)), env)  # fmt: skip
        assert _together(watcher, [step.name for step in steps]) == most
    waits = run("true", BASE, mounts=(Mount(dest="/c", type="cache", id="slv03", sharing="locked"),))
    goes = run("sleep 0.1", BASE, name="goes")
    join = from_other("true", waits, goes)
    watcher = Watcher()
    with store.cache_mounts.acquire("slv03", "locked"), env_for(store, launcher, watcher, max_parallelism=1) as env:  # fmt: skip
        thread = threading.Thread(target=solve, args=(definition(join, BASE, waits, goes), env))
        thread.start()
        _until(lambda: "goes" in watcher.ran())
        assert "true" not in watcher.ran()
    thread.join(20)
    assert not thread.is_alive()
    assert "true" in watcher.ran()


@row("SLV-03")
def test_six_waiting_steps_run_at_once_on_any_machine(store: Store, launcher: Launcher) -> None:
    steps = [meta(run(f"sleep 0.5; echo six {n}", BASE), ignore_cache=True) for n in range(6)]
    watcher = Watcher()
    with env_for(store, launcher, watcher) as env:
        solve(definition(meta(from_other("true", *steps), ignore_cache=True), BASE, *steps), env)
    assert _together(watcher, [step.name for step in steps]) == 6


def _together(watcher: Watcher, names: list[str]) -> int:
    """How many of these steps ran at once, at most."""
    moments = []
    for event in watcher.events:
        if isinstance(event, VertexEvent) and event.name in names and event.started_ns:
            moments.append((event.completed_ns, -1) if event.completed_ns else (event.started_ns, 1))
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def _until(done, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@row("SLV-04", "SLV-17")
def test_two_builds_run_an_equal_step_once_and_both_are_told(store: Store, launcher: Launcher) -> None:
    head = run("sleep 0.5; date +%N > /n", BASE, name="slow")
    watchers, results = _side_by_side(store, launcher, head)
    assert sorted(len(watcher.ran()) for watcher in watchers) == [0, 2] or sorted(
        "slow" in watcher.ran() for watcher in watchers
    ) == [False, True]
    assert results[0] == results[1]
    anew = meta(run("sleep 0.2; date +%N > /n", BASE, name="anew"), ignore_cache=True)
    watchers, results = _side_by_side(store, launcher, anew)
    assert all("anew" in watcher.ran() for watcher in watchers)
    assert results[0] != results[1]


def _side_by_side(store: Store, launcher: Launcher, head: Vertex):
    watchers = [Watcher(), Watcher()]
    results: list[str | None] = [None, None]

    def work(number: int) -> None:
        results[number] = solved(store, launcher, head, BASE, watcher=watchers[number])[1].snapshot

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for watcher in watchers:
        ended = [e for e in watcher.events if isinstance(e, VertexEvent) and e.name == head.name]
        assert ended[-1].completed_ns
    return watchers, results


@row("SLV-04")
def test_steps_with_equal_keys_are_one_while_they_run(store: Store, launcher: Launcher) -> None:
    direct = run("sleep 0.3; date +%N > /n", BASE, name="direct")
    proxied = run("sleep 0.3; date +%N > /n", BASE, name="proxied", meta={"proxy_env": (("http_proxy", "http://p"),)})  # fmt: skip
    assert direct.digest != proxied.digest
    watcher, result = solved(
        store, launcher, from_other("cat /in1/n /in2/n > /n", direct, proxied), BASE, direct, proxied
    )
    assert len({"direct", "proxied"} & set(watcher.ran())) == 1
    one, two = read(store, result.snapshot, "n").split()
    assert one == two


@row("SLV-04", "SLV-11", "SLV-18")
def test_definitions_that_are_solved_together_share_steps_with_the_widest_limits(
    store: Store, launcher: Launcher
) -> None:
    specs = []

    class Noting:
        def run(self, spec, **streams):
            specs.append(spec)
            return launcher.run(spec, **streams)

    shared = run("echo shared", BASE, name="shared")
    narrow = meta(shared, resources=LinuxResources(memory_bytes=64 << 20, cpuset_cpus="0"))
    wide = meta(shared, resources=LinuxResources(memory_bytes=128 << 20))
    watcher = Watcher()
    heads = [run(f"echo {n}", shared, name=f"head{n}") for n in range(2)]
    with env_for(store, launcher, watcher) as env:
        object.__setattr__(env, "executor", Noting)
        both = solve_all([definition(heads[0], BASE, narrow), definition(heads[1], BASE, wide)], env)
    assert watcher.ran().count("shared") == 1
    assert watcher.ran().count("base") == 1
    limits = next(spec.limits for spec in specs if spec.args[-1] == "echo shared")
    assert (limits.memory_bytes, limits.cpuset_cpus) == (128 << 20, "")
    assert len({result.snapshot for result in both}) == 2


@row("SLV-05")
def test_a_shared_step_outlives_the_build_that_gave_up(store: Store, launcher: Launcher) -> None:
    head = run("sleep 0.6; echo ok > /ok", BASE, name="wanted by two")
    cancel, first, second = Cancel(), Watcher(), Watcher()
    outcome: list[object] = []

    def give_up() -> None:
        try:
            solved(store, launcher, head, BASE, watcher=first, cancel=cancel)
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=give_up)
    thread.start()
    _until(lambda: any(isinstance(e, VertexEvent) and e.name == head.name for e in first.events))
    other = threading.Thread(target=lambda: outcome.append(solved(store, launcher, head, BASE, watcher=second)[1]))  # fmt: skip
    other.start()
    _until(lambda: any(isinstance(e, StatusEvent) and "another build" in e.id for e in second.events))
    cancel.set()
    thread.join(10)
    other.join(20)
    assert isinstance(outcome[0], Cancelled)
    assert read(store, outcome[1].snapshot, "ok") == "ok\n"
    assert [e for e in first.events if isinstance(e, VertexEvent) and e.cancelled]


@row("SLV-05", "SLV-07")
def test_a_failure_ends_its_siblings_and_is_told_once(store: Store, launcher: Launcher) -> None:
    bad = run("sleep 0.2; exit 3", BASE, name="bad")
    long = run("sleep 60", BASE, name="long")
    users = [from_other(f"echo {n}", bad, name=f"user{n}") for n in range(2)]
    watcher = Watcher()
    began = time.monotonic()
    with pytest.raises(StepFailed) as caught:
        solved(store, launcher, from_other("true", *users, long), BASE, bad, long, *users, watcher=watcher)
    assert time.monotonic() - began < 10
    assert (caught.value.vertex_name, caught.value.exit_code) == ("bad", 3)
    assert caught.value.vertex_digest == str(bad.digest)
    errors = [e.name for e in watcher.events if isinstance(e, VertexEvent) and e.error and not e.cancelled]
    assert errors == ["bad"]
    assert [e.name for e in watcher.events if isinstance(e, VertexEvent) and e.cancelled] == ["long"]


@row("SLV-07")
def test_a_failure_is_tried_again_by_the_next_build(store: Store, launcher: Launcher) -> None:
    mount = Mount(dest="/c", type="cache", id="slv07")
    flaky = run("test -e /c/there || { touch /c/there; exit 1; }; echo x > /x", BASE, mounts=(mount,))
    with pytest.raises(SolveError):
        solved(store, launcher, flaky, BASE)
    watcher, _ = solved(store, launcher, flaky, BASE)
    assert flaky.name in watcher.ran()
    assert solved(store, launcher, flaky, BASE)[0].ran() == []


@row("SLV-06")
def test_a_record_without_data_is_passed_over_silently(store: Store, launcher: Launcher) -> None:
    head = run("date +%N > /n", BASE, name="head")
    first = solved(store, launcher, head, BASE)[1].snapshot
    store.prune(all=True)
    watcher, result = solved(store, launcher, head, BASE)
    assert "head" in watcher.ran()
    assert result.snapshot != first
    assert not any(type(event).__name__ == "WarningEvent" for event in watcher.events)
    # The newest of several records with the same key is the one that counts.
    anew = solved(store, launcher, meta(head, ignore_cache=True), BASE)[1].snapshot
    assert solved(store, launcher, head, BASE)[1].snapshot == anew != result.snapshot


@row("SLV-08")
def test_a_cache_that_cannot_be_had_never_fails_a_build(command, lab: Lab, tmp_path: Path) -> None:
    context = lab.context({"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "slv08"})
    done = command.build(context, f"--cache-from=type=local,src={tmp_path}/nowhere", "-t", "slv08")
    assert done.status == 0
    assert command.image_id("slv08")


@row("SLV-10")
def test_a_step_that_is_not_exported_is_cached_here(store: Store, launcher: Launcher) -> None:
    head = meta(run("echo 1 > /one", BASE, name="kept here"), export_cache=False)
    assert "kept here" in solved(store, launcher, head, BASE)[0].ran()
    assert solved(store, launcher, head, BASE)[0].ran() == []


@row("SLV-12")
def test_a_build_right_after_another_reuses_its_steps(lab: Lab) -> None:
    context = lab.context({"f": "slv12"})
    text = "FROM busybox\nCOPY f /f\nRUN cat /f\n"
    lab.build(context, text)
    lab.build(context, text, tags=("slv12:again",), labels=(("a", "b"),))
    assert lab.steps_run() == []


@row("SLV-13")
def test_a_candidate_counts_only_if_every_input_leads_to_it(store: Store, launcher: Launcher) -> None:
    def user(one: str, two: str) -> list[str]:
        inputs = [run(f"echo {text} > /f", BASE, name=text) for text in (one, two)]
        head = from_other("cat /in1/f /in2/f > /out", *inputs, name="user")
        watcher, result = solved(store, launcher, head, BASE, *inputs)
        assert read(store, result.snapshot, "out").split() == [one, two]
        return watcher.ran()

    assert "user" in user("a1", "b1")
    assert "user" in user("a2", "b2")
    assert "user" in user("a1", "b2"), "each input alone is known, together they are not"
    assert user("a2", "b2") == []


@row("SLV-15")
def test_a_step_without_candidates_runs_at_once(store: Store, launcher: Launcher) -> None:
    parent = run("echo new > /f", BASE)
    solved(store, launcher, from_other("cat /in1/f", parent, name="never seen"), BASE, parent)
    assert store.db.all("SELECT 1 FROM docs WHERE kind='content'") == []
    assert store.db.all("SELECT 1 FROM snapshots WHERE content_digest IS NOT NULL") == []


@row("SLV-18", "SLV-19")
def test_platforms_are_one_build_with_a_result_each(lab: Lab) -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN date +%N > /n\n"
        "FROM scratch\nCOPY --from=build /n /n\nARG TARGETARCH\nLABEL arch=$TARGETARCH\n"
    )
    result = lab.build(lab.context(), text, platforms=("linux/amd64", "linux/arm64"))
    ran = lab.watcher.ran()
    assert sum("RUN date" in name for name in ran) == 1
    assert sum("load metadata for" in name for name in ran) == 1
    built = {name: Built(lab, result, name) for name in ("linux/amd64", "linux/arm64")}
    assert {name: str(item.config.platform) for name, item in built.items()} == {n: n for n in built}
    assert {item.json["config"]["Labels"]["arch"] for item in built.values()} == {"amd64", "arm64"}
    assert result.metadata["containerimage.digest"] == result.digest
    index = json.loads(lab.store.blobs.read(Digest.parse(str(result.digest)), 1 << 20))
    assert [m["platform"]["architecture"] for m in index["manifests"]] == ["amd64", "arm64"]


@row("SLV-19")
def test_a_result_may_be_empty(lab: Lab) -> None:
    assert lab.quick("FROM scratch\nLABEL a=b\n").layers == 0
