"""Puts a build on record while it runs: its steps, how they went, and why they had to run (``why``).

A history that cannot be written never fails a build.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from builder.build import facts
from builder.build.buildlog import LogWriter
from builder.build.report import StepReport, StepStatus
from builder.build.request import BuildRequest, BuildResult
from builder.cache.history import BuildStatus
from builder.cache.store import Store
from builder.errors import Cancelled, PybuildError
from builder.exporter.types import OutputSpec
from builder.frontend.redact import redact
from builder.llb.ops import SourceOp
from builder.solver.progress import Event, OnEvent, VertexEvent, WarningEvent

if TYPE_CHECKING:
    from builder.build.why import Search
    from builder.solver.planning import Node, Nodes
    from builder.sources.contexts import PreparedContext
    from builder.sources.local import LocalContext


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
    _contexts: dict[str, LocalContext] = field(default_factory=dict)
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

    def prepared(self, prepared: PreparedContext) -> None:
        """The directories that the build takes files from."""
        self._contexts = dict(prepared.locals)
        if prepared.main is not None:
            self._contexts["context"] = prepared.main
        ignores = facts.ignores(self._contexts)
        if ignores:
            self._about["ignores"] = ignores

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
            inputs=result.inputs,
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
        with contextlib.suppress(OSError):
            with open(f"{path}.part", "xb") as file:
                file.write(zlib.compress(text.encode("utf-8", "surrogateescape"), 1))
            os.replace(f"{path}.part", path)  # who is killed meanwhile leaves none rather than half of one

    # --- steps

    def _reports(self) -> Iterator[StepReport]:
        waiting = [node for nodes in self._plans for node in nodes.values() if _is_step(node)]
        names = [redact(node.vertex.name) for node in waiting]
        status = [self._status(node) for node in waiting]
        with contextlib.ExitStack() as stack:
            why = self._why(names, stack) if any(state in ("ran", "failed") for state in status) else None
            for position, node in enumerate(waiting):
                state = status[position]
                report = StepReport(
                    name=names[position],
                    key=node.key,
                    status=state,
                    duration_ns=self._duration(node),
                    unsure=node.unsure,
                )
                nodes = next(plan for plan in self._plans if plan.get(node.vertex.digest) is node)
                if why is not None and state in ("ran", "failed"):
                    # Better a cause that is not told than a build that is not on record.
                    with contextlib.suppress(PybuildError, OSError):
                        report = replace(report, causes=why.causes(position, node, nodes))
                elif state == "cached" and node.remote is not None:
                    from builder.build.why import remember_parts

                    remember_parts(self.store, node, nodes)
                yield report

    def _why(self, names: list[str], stack: contextlib.ExitStack) -> Search:
        from builder.build.why import Search

        return Search(
            store=self.store,
            hold=stack.enter_context(self.store.hold()),
            request=self.request,
            about=self._about,
            build_id=self.id,
            names=names,
            contexts=self._contexts,
        )

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


def _is_step(node: Node) -> bool:
    return not isinstance(node.vertex.op, SourceOp)
