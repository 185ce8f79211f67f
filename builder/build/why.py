"""Finds out why the steps of a build had to run.

A step is compared with the step that it corresponds to in the last builds of the same context, and of these
with the one that differs least; where there are none, with the nearest cache records. An input whose key is
another but whose content is not is no cause (early cut-off).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builder.build.looking import Look
from builder.build.report import BuildReport, StepReport, report_of
from builder.build.request import BuildRequest
from builder.build.sources import selected_files, selection_name
from builder.cache.holds import Hold
from builder.cache.store import Store
from builder.frontend.platformargs import PLATFORM_ARGS
from builder.oci.digest import Digest
from builder.solver.causes import Cause
from builder.solver.cutoff import is_same_input
from builder.solver.explain import INLINE, Parts, diff, nearest
from builder.solver.filecauses import Files, Listing
from builder.solver.planning import Node, Nodes, copies_of, record_parts
from builder.solver.steppairs import match_steps, stage_of, text_of
from builder.sources.local import LocalContext

_ROWS = 40
_EARLIER = 6
_NEAR_STEPS = 50
_PARTS = "step-parts"
_ENDED = ("ran", "cached")


@dataclass(frozen=True, slots=True)
class _Earlier:
    """A build of before, which of its steps each step of this one corresponds to, and its ignore files."""

    report: BuildReport
    pairs: dict[int, int]
    ignores: Mapping[str, list[str]]


@dataclass(slots=True, kw_only=True)
class Search:
    """Looks for what the steps of one build can be compared with. Ask for the steps in their order."""

    store: Store
    hold: Hold
    request: BuildRequest
    about: Mapping[str, Any]
    build_id: str
    names: list[str]
    contexts: Mapping[str, LocalContext]
    _files: dict[str, Listing | None] = field(default_factory=dict)
    _told: dict[Digest, tuple[Cause, ...]] = field(default_factory=dict)
    _near_left: int = _NEAR_STEPS
    _earlier: list[_Earlier] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = self.store.builds.list(limit=_ROWS)
        ignores = {row.id: row.data.get("ignores") or {} for row in rows}
        reports = [report_of(row) for row in rows if row.id != self.build_id and row.status != "running"]
        for report in self._comparable([report for report in reports if report.steps]):
            pairs = match_steps(self.names, [step.name for step in report.steps])
            self._earlier.append(_Earlier(report, pairs, ignores[report.id]))

    def causes(self, position: int, node: Node, nodes: Nodes) -> tuple[Cause, ...]:
        """Why ``node`` had to run; () for one that failed before it was known what it is made of."""
        found = self._causes(position, node, nodes)
        inline = tuple(
            cause
            for edge in node.vertex.inputs
            if nodes[edge.digest].vertex.name == INLINE
            for cause in self._told.get(edge.digest, ())
        )
        found = tuple(cause for outer in found for cause in (outer.subject == INLINE and inline) or (outer,))
        found = tuple(dict.fromkeys(map(self._noted, found)))
        self._told[node.vertex.digest] = found
        return found

    def _causes(self, position: int, node: Node, nodes: Nodes) -> tuple[Cause, ...]:
        if not node.key:
            return ()  # it failed before anything could be asked
        if node.vertex.meta.ignore_cache:
            return (Cause("no-cache", self._asked()),)
        earlier = [
            (build.report.steps[build.pairs[position]], build)
            for build in self._earlier
            if position in build.pairs
        ]
        same = next((step for step, _ in earlier if step.key == node.key), None)
        if same is not None or node.tainted:
            return _same_key(node, nodes, same)
        known: dict[str, _Earlier] = {}
        stage = stage_of(self.names[position])
        for step, build in sorted(earlier, key=lambda pair: stage_of(pair[0].name) != stage):
            if _has_result(step):
                known.setdefault(step.key, build)
        parts = record_parts(node, nodes, {})
        found = nearest(self._differences(parts, node, nodes, build, key) for key, build in known.items())
        if found:
            return tuple(self._counterparts(found))
        if known:
            return (Cause("gone"),)
        if earlier and earlier[0][0].status in ("failed", "canceled"):
            return (Cause("unfinished"),)
        new = Cause("new", note="no imported cache has it either" if self.request.cache_from else "")
        if self._earlier:
            return (new,)
        return nearest(diff(item, parts, self._selected(node)) for item in self._near(node)) or (new,)

    # --- one comparison

    def _differences(
        self, parts: Parts, node: Node, nodes: Nodes, build: _Earlier, key: str
    ) -> tuple[Cause, ...]:
        before = self.store.records.parts(key) or self._remembered(key)
        if not before:
            return ()

        def same(position: int, old: Parts) -> bool:
            snapshot = old.get("snapshot") or self._result(str(old.get("key")))
            now = _output(node, position, nodes)
            return bool(snapshot) and is_same_input(node, position, str(snapshot), now, self.store, self.hold)

        look = Look(self.contexts, build.ignores)
        found = diff(before, parts, self._selected(node), same=same, refine=look.refine)
        return found or diff(before, parts, self._selected(node), refine=look.refine)

    def _remembered(self, key: str) -> dict[str, Any]:
        data = self.store.doc(_PARTS, key)
        return json.loads(data) if data is not None else {}

    def _result(self, key: str) -> str:
        """The snapshot that a key (``KEY@OUTPUT``) leads to; "" when that is not known."""
        name, _, output = key.partition("@")
        outputs = self.store.records.outputs([name]).get(name, "").split(",")
        index = int(output or 0)
        return outputs[index] if index < len(outputs) and outputs[index] != "-" else ""

    def _selected(self, node: Node) -> Files:
        def files(digest: str, position: int) -> Listing | None:
            name = selection_name(digest, copies_of(node.vertex, position))
            if name not in self._files:
                self._files[name] = selected_files(self.store, name)
            return self._files[name]

        return files

    # --- telling

    def _counterparts(self, found: tuple[Cause, ...]) -> Iterator[Cause]:
        """A step that took the place of the one it corresponds to has changed; another is named with it."""
        for cause in found:
            if cause.kind == "upstream" and cause.before and self._replaced(cause.after, cause.before):
                yield Cause("upstream", cause.subject)
            else:
                yield cause

    def _replaced(self, now: str, before: str) -> bool:
        if now not in self.names:
            return False
        position = self.names.index(now)
        return any(
            text_of(build.report.steps[build.pairs[position]].name) == text_of(before)
            for build in self._earlier
            if position in build.pairs
        )

    def _noted(self, cause: Cause) -> Cause:
        gone = bool(cause.before) and not cause.after
        if cause.kind != "argument" or gone or cause.subject in PLATFORM_ARGS:
            return cause
        given = any(name == cause.subject for name, _ in self.request.build_args)
        return replace(cause, note="given with --build-arg" if given else "the default in the Dockerfile")

    def _asked(self) -> str:
        if self.request.no_cache:
            return "--no-cache"
        return f"--no-cache-filter={','.join(self.request.no_cache_filter)}" * bool(
            self.request.no_cache_filter
        )

    # --- what to compare with

    def _near(self, node: Node) -> Iterator[dict[str, Any]]:
        if self._near_left <= 0:
            return
        self._near_left -= 1
        for record in self.store.records.near(node.op, node.vertex.name):
            if record.key != node.key:
                yield record.parts

    def _comparable(self, reports: list[BuildReport]) -> list[BuildReport]:
        """The last builds of the same context and Dockerfile, else those that had most of the same steps; of
        equal ones one.
        """
        wanted = self.about["context"], self.about["dockerfile"]
        same = [
            report for report in reports if wanted[0] != "-" and (report.context, report.dockerfile) == wanted
        ]
        if not same:
            names, half = set(self.names), len(set(self.names)) / 2
            same = [report for report in reports if len(names & {step.name for step in report.steps}) >= half]
        different: dict[tuple[tuple[str, bool], ...], BuildReport] = {}
        for report in same:
            different.setdefault(tuple((step.key, _has_result(step)) for step in report.steps), report)
        return list(different.values())[:_EARLIER]


def remember_parts(store: Store, node: Node, nodes: Nodes) -> None:
    """Keep what a step was made of whose result an import has: it has no record here to be compared with."""
    if node.record is None and store.doc(_PARTS, node.key) is None:
        store.put_doc(_PARTS, node.key, json.dumps(record_parts(node, nodes, {})).encode())


def _has_result(step: StepReport) -> bool:
    return step.status in _ENDED and not step.unsure


def _output(node: Node, position: int, nodes: Nodes) -> str | None:
    """The snapshot of an input, if it is there."""
    edge = node.vertex.inputs[position]
    source = nodes[edge.digest]
    outputs = source.outputs or (source.record.outputs if source.record is not None else ())
    return outputs[edge.index] if edge.index < len(outputs) else None


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
    if same is not None and same.status not in _ENDED:
        return (Cause("unfinished"),)
    return (Cause("gone"),)
