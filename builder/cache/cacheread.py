"""Reading cache documents that somebody else wrote (RCH-01, RCH-06, RCH-16).

Nothing in them is believed: counts, indexes, texts and loops are checked before a value is made. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from builder.cache.cacheconfig import (
    CREATED_ANNOTATION,
    DESCRIPTION_ANNOTATION,
    DIFF_ID_ANNOTATION,
    MAX_CHAIN,
    MAX_JSON_BYTES,
    CacheConfig,
    CacheLayer,
    CacheLink,
    CacheMountBlob,
    CacheRecordNode,
    CacheResult,
    time_ns,
    time_text,
)
from builder.errors import InvalidValue
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest

MAX_RECORDS = 20_000
MAX_LAYERS = 20_000
MAX_LINKS = 200_000
MAX_RESULTS = 50_000
MAX_MOUNTS = 1_000


def from_json(
    data: bytes, descriptors: Mapping[Digest, Descriptor] | None = None, *, name: str = "the cache"
) -> CacheConfig:
    """Read a cache document. ``descriptors`` are those of the manifest beside it, by digest.

    Raises InvalidValue: malformed, too large, indexes that lead nowhere, ``invalid loop`` (RCH-16).
    """
    if len(data) > MAX_JSON_BYTES:
        raise InvalidValue(f"blob {name} is too large ({len(data)} > {MAX_JSON_BYTES})")
    value = _parsed(data, name)
    if not isinstance(value, dict):
        raise InvalidValue(f"{name}: not a cache document")
    known = descriptors or {}
    try:
        layers = tuple(_layer(item, known) for item in _list(value.get("layers"), MAX_LAYERS, "layers"))
        records = _records(value.get("records"), tuple(layer.parent for layer in layers))
        mounts = tuple(
            found
            for item in _list(value.get("mounts"), MAX_MOUNTS, "mounts")
            if (found := _mount(item)) is not None
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise InvalidValue(f"{name}: malformed cache document: {error}") from error
    except InvalidValue as error:
        raise InvalidValue(f"{name}: {error.message}") from error
    return CacheConfig(layers=_timed(layers, records), records=records, mounts=mounts)


def from_inline(data: bytes, layers: Sequence[Descriptor], *, name: str = "the image") -> CacheConfig:
    """The records that an image config carries; layer numbers mean the image's layers (RCH-06)."""
    if len(data) > MAX_JSON_BYTES:
        raise InvalidValue(f"blob {name} is too large ({len(data)} > {MAX_JSON_BYTES})")
    value = _parsed(data, name)
    if isinstance(value, dict):
        value = value.get("records")
    stack = tuple(
        CacheLayer(blob=descriptor.digest, parent=number - 1, descriptor=descriptor)
        for number, descriptor in enumerate(layers)
    )
    try:
        records = _records(value, tuple(layer.parent for layer in stack))
    except (TypeError, KeyError, AttributeError) as error:
        raise InvalidValue(f"{name}: malformed inline cache: {error}") from error
    return CacheConfig(layers=_timed(stack, records), records=records)


def _timed(layers: tuple[CacheLayer, ...], records: Sequence[CacheRecordNode]) -> tuple[CacheLayer, ...]:
    """Layers with the time at which a record says that they were made: one blob may be the layer of two
    steps, and a manifest describes it once.
    """
    found = list(layers)
    for record in records:
        for result in record.results:
            layer = found[result.layers[-1]]
            if layer.descriptor is not None and result.created_ns:
                kept = [pair for pair in layer.descriptor.annotations if pair[0] != CREATED_ANNOTATION]
                pairs = (*kept, (CREATED_ANNOTATION, time_text(result.created_ns)))
                told = replace(layer.descriptor, annotations=pairs)
                found[result.layers[-1]] = replace(layer, descriptor=told)
    return tuple(found)


def _parsed(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{name}: the cache document is not valid JSON") from error


def _list(value: Any, limit: int, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidValue(f"{what} is not a list")
    if len(value) > limit:
        raise InvalidValue(f"too many {what}: {len(value)} of at most {limit}")
    return value


def _number(value: Any, limit: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise InvalidValue(f"{what} {value!r:.40} leads nowhere")
    return value


def _layer(item: Any, known: Mapping[Digest, Descriptor]) -> CacheLayer:
    blob = Digest.parse(_text(item["blob"]))
    parent = item.get("parent", 0)
    if isinstance(parent, bool) or not isinstance(parent, int):
        raise InvalidValue("the parent of a layer is not a number")
    descriptor = known.get(blob)
    if descriptor is None and isinstance(item.get("annotations"), dict):
        descriptor = _described(blob, item["annotations"])
    return CacheLayer(blob=blob, parent=parent, descriptor=descriptor)


def _described(blob: Digest, told: dict[str, Any]) -> Descriptor:
    pairs = (
        (DIFF_ID_ANNOTATION, told.get("diffID")),
        (CREATED_ANNOTATION, told.get("createdAt")),
        (DESCRIPTION_ANNOTATION, told.get("description")),
    )
    return Descriptor(
        media_type=_text(told.get("mediaType", "")),
        digest=blob,
        size=_number(told.get("size", 0), 1 << 50, "the size of a layer"),
        annotations=tuple((key, _text(value)) for key, value in pairs if value),
    )


def _mount(item: Any) -> CacheMountBlob | None:
    name = _text(item["id"])
    if not name or "\0" in name:
        return None
    return CacheMountBlob(id=name, descriptor=_described(Digest.parse(_text(item["blob"])), item))


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise InvalidValue(f"{value!r:.40} is not a text")
    return value


def _records(value: Any, parents: tuple[int, ...]) -> tuple[CacheRecordNode, ...]:
    items = _list(value, MAX_RECORDS, "records")
    budget, chains = _Budget(), _Chains(parents)
    records = tuple(_record(item, len(items), chains, budget) for item in items)
    _check_loops(records)
    return records


class _Budget:
    """How many links and results one document may have in all."""

    def __init__(self) -> None:
        self.links = MAX_LINKS
        self.results = MAX_RESULTS

    def link(self) -> None:
        self.links -= 1
        if self.links < 0:
            raise InvalidValue(f"more than {MAX_LINKS} links")

    def result(self) -> None:
        self.results -= 1
        if self.results < 0:
            raise InvalidValue(f"more than {MAX_RESULTS} results")


def _record(item: Any, count: int, chains: _Chains, budget: _Budget) -> CacheRecordNode:
    digest = str(Digest.parse(_text(item["digest"])))
    results: list[CacheResult] = []
    for found in _list(item.get("layers"), MAX_RESULTS, "results"):
        budget.result()
        number = _number(found.get("layer", 0), len(chains), "layer")
        results.append(CacheResult(chains.of(number), time_ns(_text(found.get("createdAt", "")))))
    for found in _list(item.get("chains"), MAX_RESULTS, "results"):
        budget.result()
        numbers = _list(found.get("layers"), MAX_CHAIN, "layers of a chain")
        chain = tuple(_number(number, len(chains), "layer") for number in numbers)
        if chain:
            results.append(CacheResult(chain, time_ns(_text(found.get("createdAt", "")))))
    inputs: list[tuple[CacheLink, ...]] = []
    for alternatives in _list(item.get("inputs"), MAX_CHAIN, "inputs"):
        links: list[CacheLink] = []
        for found in _list(alternatives, MAX_LINKS, "links"):
            budget.link()
            selector = _text(found.get("selector", ""))
            links.append(CacheLink(_number(found.get("link", 0), count, "link"), selector))
        inputs.append(tuple(links))
    return CacheRecordNode(digest=digest, inputs=tuple(inputs), results=tuple(results))


class _Chains:
    """The layers below each layer, itself included; each worked out once."""

    def __init__(self, parents: tuple[int, ...]) -> None:
        self._parents = parents
        self._known: dict[int, tuple[int, ...]] = {-1: ()}

    def __len__(self) -> int:
        return len(self._parents)

    def of(self, layer: int) -> tuple[int, ...]:
        """Lowest first. Raises InvalidValue."""
        above: list[int] = []
        while layer not in self._known:
            if layer >= len(self._parents) or len(above) > MAX_CHAIN:
                raise InvalidValue("invalid loop in layers")
            above.append(layer)
            layer = max(self._parents[layer], -1)
        for number in reversed(above):
            found = (*self._known[layer], number)
            if len(found) > MAX_CHAIN:
                raise InvalidValue(f"more than {MAX_CHAIN} layers on each other")
            self._known[number] = found
            layer = number
        return self._known[layer]


def _check_loops(records: Sequence[CacheRecordNode]) -> None:
    """RCH-16: a record that can reach itself is refused."""
    state = [0] * len(records)
    for start in range(len(records)):
        stack = [(start, False)]
        while stack:
            number, left = stack.pop()
            if left:
                state[number] = 2
                continue
            if state[number] == 2:
                continue
            if state[number] == 1:
                raise InvalidValue("invalid loop")
            state[number] = 1
            stack.append((number, True))
            for links in records[number].inputs:
                for link in links:
                    if state[link.link] == 1:
                        raise InvalidValue("invalid loop")
                    if state[link.link] == 0:
                        stack.append((link.link, False))
