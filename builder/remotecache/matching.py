"""Which results of imported caches fit the steps of a build, and how they get here (SLV-06, SLV-08…SLV-14).

Every import is a graph of keys. A step's keys in it are found from the keys of its inputs, from sources
upwards; where only the content of an input counts, its digest leads to a key as well. Nothing is fetched but
the documents until a result is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from builder.cache.basekeys import InputRule, base_digest, content_key, input_rules, root_key
from builder.cache.cachegraph import KeyIndex, Link, Stack, stack_of
from builder.cache.types import CacheRecord
from builder.errors import Cancelled, PybuildError
from builder.llb.ops import BuildOp, ExecOp, SourceOp, output_count
from builder.oci.digest import Digest
from builder.remotecache.backend import CacheImporter
from builder.remotecache.fetching import Fetcher
from builder.solver.cutoff import selection_digest
from builder.solver.env import SolveEnv
from builder.solver.planning import Node, Nodes

Snapshots = Mapping[int, str | None]
Found = tuple[frozenset[int], ...]
"""Per import, the records that stand for one result of a step."""


@dataclass(frozen=True, slots=True)
class Imported:
    """One document of an import."""

    importer: CacheImporter
    index: KeyIndex
    vertex: str
    """The step in which it was read, to which warnings belong."""


@dataclass(frozen=True, slots=True)
class RemoteStack:
    """A result of an import: its layers where they are, and when the step gave it."""

    importer: CacheImporter
    stack: Stack
    created_ns: int


class RemoteCaches:
    """The imports of one build (the solver's ``RemoteResults``). ``load`` is called when they are needed."""

    def __init__(self, load: Callable[[], Sequence[Imported]]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._imported: tuple[Imported, ...] | None = None
        self._found: dict[tuple[Digest, int], Found] = {}
        self._failed: set[RemoteStack] = set()

    def match(self, nodes: Nodes, env: SolveEnv) -> None:
        """Find every step in the imports; steps without a record of their own get ``remote``."""
        if not self._documents():
            return
        for digest, node in nodes.items():
            known = self._records(node, env, _snapshots(node, nodes))
            for output, found in enumerate(known):
                self._found[digest, output] = found
            if node.record is None and not isinstance(node.vertex.op, SourceOp):
                node.remote = self._results(known) or None

    def late(self, node: Node, nodes: Nodes, snapshots: Snapshots, env: SolveEnv) -> CacheRecord | None:
        """See ``RemoteResults``."""
        if not self._imported or node.vertex.meta.ignore_cache or node.unsure:
            return None
        known = self._records(node, env, snapshots, late=True)
        with self._lock:
            for output, found in enumerate(known):
                self._found[node.vertex.digest, output] = found
        return self._fetch(self._results(known), node, nodes, env)

    def fetch(self, node: Node, nodes: Nodes, env: SolveEnv) -> CacheRecord | None:
        """See ``RemoteResults``: the newest that can be had."""
        return self._fetch(node.remote or (), node, nodes, env)

    def fill_mounts(self, ops: Iterable[ExecOp], env: SolveEnv) -> None:
        """See ``RemoteResults``."""
        imported = [item for item in self._imported or () if item.index.config.mounts]
        if imported:
            from builder.remotecache.mounts import fill_mounts

            offered = [(item.importer, item.vertex, item.index.config.mounts) for item in imported]
            fill_mounts(offered, ops, env)

    def content_names(self, node: Node) -> dict[int, set[str]]:
        """Per input of a matched step the keys of content that led to it, by the imports (CKY-12)."""
        names: dict[int, set[str]] = {}
        rules = input_rules(node.vertex)
        for item, records in zip(
            self._imported or (), self._found.get((node.vertex.digest, 0), ()), strict=False
        ):
            known = item.index.config.records
            for position, rule in enumerate(rules):
                if rule.by_content:
                    links = (link for record in records for link in known[record].inputs[position])
                    found = {known[link.link].digest for link in links if not link.selector}
                    names.setdefault(position, set()).update(found)
        return names

    def _documents(self) -> tuple[Imported, ...]:
        with self._lock:
            if self._imported is None:
                self._imported = tuple(self._load())
            return self._imported

    def _fetch(
        self, results: Sequence[object], node: Node, nodes: Nodes, env: SolveEnv
    ) -> CacheRecord | None:
        for result in results:
            assert isinstance(result, RemoteStack)
            if result in self._failed:
                continue
            try:
                return Fetcher(result.importer, env).record(
                    node, nodes, result.stack, created_ns=result.created_ns
                )
            except Cancelled:
                raise
            except PybuildError as error:
                self._failed.add(result)
                node.reporter.warn(
                    f"the cached result in {result.importer.label} cannot be used: {error.message}"
                )
        return None

    # --- keys

    def _records(self, node: Node, env: SolveEnv, snapshots: Snapshots, *, late: bool = False) -> list[Found]:
        """The records of every output of a step."""
        op = node.vertex.op
        nothing = tuple(frozenset[int]() for _ in self._imported or ())
        without = node.local or node.blocked or node.error is not None or isinstance(op, BuildOp)
        if without or node.vertex.meta.ignore_cache or (node.tainted and not late):
            return [nothing] * output_count(op)
        if isinstance(op, SourceOp):
            digests = env.sources.base_digests(op, node.vertex.platform, node.reporter)
            names = [root_key(digest) for digest in digests]
            return [tuple(item.index.roots(names) for item in self._imported or ())]
        rules = input_rules(node.vertex)
        contents = {
            position: part.content for position, part in enumerate(node.inputs) if rules[position].by_content
        }
        found = self._by_inputs(node, rules, contents)
        if not any(any(ids) for ids in found):
            # Content of other inputs is digested only where cheaper keys did not decide (SLV-14).
            more = _contents(node, rules, snapshots, env)
            if more:
                found = self._by_inputs(node, rules, {**contents, **more})
        return found

    def _by_inputs(self, node: Node, rules: Sequence[InputRule], contents: Mapping[int, str]) -> list[Found]:
        base = base_digest(node.vertex)
        return [
            tuple(
                item.index.users(root_key(base, output), self._links(number, item, node, rules, contents))
                for number, item in enumerate(self._imported or ())
            )
            for output in range(output_count(node.vertex.op))
        ]

    def _links(
        self,
        number: int,
        item: Imported,
        node: Node,
        rules: Sequence[InputRule],
        contents: Mapping[int, str],
    ) -> list[set[Link]]:
        links: list[set[Link]] = []
        for position, edge in enumerate(node.vertex.inputs):
            found = self._found.get((edge.digest, edge.index))
            ways = {(record, rules[position].selector) for record in (found[number] if found else ())}
            content = contents.get(position, "")
            if content:
                ways |= {(record, "") for record in item.index.roots((content_key(content),))}
            links.append(ways)
        return links

    def _results(self, known: Sequence[Found]) -> tuple[RemoteStack, ...]:
        """What the records of a step with one output lead to: newest first, then in the order of imports."""
        if len(known) != 1:
            return ()
        results = [
            RemoteStack(item.importer, stack, result.created_ns)
            for item, records in zip(self._imported or (), known[0], strict=True)
            for record in sorted(records)
            for result in item.index.config.records[record].results
            if (stack := stack_of(item.index.config, result)) is not None
        ]
        return tuple(sorted(results, key=lambda result: -result.created_ns))


def _snapshots(node: Node, nodes: Nodes) -> dict[int, str | None]:
    """The trees of inputs that are on record here."""
    found: dict[int, str | None] = {}
    for position, edge in enumerate(node.vertex.inputs):
        record = nodes[edge.digest].record
        if record is not None and edge.index < len(record.outputs):
            found[position] = record.outputs[edge.index]
    return found


def _contents(node: Node, rules: Sequence[InputRule], snapshots: Snapshots, env: SolveEnv) -> dict[int, str]:
    found: dict[int, str] = {}
    for position, rule in enumerate(rules):
        snapshot = snapshots.get(position)
        if rule.by_content and snapshot is not None:
            digest = selection_digest(node, position, snapshot, env.store)
            if digest.startswith("sha256:"):
                found[position] = digest
    return found
