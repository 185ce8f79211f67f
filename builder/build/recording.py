"""Puts a build on record while it runs, and finds out why its steps had to run.

A step is compared with the step that it corresponds to in the last builds of the same context, else with the
nearest cache record. A history that cannot be written never fails a build.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from builder.build import facts
from builder.build.buildlog import LogWriter
from builder.build.report import BuildReport, StepReport, StepStatus, report_of
from builder.build.request import BuildRequest, BuildResult
from builder.cache.history import BuildStatus
from builder.cache.store import Store
from builder.errors import Cancelled, PybuildError
from builder.exporter.types import OutputSpec
from builder.frontend.redact import redact
from builder.llb.ops import SourceOp
from builder.oci.digest import Digest
from builder.solver.causes import Cause
from builder.solver.progress import Event, OnEvent, VertexEvent, WarningEvent

if TYPE_CHECKING:
    from builder.solver.planning import Node, Nodes

_ROWS = 20
_EARLIER = 3
_NEAR_STEPS = 50


@dataclass(slots=True)
class Recorder:
    """The record of one build; an ``OnEvent`` that passes everything on."""

    store: Store
    request: BuildRequest
    emit: OnEvent
    outputs: tuple[OutputSpec, ...] = ()
    id: str = ""
    steps: tuple[StepReport, ...] = ()
    _about: dict[str, Any] = field(default_factory=dict)
    _log: LogWriter | None = None
    _warnings: int = 0
    _plans: list[Nodes] = field(default_factory=list)
    _events: dict[str, VertexEvent] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Write down, remember how every step stands, and pass on."""
        if isinstance(event, VertexEvent):
            self._events[event.digest] = event
        elif isinstance(event, WarningEvent):
            self._warnings += 1
        if self._log is not None:
            self._log.add(event)
        self.emit(event)

    def planned(self, nodes: Nodes) -> None:
        """All steps of one platform with their keys."""
        self._plans.append(nodes)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """The build is what happens inside."""
        self.id = self.request.build_id or secrets.token_hex(8)
        self._about = facts.about(self.request, self.outputs)
        with contextlib.suppress(PybuildError):
            self.store.builds.add(self.id, self._about)
            hidden = tuple(secret.data for secret in self.request.secrets)
            self._log = LogWriter(f"{self.store.builds.directory(self.id)}/log", secrets=hidden)
        try:
            yield
        except Cancelled as error:
            self._finish("canceled", **facts.failure(error))
            raise
        except BaseException as error:
            self._finish("error", **facts.failure(error))
            raise
        finally:
            if self._log is not None:
                self._log.close()

    def done(self, result: BuildResult) -> None:
        """The build has ended well."""
        self._finish(
            "completed",
            image_id=result.image_id or "",
            digest=result.digest or "",
            response=result.metadata,
        )

    def _finish(self, status: BuildStatus, **more: Any) -> None:
        with contextlib.suppress(PybuildError):
            self.steps = tuple(self._reports())
            steps = [step.to_json() for step in self.steps]
            if self._log is not None:
                self._log.close()
                self._write_definition()
            self.store.builds.finish(
                self.id,
                status,
                {**self._about, **more, "counts": self._counts(), "steps": steps},
                max_builds=self.request.history.max_builds,
                max_age_ns=self.request.history.max_age_s * 1_000_000_000,
            )

    def _counts(self) -> dict[str, int]:
        """Of all steps that were shown, as the reference counts them."""
        shown = self._events.values()
        return {
            "total": len(shown),
            "cached": sum(event.cached for event in shown),
            "completed": sum(event.completed_ns is not None for event in shown),
            "warnings": self._warnings,
        }

    def _write_definition(self) -> None:
        import zlib

        vertices = {node.vertex.digest: node.vertex for nodes in self._plans for node in nodes.values()}
        if not vertices:
            return
        text = "".join(f"{line}\n" for line in facts.definition_lines(vertices.values()))
        path = f"{self.store.builds.directory(self.id)}/definition"
        with contextlib.suppress(OSError), open(path, "xb") as file:
            file.write(zlib.compress(text.encode("utf-8", "surrogateescape"), 1))

    # --- steps

    def _reports(self) -> Iterator[StepReport]:
        waiting = [node for nodes in self._plans for node in nodes.values() if _is_step(node)]
        names = [redact(node.vertex.name) for node in waiting]
        status = [self._status(node) for node in waiting]
        ran = any(state in ("ran", "failed") for state in status)
        why = _Search(self.store, self.id, self._about, names) if ran else None
        for position, node in enumerate(waiting):
            state = status[position]
            report = StepReport(
                name=names[position],
                key=node.key,
                status=state,
                duration_ns=self._duration(node),
                unsure=node.unsure,
            )
            if why is not None and state in ("ran", "failed"):
                nodes = next(plan for plan in self._plans if plan.get(node.vertex.digest) is node)
                report = replace(report, causes=why.causes(position, node, nodes))
            yield report

    def _status(self, node: Node) -> StepStatus:
        event = self._events.get(str(node.vertex.digest))
        if event is None or event.completed_ns is None:
            return "waiting"
        if event.cached:
            return "cached"
        if event.cancelled:
            return "canceled"
        return "failed" if event.error else "ran"

    def _duration(self, node: Node) -> int:
        event = self._events.get(str(node.vertex.digest))
        if event is None or event.cached or event.completed_ns is None:
            return 0
        return max(0, event.completed_ns - (event.started_ns or event.completed_ns))


class _Search:
    """Looks for what the steps of one build can be compared with."""

    def __init__(self, store: Store, build_id: str, about: dict[str, Any], names: list[str]) -> None:
        from builder.solver.explain import match_steps

        self._store = store
        self._files: dict[str, Any] = {}
        self._near_left = _NEAR_STEPS
        found = self._builds(build_id, about, set(names))
        self._earlier = [
            (report, match_steps(names, [step.name for step in report.steps])) for report in found
        ]

    def causes(self, position: int, node: Node, nodes: Nodes) -> tuple[Cause, ...]:
        """Why ``node`` had to run."""
        from builder.solver.explain import nearest
        from builder.solver.planning import record_parts

        if node.vertex.meta.ignore_cache:
            return (Cause("no-cache"),)
        earlier = [report.steps[pairs[position]] for report, pairs in self._earlier if position in pairs]
        same = next((step for step in earlier if step.key == node.key), None)
        if same is not None or node.tainted:
            return _same_key(node, nodes, same)
        known = [step.key for step in earlier if step.status in ("ran", "cached") and not step.unsure]
        parts = record_parts(node, nodes, {})
        found = nearest(
            parts, filter(None, map(self._store.records.parts, dict.fromkeys(known))), self._selected
        )
        return (
            found
            or nearest(parts, self._near(node), self._selected)
            or ((Cause("gone"),) if known else (Cause("new"),))
        )

    def _near(self, node: Node) -> Iterator[dict[str, Any]]:
        if self._near_left <= 0:
            return
        self._near_left -= 1
        for record in self._store.records.near(node.op, node.vertex.name):
            if record.key != node.key:
                yield record.parts

    def _selected(self, digest: str) -> Any:
        from builder.build.sources import selected_files

        if digest not in self._files:
            self._files[digest] = selected_files(self._store, digest)
        return self._files[digest]

    def _builds(self, build_id: str, about: dict[str, Any], names: set[str]) -> list[BuildReport]:
        """The last builds of the same context and Dockerfile, else those that had most of the same steps."""
        rows = self._store.builds.list(limit=_ROWS, recalled=False)
        reports = [report_of(row) for row in rows if row.id != build_id and row.status != "running"]
        reports = [report for report in reports if report.steps]
        same = [
            report
            for report in reports
            if about["context"] != "-"
            and (report.context, report.dockerfile) == (about["context"], about["dockerfile"])
        ]
        if not same:
            half = len(names) / 2
            same = [report for report in reports if len(names & {step.name for step in report.steps}) >= half]
        return same[:_EARLIER]


def _is_step(node: Node) -> bool:
    return not isinstance(node.vertex.op, SourceOp)


def _same_key(node: Node, nodes: Nodes, same: StepReport | None) -> tuple[Cause, ...]:
    """Nothing that it is made of has changed, and still there was no result to take."""
    inputs: list[Digest] = [edge.digest for edge in node.vertex.inputs]
    if node.tainted:
        anew = (nodes[digest] for digest in inputs if nodes[digest].tainted)
        return tuple(dict.fromkeys(Cause("upstream", item.vertex.name) for item in anew))
    unsure = next((nodes[digest].vertex.name for digest in inputs if nodes[digest].unsure), "")
    if same is not None and same.unsure:
        return (Cause("unstable"),)
    if unsure:
        return (Cause("upstream", unsure),)
    if same is not None and same.status not in ("ran", "cached"):
        return (Cause("unfinished"),)
    return (Cause("gone"),)
