"""Vertices and definitions: digests, order, checks, and the JSON form."""

import json

import pytest

from builder.cache import keys
from builder.errors import GraphError
from builder.llb import graph, opjson
from builder.llb.definition import Definition, Edge, Vertex, VertexMeta, encode_op
from builder.llb.ops import (
    ChownOpt,
    Copy,
    ExecMeta,
    ExecOp,
    FileAction,
    FileOp,
    MergeOp,
    MkFile,
    Mount,
    SourceOp,
    UserOpt,
)
from builder.oci.digest import Digest


def run(*args, **meta):
    return ExecOp(meta=ExecMeta(args=args, **meta), mounts=(Mount(dest="/", input=0, output=0),))


@pytest.fixture()
def definition():
    image = Vertex(op=SourceOp(identifier="docker-image://docker.io/library/busybox:latest"))
    first = Vertex(op=run("make"), inputs=(Edge(image.digest),), meta=VertexMeta(name="[1/2] RUN make"))
    copy = Copy(src="/a", dest="/b", owner=ChownOpt(user=UserOpt(name="app", input=0), group=UserOpt(id=5)))
    second = Vertex(
        op=FileOp(
            actions=(
                FileAction(action=copy, input=0, secondary=1),
                FileAction(action=MkFile(path="/x", data=b"\x00\xff"), input=2, output=0),
            )
        ),
        inputs=(Edge(first.digest), Edge(image.digest)),
    )
    unused = Vertex(op=SourceOp(identifier="docker-image://unused"))
    vertices = {vertex.digest: vertex for vertex in (unused, second, first, image)}
    return Definition.of(vertices, Edge(second.digest))


def test_a_definition_holds_only_what_the_head_reaches_inputs_first(definition):
    names = [vertex.name for vertex in definition.vertices]
    assert names == [
        "docker-image://docker.io/library/busybox:latest",
        "[1/2] RUN make",
        "copy /a /b, mkfile /x",
    ]


def test_the_digest_covers_op_and_inputs_but_not_what_people_see():
    source = Vertex(op=SourceOp(identifier="local://context"))
    plain = Vertex(op=run("make"), inputs=(Edge(source.digest),))
    named = Vertex(
        op=run("make"), inputs=(Edge(source.digest),), meta=VertexMeta(name="x", ignore_cache=True)
    )
    assert plain.digest == named.digest
    assert plain == named
    assert plain.digest != Vertex(op=run("make", "all"), inputs=(Edge(source.digest),)).digest
    assert plain.digest != Vertex(op=run("make"), inputs=(Edge(source.digest, 1),)).digest


def test_ops_come_back_from_their_json(definition):
    for vertex in definition.vertices:
        assert opjson.decode_op(encode_op(vertex.op)) == vertex.op


@pytest.mark.parametrize(
    "value", [{}, {"Nope": {}}, {"ExecOp": {}}, {"FileOp": {"actions": [{"action": 1}]}}]
)
def test_garbage_is_refused(value):
    with pytest.raises(GraphError):
        opjson.decode_op(value)


def test_the_longest_chain_is_found(definition):
    assert len(graph.critical_path(definition)) == 3


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        (ExecOp(meta=ExecMeta(args=()), mounts=(Mount(dest="/"),)), 0),
        (ExecOp(meta=ExecMeta(args=("x",)), mounts=()), 0),
        (ExecOp(meta=ExecMeta(args=("x",)), mounts=(Mount(dest="/a"),)), 0),
        (run("x"), 0),
        (FileOp(actions=()), 0),
        (FileOp(actions=(FileAction(action=Copy(src="a", dest="b"), secondary=3),)), 1),
        (MergeOp(inputs=(0, 1)), 1),
    ],
)
def test_definitions_that_break_their_own_rules_are_refused_opm_12(op, inputs):
    source = Vertex(op=SourceOp(identifier="local://context"))
    vertex = Vertex(op=op, inputs=tuple(Edge(source.digest) for _ in range(inputs)))
    with pytest.raises(GraphError):
        Definition(vertices=(source, vertex), head=Edge(vertex.digest))


def test_a_missing_input_is_refused():
    vertex = Vertex(op=run("x"), inputs=(Edge(Digest.of(b"nothing")),))
    with pytest.raises(GraphError, match="missing input digest"):
        Definition(vertices=(vertex,), head=Edge(vertex.digest))


def test_keys_leave_out_proxies_addresses_and_selectors_cky_02():
    plain, _ = keys.op_digest(run("x"), None)
    proxied, _ = keys.op_digest(
        run("x", proxy_env=(("http_proxy", "http://u:p@h"),), cgroup_parent="a"), None
    )
    assert plain == proxied
    one, _ = keys.op_digest(run("x", extra_hosts=(("db", "10.0.0.1"),)), None)
    two, parts = keys.op_digest(run("x", extra_hosts=(("db", "10.0.0.2"),)), None)
    assert one == two != plain
    assert "10.0.0.2" not in json.dumps(parts)


def test_moving_a_copy_source_to_another_parent_keeps_the_key_cky_06():
    def key(src):
        return keys.op_digest(
            FileOp(actions=(FileAction(action=Copy(src=src, dest="/d"), input=0, secondary=1, output=0),)),
            None,
        )[0]

    assert key("/a/file") == key("/b/c/file")
    assert key("/a/file") != key("/a/other")


def test_step_keys_depend_on_every_input():
    a, b = keys.InputPart(key="a"), keys.InputPart(key="b")
    assert (
        len(
            {keys.step_key("op", parts) for parts in [(a, b), (b, a), (a,), (keys.InputPart(content="a"), b)]}
        )
        == 4
    )
