"""The scheduler: order, resources, failure and cancellation, with tasks that are only names."""

import random

import pytest

from builder.errors import GraphError
from builder.solver.scheduler import Cancelled, Failed, Finished, Scheduler, Task


def drive(scheduler, *, rng=None, fail=()):
    """Finish tasks in random order; returns the order of starts."""
    rng = rng or random.Random(1)
    order = list(scheduler.start())
    running = list(order)
    while running:
        task = running.pop(rng.randrange(len(running)))
        event = Failed(task) if task in fail else Finished(task)
        started = scheduler.handle(event)
        order += started
        running += started
    return order


def test_inputs_come_before_their_users():
    tasks = (Task(id="c", needs=("a", "b")), Task(id="a"), Task(id="b", needs=("a",)))
    scheduler = Scheduler(tasks)
    assert drive(scheduler) == ["a", "b", "c"]
    assert scheduler.complete
    assert scheduler.finished


def test_independent_tasks_start_together():
    tasks = (*(Task(id=f"s{n}") for n in range(6)), Task(id="join", needs=tuple(f"s{n}" for n in range(6))))
    assert len(Scheduler(tasks).start()) == 6


def test_resources_are_bounded():
    tasks = tuple(Task(id=f"s{n}", resource="exec") for n in range(5))
    scheduler = Scheduler(tasks, {"exec": 2})
    assert len(scheduler.start()) == 2
    assert len(scheduler.handle(Finished(next(iter(scheduler.running))))) == 1
    assert len(scheduler.running) == 2


def test_the_longest_way_goes_first():
    tasks = (
        Task(id="short"),
        Task(id="long"),
        Task(id="mid", needs=("long",)),
        Task(id="end", needs=("mid",)),
    )
    assert Scheduler(tasks, {"": 0}).start() == ["long", "short"]


def test_failure_drains():
    tasks = (Task(id="a"), Task(id="b"), Task(id="c", needs=("b",)))
    scheduler = Scheduler(tasks)
    scheduler.start()
    assert scheduler.handle(Failed("a")) == []
    assert not scheduler.finished
    assert scheduler.handle(Finished("b")) == []
    assert scheduler.finished
    assert not scheduler.complete


def test_keep_going_runs_what_does_not_depend_on_the_failure():
    tasks = (Task(id="a"), Task(id="b", needs=("a",)), Task(id="c"), Task(id="d", needs=("c",)))
    scheduler = Scheduler(tasks, keep_going=True)
    assert set(drive(scheduler, fail=("a",))) == {"a", "c", "d"}
    assert not scheduler.complete


def test_cancel_starts_nothing_more():
    scheduler = Scheduler((Task(id="a"), Task(id="b", needs=("a",))))
    scheduler.start()
    assert scheduler.handle(Cancelled()) == []
    assert scheduler.handle(Finished("a")) == []
    assert scheduler.finished


def test_a_cycle_is_refused():
    with pytest.raises(GraphError):
        Scheduler((Task(id="a", needs=("b",)), Task(id="b", needs=("a",))))


@pytest.mark.property
@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_run_each_task_once_after_its_inputs(seed):
    rng = random.Random(seed)
    count = rng.randrange(1, 40)
    tasks = tuple(
        Task(
            id=str(n),
            needs=tuple(str(m) for m in range(n) if rng.random() < 0.2),
            resource=rng.choice(["", "exec", "net"]),
        )
        for n in range(count)
    )
    scheduler = Scheduler(tasks, {"exec": 2, "net": 1})
    order = drive(scheduler, rng=rng)
    assert sorted(order, key=int) == [str(n) for n in range(count)]
    position = {task: index for index, task in enumerate(order)}
    assert all(position[need] < position[task.id] for task in tasks for need in task.needs)
    assert scheduler.complete
