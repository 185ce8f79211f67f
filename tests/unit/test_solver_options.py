"""Scheduling with weights, parked steps and keep-going; retries; shared limits; stop signals of threads."""

import threading
import time

import pytest

from builder import cancelling
from builder.cancelling import Cancel
from builder.errors import (
    Cancelled,
    PathNotFound,
    RegistryError,
    SeveralFailed,
    SolveError,
    SourceUnavailable,
    StepFailed,
)
from builder.llb.definition import LinuxResources
from builder.solver import scheduler as sched
from builder.solver.driver import raise_failures
from builder.solver.places import CountedPlace
from builder.solver.retrying import may_pass, retrying
from builder.solver.scheduler import Failed, Finished, Parked, Resumed, Scheduler, Task
from builder.solver.union import relaxed


def test_the_heaviest_way_goes_first():
    tasks = (
        Task(id="many"),
        *(Task(id=f"m{n}", needs=("many" if n == 0 else f"m{n - 1}",)) for n in range(3)),
        Task(id="heavy", weight=60),
    )
    assert Scheduler(tasks, {"": 0}).start() == ["heavy", "many"]


def test_a_parked_task_gives_its_place_to_another():
    tasks = (
        Task(id="a", resource="s", weight=3),
        Task(id="b", resource="s", weight=2),
        Task(id="c", resource="s"),
    )
    scheduler = Scheduler(tasks, {"s": 1})
    assert scheduler.start() == ["a"]
    assert scheduler.handle(Parked("a")) == ["b"]
    assert scheduler.running == {"a", "b"}
    assert scheduler.handle(Resumed("a")) == []
    assert scheduler.handle(Finished("b")) == ["a"], "what has begun and weighs more comes before c"
    assert scheduler.handle(Finished("a")) == ["c"]
    assert not scheduler.finished
    scheduler.handle(Finished("c"))
    assert scheduler.finished
    assert scheduler.complete


def test_a_parked_task_is_waited_for_when_all_else_is_over():
    scheduler = Scheduler((Task(id="a"), Task(id="b")), {})
    scheduler.start()
    scheduler.handle(Parked("a"))
    scheduler.handle(Failed("b"))
    assert not scheduler.finished
    scheduler.handle(Resumed("a"))
    assert not scheduler.finished
    scheduler.handle(Failed("a"))
    assert scheduler.finished


def test_keep_going_runs_all_that_does_not_need_the_failed_one():
    tasks = (
        Task(id="bad", resource="s"),
        Task(id="after", needs=("bad",)),
        Task(id="other", resource="s"),
        Task(id="end", needs=("other", "after")),
        Task(id="apart", needs=("other",)),
    )
    scheduler = Scheduler(tasks, {"s": 1}, keep_going=True)
    assert scheduler.start() == ["bad"]
    assert scheduler.handle(Failed("bad")) == ["other"]
    assert scheduler.handle(Finished("other")) == ["apart"]
    assert scheduler.handle(Finished("apart")) == []
    assert scheduler.finished
    assert not scheduler.complete


def test_cancelling_stops_a_build_that_keeps_going():
    scheduler = Scheduler((Task(id="a", resource="s"), Task(id="b", resource="s")), {"s": 1}, keep_going=True)
    scheduler.start()
    assert scheduler.handle(sched.Cancelled()) == []
    assert scheduler.handle(Failed("a")) == []
    assert scheduler.finished


def test_what_is_told_of_several_failures():
    one, two, stopped = SolveError("one"), SolveError("two"), Cancelled("x")
    with pytest.raises(SeveralFailed) as caught:
        raise_failures([stopped, one, two], every=True)
    assert caught.value.failures == (one, two)
    assert caught.value.message == "2 steps failed"
    for failures, every in (([stopped, one, two], False), ([one, stopped], True)):
        with pytest.raises(SolveError) as caught:
            raise_failures(failures, every=every)
        assert caught.value is one
    with pytest.raises(Cancelled):
        raise_failures([stopped], every=True)
    with pytest.raises(KeyError):
        raise_failures([one, KeyError("a bug")], every=True)
    raise_failures([], every=True)


def failing(times, error):
    left = [times]

    def call(last):
        if left[0]:
            left[0] -= 1
            raise error
        return last

    return call


def test_retries_until_it_works_and_says_so():
    said = []
    step = StepFailed("boom", exit_code=1)
    assert retrying(failing(2, step), 2, say=said.append, first_wait_s=0.01) is True
    assert said[0] == "attempt 1 of 3 failed: boom; trying again in 0.01s\n"
    assert said[1].startswith("attempt 2 of 3 failed: boom; trying again in 0.02s")
    with pytest.raises(StepFailed):
        retrying(failing(3, step), 2, say=said.append, first_wait_s=0.01)
    assert retrying(failing(0, step), 0, say=said.append) is True


def test_what_cannot_pass_is_not_tried_again():
    calls = []

    def call(last):
        calls.append(last)
        raise PathNotFound("gone", path="x")

    with pytest.raises(PathNotFound):
        retrying(call, 5, say=calls.append)
    assert calls == [False]
    refused = SourceUnavailable("x")
    refused.__cause__ = RegistryError("x")
    refused.__cause__.code = "registry-unauthorized"
    assert not may_pass(refused)
    assert not may_pass(SourceUnavailable("x", code="checksum-mismatch"))
    assert may_pass(SourceUnavailable("x", code="git-failed"))


def test_a_cancelled_build_is_not_tried_again():
    cancel = Cancel()
    threading.Timer(0.1, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        retrying(
            failing(9, StepFailed("x", exit_code=1)), 9, say=lambda _: None, cancel=cancel, first_wait_s=60
        )
    assert time.monotonic() - began < 5


def test_limits_of_a_shared_step_are_the_widest():
    one = LinuxResources(
        memory_bytes=10, cpu_quota=50_000, cpuset_cpus="0-1", cpu_shares=5, memory_swap_bytes=9
    )
    two = LinuxResources(
        memory_bytes=20, cpu_quota=100_000, cpu_period=400_000, cpuset_cpus="3", memory_swap_bytes=-1
    )
    assert relaxed(one, two) == LinuxResources(
        memory_bytes=20, cpu_quota=50_000, cpuset_cpus="0-1,3", cpu_shares=0, memory_swap_bytes=-1
    )
    assert relaxed(one, two) == relaxed(two, one).__class__(
        memory_bytes=20, cpu_quota=50_000, cpuset_cpus="0-1,3", memory_swap_bytes=-1
    )
    assert relaxed(one, None) is None


def test_the_signal_in_force_is_carried_into_threads():
    cancel, seen = Cancel(), []
    with cancelling.within(cancel):
        task = cancelling.carried(lambda: seen.append(cancelling.current()))
    assert cancelling.current() is None
    thread = threading.Thread(target=task)
    thread.start()
    thread.join()
    assert seen == [cancel]


def test_a_call_that_nothing_wakes_is_left_behind():
    cancel, late, go = Cancel(), [], threading.Event()

    def call():
        go.wait(10)
        return "too late"

    with cancelling.within(cancel):
        threading.Timer(0.1, cancel.set).start()
        with pytest.raises(Cancelled):
            cancelling.interruptible(call, late.append)
        go.set()
        end = time.monotonic() + 5
        while not late and time.monotonic() < end:
            time.sleep(0.01)
        assert late == ["too late"]
    assert cancelling.interruptible(lambda: 5, late.append) == 5
    with cancelling.within(Cancel()):
        assert cancelling.interruptible(lambda: 6, late.append) == 6
        with pytest.raises(ZeroDivisionError):
            cancelling.interruptible(lambda: 1 // 0, late.append)


def test_a_place_that_was_not_left_is_not_waited_for():
    events = []
    place = CountedPlace(lambda: events.append("parked"), lambda: events.append("resumed"), Cancel())
    place.take()
    assert events == []
    place.leave()
    place.leave()
    thread = threading.Thread(target=place.take)
    thread.start()
    place.grant()
    thread.join(5)
    assert not thread.is_alive()
    assert events == ["parked", "resumed"]


def test_who_waits_for_a_place_sees_the_end_of_the_build():
    cancel = Cancel()
    place = CountedPlace(lambda: None, lambda: None, cancel)
    place.leave()
    threading.Timer(0.1, cancel.set).start()
    with pytest.raises(Cancelled):
        place.take()
