"""Which step may run now: a pure state machine. It is told one event at a time and answers what to start.

One thread calls it; it has no lock, clock or I/O. A step may run once all its inputs are there; steps with
the longest way to the end go first; a named resource bounds how many of a kind run at once. A step that only
waits (for another process, say) gives its place back meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from builder.errors import GraphError


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A step to be done: what it waits for and which resource it takes ('' = none).

    ``weight`` is how long it may take, in any unit that all tasks share.
    """

    id: str
    needs: tuple[str, ...] = ()
    resource: str = ""
    weight: float = 1


@dataclass(frozen=True, slots=True)
class Finished:
    """A started task is done."""

    id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A started task failed: nothing new starts, or with ``keep_going`` nothing that needs it."""

    id: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A started task waits for something outside and takes no place meanwhile."""

    id: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """A parked task could go on: it is started again once there is a place."""

    id: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The build is to stop."""


Event = Finished | Failed | Parked | Resumed | Cancelled


class Scheduler:
    """The state of one build's tasks. ``start`` and ``handle`` return the ids to start now, in order."""

    def __init__(
        self, tasks: tuple[Task, ...], slots: Mapping[str, int] | None = None, *, keep_going: bool = False
    ) -> None:
        self._tasks = {task.id: task for task in tasks}
        if len(self._tasks) != len(tasks):
            raise GraphError("a task is listed twice")
        self._slots = dict(slots or {})
        self._keep_going = keep_going
        self._missing = {task.id: {need for need in task.needs if need in self._tasks} for task in tasks}
        self._users: dict[str, list[str]] = {task.id: [] for task in tasks}
        for task in tasks:
            for need in self._missing[task.id]:
                self._users[need].append(task.id)
        self._priority = self._ways()
        self._ready = [task.id for task in tasks if not self._missing[task.id]]
        self._running: set[str] = set()
        self._parked: set[str] = set()
        self._done: set[str] = set()
        self._failed: set[str] = set()
        self._draining = False

    def start(self) -> list[str]:
        """The first tasks."""
        return self._next()

    def handle(self, event: Event) -> list[str]:
        """Take one event; returns what to start."""
        match event:
            case Finished(task):
                self._end(task)
                self._done.add(task)
                for user in self._users[task]:
                    self._missing[user].discard(task)
                    if not self._missing[user]:
                        self._ready.append(user)
            case Failed(task):
                self._end(task)
                self._failed.add(task)
                self._draining = self._draining or not self._keep_going
            case Parked(task):
                self._running.remove(task)
                self._parked.add(task)
            case Resumed(task):
                self._ready.append(task)
            case Cancelled():
                self._draining = True
            case _:
                assert_never(event)
        return self._next()

    @property
    def running(self) -> frozenset[str]:
        """Tasks that were started and have not reported their end; parked ones count."""
        return frozenset(self._running | self._parked)

    @property
    def finished(self) -> bool:
        """Nothing runs and nothing more will start."""
        return not self._running and not self._parked and (self._draining or not self._ready)

    @property
    def complete(self) -> bool:
        """Every task is done."""
        return len(self._done) == len(self._tasks)

    def _end(self, task: str) -> None:
        self._running.discard(task)
        self._parked.discard(task)
        if task in self._ready:  # it ended while it waited for its place
            self._ready.remove(task)

    def _next(self) -> list[str]:
        if self._draining or not self._ready:
            return []
        self._ready.sort(key=lambda task: -self._priority[task])
        used: dict[str, int] = {}
        for task in self._running:
            resource = self._tasks[task].resource
            used[resource] = used.get(resource, 0) + 1
        started: list[str] = []
        waiting: list[str] = []
        for task in self._ready:
            resource = self._tasks[task].resource
            limit = self._slots.get(resource, 0) if resource else 0
            if limit and used.get(resource, 0) >= limit:
                waiting.append(task)
                continue
            used[resource] = used.get(resource, 0) + 1
            started.append(task)
        self._ready = waiting
        self._running.update(started)
        self._parked.difference_update(started)
        return started

    def _ways(self) -> dict[str, float]:
        """Weight of the heaviest way from each task, itself included, to one that nobody waits for.

        Raises GraphError on a cycle.
        """
        way: dict[str, float] = {}
        waiting = {task: len(users) for task, users in self._users.items()}
        front = [task for task, count in waiting.items() if count == 0]
        behind = dict.fromkeys(self._tasks, 0.0)
        while front:
            task = front.pop()
            way[task] = behind[task] + self._tasks[task].weight
            for need in self._missing[task]:
                behind[need] = max(behind[need], way[task])
                waiting[need] -= 1
                if waiting[need] == 0:
                    front.append(need)
        if len(way) != len(self._tasks):
            raise GraphError("the graph has a cycle")
        return way
