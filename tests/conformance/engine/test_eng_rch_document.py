"""The document of an exported cache: what is in it, its one order, and what is refused of others' documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.cache.cacheconfig import MAX_JSON_BYTES, CacheConfig
from builder.cache.cachegraph import GraphBuilder, KeyIndex
from builder.cache.cacheread import from_json
from builder.cache.store import Store
from builder.errors import InvalidValue
from builder.llb.definition import Definition, Edge, Vertex, VertexMeta
from builder.llb.ops import SourceOp
from builder.oci.descriptor import OCI_LAYER_GZIP, Descriptor
from builder.oci.digest import Digest
from builder.remotecache.exporting import Build, add_keys
from builder.solver.planning import Node
from builder.solver.reporter import Reporter
from tests.support.rows import row
from tests.support.solving import Base, run


def blob(name: str) -> Descriptor:
    return Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of(name.encode()), size=len(name))


def digest(name: str) -> str:
    return str(Digest.of(name.encode()))


def graph(*, turned: bool = False) -> CacheConfig:
    builder = GraphBuilder()
    names = ["b", "a"] if turned else ["a", "b"]
    roots = [builder.add(digest(name)) for name in names]
    for root, name in zip(roots, names, strict=True):
        assert root is not None
        builder.add(digest("run"), [[(root, "")]], [((blob("base"), blob(name)), 5)])
    return builder.config()


@row("RCH-01")
def test_the_document() -> None:
    value = json.loads(graph().to_bytes())
    assert set(value) == {"layers", "records"}
    parents = {layer["blob"]: layer.get("parent") for layer in value["layers"]}
    number = next(i for i, layer in enumerate(value["layers"]) if layer["blob"] == digest("base"))
    assert parents[digest("base")] == -1
    assert {parents[digest("a")], parents[digest("b")]} == {number or None}
    with_input = next(record for record in value["records"] if "inputs" in record)
    assert set(with_input["inputs"][0][0]) == {"link"}
    assert set(with_input["layers"][0]) == {"layer", "createdAt"}
    assert from_json(graph().to_bytes(details=True)).to_bytes() == graph().to_bytes()
    first = from_json(b'{"layers":[{"blob":"%b","parent":-1},{"blob":"%b"}],"records":[{"digest":"%b","chains":[{"layers":[1,0],"createdAt":"2026-01-02T03:04:05Z"}]}]}'
                      % (digest("x").encode(), digest("y").encode(), digest("k").encode()))  # fmt: skip
    assert first.layers[1].parent == 0, "no parent says 0"
    assert first.records[0].results[0].layers == (1, 0)


@row("RCH-02", "CKY-09")
def test_what_nobody_could_find_is_left_out() -> None:
    builder = GraphBuilder()
    assert builder.add("random:" + "0" * 64) is None
    known = builder.add(digest("source"))
    assert builder.add(digest("copy"), [[(known or 0, "")], []], [((blob("x"),), 1)]) is None
    assert builder.config().is_empty


@row("RCH-03")
def test_one_order() -> None:
    assert graph().to_bytes() == graph(turned=True).to_bytes()
    value = json.loads(graph().to_bytes())
    assert [layer["blob"] for layer in value["layers"]] == sorted(layer["blob"] for layer in value["layers"])
    names = [record["digest"] for record in value["records"]]
    assert names == sorted(names)


@row("RCH-06")
def test_what_is_too_large_or_malformed_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"is too large \(1048577 > 1048576\)"):
        from_json(b" " * (MAX_JSON_BYTES + 1))
    for text in (
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"records":[{"digest":"x"}]}',
        b'{"records":[{"digest":"%b","layers":[{"layer":0}]}]}' % digest("a").encode(),
        b'{"records":[{"digest":"%b","inputs":[[{"link":7}]]}]}' % digest("a").encode(),
        b'{"records":[{"digest":"%b","inputs":[[{"link":-1}]]}]}' % digest("a").encode(),
        b'{"records":[{"digest":"%b","inputs":[[{"link":true}]]}]}' % digest("a").encode(),
        b'{"records":{"a":1}}',
        b'{"layers":[7]}',
        b'{"mounts":[{"id":1,"blob":"%b"}]}' % digest("a").encode(),
    ):
        with pytest.raises(InvalidValue):
            from_json(text)


@row("RCH-06", "RCH-16")
def test_documents_that_cost_much() -> None:
    """Deep stacks with many results, and thousands of records that look alike."""
    layers = [{"blob": digest("x"), "parent": n - 1} for n in range(500)]
    results = [{"layer": 499}] * 30_000
    deep = {"layers": layers, "records": [{"digest": digest("a"), "layers": results}]}
    assert len(from_json(json.dumps(deep, separators=(",", ":")).encode()).records[0].results) == 30_000
    with pytest.raises(InvalidValue, match="layers on each other"):
        from_json(json.dumps({**deep, "layers": [*layers, {"blob": digest("x"), "parent": 499}],
                              "records": [{"digest": digest("a"), "layers": [{"layer": 500}]}]}).encode())  # fmt: skip
    alike = [{"digest": digest("leaf")}]
    alike += [{"digest": digest("a"), "inputs": [[{"link": 0, "selector": str(n)}]]} for n in range(6000)]
    builder = GraphBuilder()
    builder.add_config(from_json(json.dumps({"records": alike}, separators=(",", ":")).encode()))
    assert builder.config().is_empty


@row("RCH-16")
def test_loops() -> None:
    loop = b'{"records":[{"digest":"%b","inputs":[[{"link":1}]]},{"digest":"%b","inputs":[[{"link":0}]]}]}'
    with pytest.raises(InvalidValue, match="invalid loop"):
        from_json(loop % (digest("a").encode(), digest("b").encode()))
    layers = b'{"layers":[{"blob":"%b","parent":1},{"blob":"%b"}],"records":[{"digest":"%b","layers":[{"layer":0}]}]}'
    with pytest.raises(InvalidValue, match="invalid loop"):
        from_json(layers % (digest("a").encode(), digest("b").encode(), digest("c").encode()))
    builder = GraphBuilder()
    content = builder.add(digest("content"))
    assert content is not None
    first = builder.add(digest("copy"), [[(content, "")]], [((blob("x"),), 1)])
    assert first is not None
    again = builder.add(digest("copy"), [[(content, ""), (first, "part")]], [((blob("y"),), 2)])
    assert again == first, "the same operation on the same content"
    config = builder.config()
    assert from_json(config.to_bytes()).records, "and it does not lead to itself"


@row("RCH-17", "CKY-01", "SLV-06")
def test_equal_records_are_one() -> None:
    builder = GraphBuilder()
    one, two = builder.add(digest("one")), builder.add(digest("two"))
    assert one is not None
    assert two is not None
    first = builder.add(digest("run"), [[(one, "")]], [((blob("old"),), 1)])
    assert builder.add(digest("run"), [[(one, ""), (two, "")]], [((blob("new"),), 2)]) == first
    assert builder.add(digest("run"), [[(two, "other")]], [((blob("third"),), 3)]) != first
    records = [record for record in builder.config().records if len(record.inputs and record.inputs[0]) == 2]
    assert len(records) == 1
    (result,) = records[0].results
    assert result.created_ns == 2, "the newest result is written"
    index = KeyIndex(builder.config())
    assert len(index.users(digest("run"), [[(min(index.roots([digest("two")])), "")]])) == 1


@row("SLV-10")
@pytest.mark.parametrize("exported", [True, False])
def test_a_step_that_is_not_exported(ministore: Store, exported: bool) -> None:
    base = Vertex(op=SourceOp(identifier="docker-image://x"))
    step = replace(run("true", base), meta=VertexMeta(export_cache=exported))
    nodes = {v.digest: Node(vertex=v, reporter=Reporter(v, lambda _: None)) for v in (base, step)}
    build = Build(
        definition=Definition(vertices=(base, step), head=Edge(step.digest)),
        nodes=nodes,
        sources=Named(ministore),
    )
    builder = GraphBuilder()
    add_keys(builder, build, ministore, lambda *_: iter([((blob("x"),), 1)]))
    assert builder.config().is_empty is not exported


class Named(Base):
    """Sources that have a name in exported caches."""

    def base_digests(self, op: SourceOp, platform: Any, reporter: Reporter) -> tuple[str, ...]:
        return (digest(op.identifier),)


@pytest.fixture
def ministore(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "root") as store:
        yield store
