"""What is kept about a build that ran: its steps, how long each took, and why it had to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from builder.cache.history import BuildRow, BuildStatus
from builder.cache.store import Store
from builder.errors import UsageError
from builder.solver.causes import Cause

StepStatus = Literal["cached", "ran", "failed", "canceled", "waiting"]
_STATUSES = ("cached", "ran", "failed", "canceled")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step. ``causes`` say why it was not taken from the cache; ``waiting`` steps were not reached or
    not needed. ``unsure`` results were not kept, because files changed while they were read.
    """

    name: str
    key: str = ""
    status: StepStatus = "waiting"
    duration_ns: int = 0
    unsure: bool = False
    causes: tuple[Cause, ...] = ()

    @property
    def number(self) -> int:
        """The 2 of ``[build 2/3] RUN make``; 0 for a step that has no number."""
        label = self.name[1:].partition("] ")[0] if self.name.startswith("[") else ""
        number = label.rpartition("/")[0].rpartition(" ")[2]
        return int(number) if number.isdigit() else 0

    def to_json(self) -> dict[str, Any]:
        """As kept in the history."""
        return {
            "name": self.name,
            "key": self.key,
            "status": self.status,
            "ns": self.duration_ns,
            **({"unsure": True} if self.unsure else {}),
            **({"causes": [cause.to_json() for cause in self.causes]} if self.causes else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepReport:
        """Back from ``to_json``."""
        causes = (Cause.from_json(item) for item in data.get("causes") or ())
        status = data.get("status")
        return cls(
            name=str(data.get("name", "")),
            key=str(data.get("key", "")),
            status=status if status in _STATUSES else "waiting",
            duration_ns=int(data.get("ns", 0)),
            unsure=bool(data.get("unsure")),
            causes=tuple(cause for cause in causes if cause is not None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """One build of the history; times are Unix nanoseconds."""

    id: str
    status: BuildStatus
    created_ns: int
    completed_ns: int | None = None
    context: str = ""
    dockerfile: str = ""
    target: str = ""
    tags: tuple[str, ...] = ()
    image_id: str = ""
    error: str = ""
    steps: tuple[StepReport, ...] = ()

    def find_steps(self, text: str) -> tuple[StepReport, ...]:
        """The steps that ``text`` means: their number as shown, or a part of a name. Raises UsageError."""
        if text.isdigit():
            found = tuple(step for step in self.steps if step.number == int(text))
        else:
            found = tuple(step for step in self.steps if text.lower() in step.name.lower())
        if not found:
            raise UsageError(
                f"build {self.id} has no step {text!r}",
                hint="a step's number or a part of its name",
                code="no-such-step",
            )
        return found


def report_of(row: BuildRow) -> BuildReport:
    """The report that a row of the history holds."""
    data = row.data
    return BuildReport(
        id=row.id,
        status=row.status,
        created_ns=row.created_ns,
        completed_ns=row.completed_ns,
        context=str(data.get("context", "")),
        dockerfile=str(data.get("dockerfile", "")),
        target=str(data.get("target", "")),
        tags=tuple(data.get("tags") or ()),
        image_id=str(data.get("image_id", "")),
        error=str(data.get("error", "")),
        steps=tuple(StepReport.from_json(item) for item in data.get("steps") or ()),
    )


def reports(store: Store, *, limit: int | None = None) -> tuple[BuildReport, ...]:
    """The builds of the history, running ones first, then the newest."""
    return tuple(report_of(row) for row in store.builds.list(limit=limit, recalled=False))


def find_report(store: Store, build_id: str = "") -> BuildReport:
    """A build as ``history.find`` finds it; without a name, the newest that has ended. Raises UsageError."""
    if build_id:
        from builder.build.history import find_row

        return report_of(find_row(store, build_id))
    for row in store.builds.list(limit=50, recalled=False):
        if row.status != "running":
            return report_of(row)
    raise UsageError(
        "no build is on record",
        hint="builds that were answered from the cache whole are not",
        code="no-such-build",
    )
