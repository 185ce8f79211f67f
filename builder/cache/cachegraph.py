"""The key graph of exported caches: made from the steps of a build, and searched for them (SLV-13).

``GraphBuilder`` takes keys, inputs first, and gives a document in one order (RCH-03); keys that turn out to
be the same are merged and no key can reach itself (RCH-16, RCH-17). ``KeyIndex`` answers which records fit a
step, given the records that fit its inputs. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from builder.cache.cacheconfig import (
    CacheConfig,
    CacheLayer,
    CacheLink,
    CacheMountBlob,
    CacheRecordNode,
    CacheResult,
)
from builder.oci.canonical import canonical_json
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest

Stack = tuple[Descriptor, ...]
"""The layers of a tree, lowest first."""
Link = tuple[int, str]
"""A node of the builder and the selector of the link to it."""


_COMPARED = 200
_LOOKED = 1_000_000
"""What somebody else's document may cost when it is merged; beyond that, keys stay apart."""


@dataclass(slots=True)
class _Node:
    digest: str
    inputs: list[set[Link]]
    results: dict[Stack, int] = field(default_factory=dict)


class GraphBuilder:
    """Collects keys and results; ``config`` is what was collected."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._by_digest: dict[str, list[int]] = {}
        self._looked = 0

    def add(
        self, digest: str, inputs: Sequence[Iterable[Link]] = (), results: Iterable[tuple[Stack, int]] = ()
    ) -> int | None:
        """One key with the results that are known for it (layers, creation time).

        ``inputs`` has per input the nodes that lead to the key. None, and nothing is kept, for a local key
        (``random:``) and where an input has no node: nobody could ever find it (RCH-02).
        """
        links = [set(alternatives) for alternatives in inputs]
        if digest.startswith("random:") or not all(links):
            return None
        number = self._same(digest, links)
        if number is None:
            number = len(self._nodes)
            self._nodes.append(_Node(digest, links))
            self._by_digest.setdefault(digest, []).append(number)
        else:
            self._extend(number, links)
        node = self._nodes[number]
        for stack, created_ns in results:
            if stack:
                node.results[stack] = max(created_ns, node.results.get(stack, 0))
        return number

    def add_config(self, config: CacheConfig) -> None:
        """All that another document says; what has no description of its blobs is left out."""
        numbers: dict[int, int | None] = {}
        for index in _inputs_first(config.records):
            record = config.records[index]
            inputs = [
                {(known, link.selector) for link in links if (known := numbers.get(link.link)) is not None}
                for links in record.inputs
            ]
            results = [
                (stack, result.created_ns)
                for result in record.results
                if (stack := stack_of(config, result)) is not None
            ]
            numbers[index] = self.add(record.digest, inputs, results)

    def config(self, mounts: Sequence[CacheMountBlob] = ()) -> CacheConfig:
        """The document: only keys that lead to a result, each with its newest one (RCH-17)."""
        kept = self._leading()
        names = self._names(kept)
        order = sorted(kept, key=lambda number: (self._nodes[number].digest, names[number]))
        index = {number: position for position, number in enumerate(order)}
        newest = {number: self._newest(number) for number in order}
        layers, numbers = _layers(found[0] for found in newest.values() if found is not None)
        records = []
        for number in order:
            node, result = self._nodes[number], newest[number]
            records.append(
                CacheRecordNode(
                    digest=node.digest,
                    inputs=tuple(
                        tuple(sorted(CacheLink(index[link], selector) for link, selector in links))
                        for links in node.inputs
                    ),
                    results=()
                    if result is None
                    else (CacheResult(_positions(result[0], numbers), result[1]),),
                )
            )
        return CacheConfig(
            layers=layers,
            records=tuple(records),
            mounts=tuple(sorted(mounts, key=lambda mount: mount.id)),
        )

    def _same(self, digest: str, links: Sequence[set[Link]]) -> int | None:
        """A key of the same operation that shares a link for every input."""
        for number in self._by_digest.get(digest, ())[-_COMPARED:]:
            known = self._nodes[number].inputs
            if len(known) == len(links) and all(
                not own.isdisjoint(other) for own, other in zip(links, known, strict=True)
            ):
                return number
        return None

    def _extend(self, number: int, links: Sequence[set[Link]]) -> None:
        """More ways to a key, except those that begin at the key itself."""
        for known, more in zip(self._nodes[number].inputs, links, strict=True):
            known |= {link for link in more - known if not self._reaches(link[0], number)}

    def _reaches(self, start: int, wanted: int) -> bool:
        seen, stack = {start}, [start]
        while stack:
            number = stack.pop()
            self._looked += 1
            if number == wanted or self._looked > _LOOKED:
                return True
            for links in self._nodes[number].inputs:
                for link, _ in links:
                    if link not in seen:
                        seen.add(link)
                        stack.append(link)
        return False

    def _leading(self) -> set[int]:
        """The keys with results and all that lead to them."""
        kept = {number for number, node in enumerate(self._nodes) if node.results}
        stack = list(kept)
        while stack:
            for links in self._nodes[stack.pop()].inputs:
                for link, _ in links:
                    if link not in kept:
                        kept.add(link)
                        stack.append(link)
        return kept

    def _names(self, kept: set[int]) -> dict[int, str]:
        """A digest of each key with all below it, so that equal graphs are written in one order."""
        names: dict[int, str] = {}
        stack = sorted(kept)
        while stack:
            number = stack[-1]
            node = self._nodes[number]
            waiting = [link for links in node.inputs for link, _ in links if link not in names]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            below = [sorted([names[link], selector] for link, selector in links) for links in node.inputs]
            names[number] = str(Digest.of(canonical_json([node.digest, below])))
        return names

    def _newest(self, number: int) -> tuple[Stack, int] | None:
        results = self._nodes[number].results
        if not results:
            return None
        return max(results.items(), key=lambda item: (item[1], [str(layer.digest) for layer in item[0]]))


def _layers(stacks: Iterable[Stack]) -> tuple[tuple[CacheLayer, ...], dict[tuple[Digest, ...], int]]:
    """Every layer once per stack below it, by (blob, parents), and where each stack's top is."""
    found: dict[tuple[Digest, ...], Descriptor] = {}
    for stack in stacks:
        digests = tuple(layer.digest for layer in stack)
        for height, layer in enumerate(stack, start=1):
            found.setdefault(digests[:height], layer)
    order = sorted(found, key=lambda key: (str(key[-1]), [str(digest) for digest in key]))
    numbers = {key: number for number, key in enumerate(order)}
    layers = tuple(
        CacheLayer(blob=key[-1], parent=numbers.get(key[:-1], -1), descriptor=found[key]) for key in order
    )
    return layers, numbers


def _positions(stack: Stack, numbers: dict[tuple[Digest, ...], int]) -> tuple[int, ...]:
    digests = tuple(layer.digest for layer in stack)
    return tuple(numbers[digests[:height]] for height in range(1, len(digests) + 1))


def stack_of(config: CacheConfig, result: CacheResult) -> Stack | None:
    """The layers of a result; None when a blob of it is not described."""
    found = [config.layers[number].descriptor for number in result.layers]
    known = tuple(descriptor for descriptor in found if descriptor is not None)
    return known if len(known) == len(found) else None


def _inputs_first(records: Sequence[CacheRecordNode]) -> list[int]:
    order: list[int] = []
    seen: set[int] = set()
    for start in range(len(records)):
        stack = [(start, False)]
        while stack:
            number, expanded = stack.pop()
            if expanded:
                order.append(number)
            elif number not in seen:
                seen.add(number)
                stack.append((number, True))
                stack.extend((link.link, False) for links in records[number].inputs for link in links)
    return order


class KeyIndex:
    """The records of one document, by what leads to them."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self._roots: dict[str, set[int]] = {}
        self._users: dict[tuple[int, int, str, str], set[int]] = {}
        for number, record in enumerate(config.records):
            if not record.inputs:
                self._roots.setdefault(record.digest, set()).add(number)
            for position, links in enumerate(record.inputs):
                for link in links:
                    key = (link.link, position, record.digest, link.selector)
                    self._users.setdefault(key, set()).add(number)

    def roots(self, digests: Iterable[str]) -> frozenset[int]:
        """The records without inputs that have one of these names."""
        return frozenset(number for digest in digests for number in self._roots.get(digest, ()))

    def users(self, digest: str, inputs: Sequence[Iterable[Link]]) -> frozenset[int]:
        """The records of one operation that all inputs lead to, each by one of its (record, selector)."""
        found: set[int] | None = None
        for position, links in enumerate(inputs):
            reached: set[int] = set()
            for link, selector in links:
                reached |= self._users.get((link, position, digest, selector), set())
            found = reached if found is None else found & reached
            if not found:
                return frozenset()
        count = len(inputs)
        return frozenset(number for number in found or () if len(self.config.records[number].inputs) == count)
