"""The solver on real containers: what runs, what does not, what is left behind."""

import os
import threading
import time
from pathlib import Path

import pytest

from builder.cache.store import Store
from builder.cache.tree import View
from builder.errors import Cancelled, SolveError, StepFailed
from builder.llb.ops import Mount, SecretEnv
from builder.solver.solver import solve
from builder.solver.types import Cancel, Secret
from runtime.launcher import Launcher
from tests.support.solving import BASE, Watcher, definition, env_for, run

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def launcher():
    with Launcher.start() as launcher:
        yield launcher


@pytest.fixture()
def store(tmp_path):
    with Store.open(tmp_path / "root") as store:
        yield store


def read(store, snapshot, path):
    with View(store.snapshots.layers(snapshot)) as view:
        return view.read(path, 1 << 20).decode()


def changed(own):
    """Every file of a difference; a directory that was only copied up counts for nothing."""
    return sorted(
        os.path.relpath(os.path.join(d, name), own) for d, _, names in os.walk(own) for name in names
    )


def test_a_run_sees_its_base_and_its_changes_are_the_result(store, launcher):
    first = run("echo one > /a", BASE)
    second = run("cat /a > /b && echo two >> /b", first)
    watcher = Watcher()
    with env_for(store, launcher, watcher) as env:
        solved = solve(definition(second, BASE, first), env)
        assert read(store, solved.snapshot, "b") == "one\ntwo\n"
    assert watcher.ran() == ["base", "echo one > /a", "cat /a > /b && echo two >> /b"]


def test_a_second_solve_runs_nothing(store, launcher):
    head = run("date > /now", BASE)
    with env_for(store, launcher) as env:
        first = solve(definition(head, BASE), env)
    watcher = Watcher()
    with env_for(store, launcher, watcher) as env:
        second = solve(definition(head, BASE), env)
        assert env.sources.fetched == 0
    assert first.snapshot == second.snapshot
    assert watcher.ran() == []
    assert second.cached_steps == second.total_steps == 1


def test_independent_steps_run_at_the_same_time(store, launcher):
    sleeps = [run(f"sleep 0.6; echo {n} > /{n}", BASE) for n in range(4)]
    mounts = tuple(Mount(dest=f"/in{n}", input=n + 1, readonly=True) for n in range(4))
    join = run("cat /in*/[0-9] > /all", BASE, *sleeps, mounts=mounts)
    with env_for(store, launcher) as env:
        began = time.monotonic()
        solved = solve(definition(join, BASE, *sleeps), env)
        assert time.monotonic() - began < 1.8
        assert read(store, solved.snapshot, "all") == "0\n1\n2\n3\n"


def test_a_failing_step_names_itself_and_is_not_cached(store, launcher):
    head = run("echo before; exit 13", BASE, name="[2/2] RUN exit 13")
    with env_for(store, launcher) as env, pytest.raises(StepFailed) as caught:
        solve(definition(head, BASE), env)
    assert caught.value.exit_code == 13
    assert caught.value.vertex_name == "[2/2] RUN exit 13"
    assert "exit code: 13" in caught.value.message
    assert caught.value.log_tail == ("before",)
    watcher = Watcher()
    with env_for(store, launcher, watcher) as env, pytest.raises(StepFailed):
        solve(definition(head, BASE), env)
    assert "before" in watcher.log()


def test_one_failure_stops_the_others_slv_05(store, launcher):
    slow, bad = run("sleep 30", BASE), run("sleep 0.2; false", BASE)
    join = run("true", BASE, slow, bad, mounts=(Mount(dest="/x", input=1), Mount(dest="/y", input=2)))
    with env_for(store, launcher) as env, pytest.raises(StepFailed):
        began = time.monotonic()
        solve(definition(join, BASE, slow, bad), env)
    assert time.monotonic() - began < 10


def test_cancel_stops_the_running_step_and_leaves_nothing(store, launcher):
    head = run("sleep 30", BASE)
    cancel = Cancel()
    threading.Timer(0.5, cancel.set).start()
    with env_for(store, launcher, cancel=cancel) as env, pytest.raises(Cancelled):
        solve(definition(head, BASE), env)
    assert [info.kind for info in store.snapshots.list()] == ["committed"]
    assert str(store.root) not in Path("/proc/self/mountinfo").read_text()


def test_secrets_reach_the_step_and_nothing_else(store, launcher):
    mount = Mount(dest="/run/secrets/token", type="secret", id="token")
    head = run(
        'test "$(cat /run/secrets/token)" = "hun${EMPTY}ter2" && test "$TOKEN" = "hun${EMPTY}ter2" && id > /who',
        BASE,
        mounts=(mount,),
        secret_env=(SecretEnv(id="token", name="TOKEN"),),
    )
    with env_for(store, launcher, secrets=(Secret(id="token", data=b"hunter2"),)) as env:
        solved = solve(definition(head, BASE), env)
        own, _ = store.snapshots.diff_dir(solved.snapshot)
        assert changed(own) == ["who"]
    store.close()
    for directory, _, names in os.walk(store.root):
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                assert b"hunter2" not in file.read()


def test_a_required_secret_that_is_not_given_fails_mnt_12(store, launcher):
    head = run("true", BASE, mounts=(Mount(dest="/run/secrets/t", type="secret", id="t"),))
    with env_for(store, launcher) as env, pytest.raises(SolveError, match="secret t: not found"):
        solve(definition(head, BASE), env)


def test_host_network_needs_an_entitlement_ent_02(store, launcher):
    head = run("true", BASE, network="host")
    with env_for(store, launcher) as env, pytest.raises(SolveError, match=r"network\.host is not allowed"):
        solve(definition(head, BASE), env)


def test_a_cache_mount_keeps_its_content_and_is_not_in_the_layer(store, launcher):
    mount = Mount(dest="/cache", type="cache", id="c")
    first, second = (
        run(f"echo {n} >> /cache/log; cat /cache/log > /seen", BASE, mounts=(mount,)) for n in "ab"
    )
    with env_for(store, launcher) as env:
        solve(definition(first, BASE), env)
        solved = solve(definition(second, BASE), env)
        assert read(store, solved.snapshot, "seen") == "a\nb\n"
        own, _ = store.snapshots.diff_dir(solved.snapshot)
        assert changed(own) == ["seen"]


def test_generated_files_do_not_show_in_the_layer_exe_04(store, launcher):
    head = run("cat /etc/hosts /etc/resolv.conf > /seen; ls /proc/self/fd | wc -l", BASE)
    with env_for(store, launcher) as env:
        solved = solve(definition(head, BASE), env)
        own, _ = store.snapshots.diff_dir(solved.snapshot)
        assert changed(own) == ["seen"]
        assert "localhost" in read(store, solved.snapshot, "seen")


def test_a_step_that_ran_anew_with_equal_output_stops_there(store, launcher):
    def graph(note):
        first = run(f"true {note}; echo same > /out", BASE)
        return definition(run("cat /out; date > /stamp", first, name="after"), BASE, first)

    with env_for(store, launcher) as env:
        one = solve(graph("a"), env)
    watcher = Watcher()
    with env_for(store, launcher, watcher) as env:
        two = solve(graph("b"), env)
    assert one.snapshot == two.snapshot
    assert "after" in watcher.cached()


def test_two_processes_of_one_build_run_each_step_once(store, launcher):
    head = run("sleep 0.4; echo x >> /cache/ran; wc -l < /cache/ran > /count", BASE,
               mounts=(Mount(dest="/cache", type="cache", id="count"),))  # fmt: skip
    results = []

    def work():
        with Store.open(store.root) as own, env_for(own, launcher) as env:
            results.append(solve(definition(head, BASE), env).snapshot)

    with env_for(store, launcher) as env:
        env.sources.fetch(BASE.op, None, None, None)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert read(store, results[0], "count") == "1\n"
